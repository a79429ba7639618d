from __future__ import annotations

import pytest

from router.collecting.graders.gold.choice import chosen_letter
from tests.router.collecting.graders.grading import score, verdict

CITIES = ("Lyon", "Paris", "New York", "New York City")


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(B)",
        "**B.**",
        "The answer is (B)",
        "The answer is B.",
        "Answer: B",
        "ANSWER: **B**",
        "The correct option is B, because Lyon is not the capital.",
        "First I thought that the answer is A. But the answer is B.",
        "I choose option B.",
        "$\\boxed{B}$",
        "\\boxed{\\text{(B)}}",
        "B) Paris",
        "Paris",
        "It is Paris, of course.",
        "Not Lyon, not New York. The answer is Paris",
        "A dog would know it: (B).",
        "Let us think.\n\nB. Paris",
    ],
)
async def test_the_right_choice_is_found_in_many_forms(text: str) -> None:
    assert await score("choice", text, reference="B", choices=CITIES) == 1
    assert await score("choice", text, reference="paris", choices=CITIES) == 1
    assert await score("choice", text, reference="A", choices=CITIES) == 0


@pytest.mark.parametrize(
    "text",
    [
        "The answer is A or B.",
        "Answer: A, B",
        "Answer: (A) and (B)",
        "Lyon or Paris",
        "I do not know.",
        "(A) (B)",
        "The answer is Z.",
        "",
        "A nice question!",
    ],
)
async def test_no_choice_or_two_are_wrong(text: str) -> None:
    found = await verdict("choice", text, reference="B", choices=CITIES)
    assert (found.score, found.detail["chosen"]) == (0.0, "")


def test_the_longer_of_two_options_is_meant_where_one_holds_the_other() -> None:
    assert chosen_letter("It is New York City.", CITIES) == "D"
    assert chosen_letter("It is New York.", CITIES) == "C"


async def test_letters_are_understood_without_the_options() -> None:
    assert await score("choice", "The answer is (J).", reference="j") == 1


async def test_a_letter_that_is_the_text_of_another_option_is_that_option() -> None:
    assert await score("choice", "Answer: C", reference="B", choices=("C", "A", "B")) == 1


@pytest.mark.parametrize("reference", [None, "", "E", "Rome", "12"])
async def test_a_reference_that_is_no_option_gives_no_score(reference: str | None) -> None:
    found = await verdict("choice", "B", reference=reference, choices=CITIES)
    assert found.score is None
    assert "reference" in found.reason
