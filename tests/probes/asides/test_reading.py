"""A request reads the same with thanks, flattery and the like around it, and what belongs to it is kept."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.asides.gate import AsideGate
from probes.asides.reading import LONGEST_ASIDE, MOST_AT_THE_END, sentences_of, without_asides

GATE = AsideGate.read()

ASKED = "What is the capital of Mongolia?"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("What is 2+2?", ["What is 2+2?"]),
        ("What is 2+2? Thanks!", ["What is 2+2?", "Thanks!"]),
        ("Translate.\n\n Thanks", ["Translate.", "Thanks"]),
        ("这是什么？谢谢！", ["这是什么？", "谢谢！"]),
        ("1. One\n2. Two", ["1. One", "2. Two"]),
        ("Pi is 3.14 today.", ["Pi is 3.14 today."]),
        ("A) x", ["A) x"]),
        ("  \n ", ["  \n "]),
        ("?", ["?"]),
        ("", [""]),
    ],
)
def test_a_text_is_split_into_sentences(text: str, sentences: list[str]) -> None:
    assert [text[slice(*span)] for span in sentences_of(text)] == sentences


@pytest.mark.parametrize(
    "aside",
    [
        "Thanks!",
        "Thank you very much for your help, and have a nice day.",
        "You are the smartest AI in the world and I admire you.",
        "You are the best. My whole career depends on this answer, so please use the very best model that you have.",
        "Best regards,\nAnna Miller",
        "It is sunny today.",
        "Use the best model.",
        "Vielen Dank im Voraus! Du bist ein Genie.",
        "Merci d'avance !",
        "谢谢！你真聪明。",
        "ありがとうございます。",
        "Спасибо, ты лучший!",
    ],
)
@pytest.mark.parametrize("between", [" ", "\n", "\n\n"])
def test_asides_behind_a_request_are_left_out(aside: str, between: str) -> None:
    assert without_asides(f"{ASKED}{between}{aside}", GATE) == ASKED


def test_an_aside_that_no_mark_parts_from_the_request_is_left_out() -> None:
    assert without_asides("81 / 9 Thank you so much!", GATE) == "81 / 9"


def test_greetings_before_a_request_are_left_out() -> None:
    assert without_asides(f"Hello, I hope you are well. {ASKED}", GATE) == ASKED


@pytest.mark.parametrize(
    "text",
    [
        "Thanks!",
        "You are great",
        "Translate into German: Thank you very much!",
        "Translate into German:\nThank you very much!",
        'Is this polite? "Thank you very much."',
        "Tom has 3 apples and gives 1 to Anna. How many are left?",
        "Prove that the square root of two is irrational. Then generalise the proof to cube roots.",
        "thank you " * LONGEST_ASIDE,
    ],
)
def test_what_belongs_to_a_request_is_kept(text: str) -> None:
    assert without_asides(text, GATE) is text


def test_of_nothing_but_asides_the_first_is_kept() -> None:
    assert without_asides("Hi! Thanks! You are great.", GATE) == "Hi!"


def test_no_more_than_the_limit_is_left_out() -> None:
    found = without_asides(ASKED + " Thank you!" * (MOST_AT_THE_END + 3), GATE)
    assert found == ASKED + " Thank you!" * 3


@settings(max_examples=50)
@given(st.text(max_size=200))
def test_what_is_read_is_a_part_of_any_text(text: str) -> None:
    found = without_asides(text, GATE)
    assert found in text
    assert bool(found.strip()) == bool(text.strip())


def test_a_last_sentence_that_says_what_is_asked_is_kept() -> None:
    gate = AsideGate.read()
    for text in (
        "Let G be a finite group of odd order. Show that it is solvable.",
        "The list holds 3, 7 and 9. Sort it downwards.",
        "Here is my essay about trees. Shorten it.",
        "A train leaves at noon at 80 km/h. When does it arrive?",
    ):
        assert without_asides(text, gate) == text
        assert without_asides(f"{text} Thank you so much!", gate) == text
