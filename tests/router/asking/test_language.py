"""The heuristics for language and code find clear cases, and say if they do not know."""

from __future__ import annotations

import pytest

from router.asking.language import has_code, language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Which planet has the most moons?", "en"),
        ("Wie viele Monde hat der Jupiter und warum?", "de"),
        ("Combien de lunes a la planète Jupiter, et pourquoi ?", "fr"),
        ("¿Cuántas lunas tiene el planeta Júpiter y por qué?", "es"),
        ("Quante lune ha il pianeta Giove e perché sono così tante?", "it"),
        ("Quantas luas tem o planeta Júpiter e por que são tantas?", "pt"),
        ("Hoeveel manen heeft de planeet Jupiter en waarom zijn dat er zo veel?", "nl"),
        ("Hur många månar har planeten Jupiter och varför är det så?", "sv"),
        ("Ile księżyców ma Jowisz i dlaczego jest ich tak dużo?", "pl"),
        ("Jüpiter'in kaç uydusu var ve neden bu kadar çok?", "tr"),
        ("Сколько спутников у Юпитера и почему их так много?", "ru"),
        ("Скільки супутників у Юпітера і чому це так?", "uk"),
        ("Колко спътника има Юпитер и защо са толкова много?", "bg"),
        ("목성에는 위성이 몇 개 있나요?", "ko"),
        ("木星有多少颗卫星?", "zh"),
        ("木星にはいくつの衛星がありますか", "ja"),
        ("Πόσους δορυφόρους έχει ο Δίας;", "el"),
        ("כמה ירחים יש לצדק?", "he"),
        ("ดาวพฤหัสบดีมีดวงจันทร์กี่ดวง", "th"),
        ("چرا آسمان آبی است و چگونه باید آن را توضیح داد؟", "fa"),
        ("What does the Greek word λόγος mean in this sentence?", "en"),
        ("", "und"),
        ("12 + 30 = ?", "und"),
        ("Jupiter", "und"),
        ("Tere, kuidas läheb?", "und"),
    ],
)
def test_script_and_common_words_tell_the_language(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("WHAT-is/THE_name", "en"),
        ("What's THE name?", "en"),
        # A word of several languages counts for each of them, and every time.
        ("der der der het het", "de"),
        ("ikke ikke", "und"),
        ("hvad er det", "da"),
        ("hva er det", "no"),
        # More occurrences than there are words in any prompt of today.
        ("a " * 2000, "und"),
        ("the " * 2000, "en"),
    ],
)
def test_every_occurrence_of_a_common_word_counts(text: str, language: str) -> None:
    assert language_of(text) == language
    # The same words among others than those of ASCII are found in another way.
    assert language_of(f"{text} ’“”…") == language


def test_code_in_a_fence_does_not_tell_the_language() -> None:
    assert language_of("Was ist das und warum?\n```\nif the and of to in is that it for\n```") == "de"


@pytest.mark.parametrize(
    "text",
    [
        "Fix this:\n```\nx\n```",
        "def add(a, b):\n    return a + b\n\nclass Cart:\n    pass",
        "int main() {\n  return 0;\n}",
        "It fails with\nTraceback (most recent call last):\n  File ...",
        "SELECT name FROM users\nSELECT id FROM carts",
    ],
)
def test_a_text_with_code_has_code(text: str) -> None:
    assert has_code(text)


@pytest.mark.parametrize(
    "text",
    [
        "Write a Python function that adds two numbers.",
        "We need:\nflour;\nsugar;\nand, if there is any, butter.",
        "For a while I tried this:\nit did not work.\nWhy?",
        "Let me know if the class of 1998 meets again.",
    ],
)
def test_prose_about_code_has_no_code(text: str) -> None:
    assert not has_code(text)
