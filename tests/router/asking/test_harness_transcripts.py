"""Only the human's words are judged of the transcripts in tests/golden/harnesses: our own words in public shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from router.asking.ask import _human_texts, extract
from router.asking.harness_marks import MarkIndex, shipped_harnesses, shipped_marks
from router.asking.turns import read_turns
from router.values import ApiFormat, RouteQuery
from tests.conftest import ROOT

GOLDEN = sorted((Path(__file__).parents[2] / "golden" / "harnesses").glob("*.json"))
PAGE = ROOT / "docs" / "harnesses.md"


def read(path: Path) -> dict[str, Any]:
    case: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return case


def judged(case: dict[str, Any], marks: MarkIndex) -> tuple[list[str], int]:
    """Return what is taken for the human's words in each turn that has any, and the characters of all user turns."""
    turns = read_turns(case["messages"], field="input" if case["format"] == "responses" else "messages")
    words = [text for text in _human_texts(turns, marks) if text]
    return words, sum(len(turn.text) for turn in turns if turn.role == "user")


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_of_each_transcript_the_humans_words_are_judged_and_nothing_else(path: Path) -> None:
    case = read(path)
    words, characters = judged(case, shipped_marks())
    assert words == case["human"]
    everything, _ = judged(case, MarkIndex.of(()))
    share, before = sum(map(len, words)) / characters, sum(map(len, everything)) / characters
    row = f"| {path.stem} | {characters:,} | {before:.0%} | {share:.0%} |"
    assert row in PAGE.read_text("utf-8"), f"docs/harnesses.md must hold the row {row}"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_text_to_judge_begins_with_the_first_wish_and_ends_with_the_newest(path: Path) -> None:
    case = read(path)
    api = ApiFormat.OPENAI_RESPONSES if case["format"] == "responses" else ApiFormat.OPENAI_CHAT
    ask = extract(RouteQuery(tuple(case["messages"]), api_format=api), max_bytes=100_000)
    assert ask.first_and_last == tuple(dict.fromkeys((case["human"][0], case["human"][-1])))
    assert ask.text.startswith(case["human"][0])
    assert ask.text.endswith(case["human"][-1])


def test_every_harness_that_has_marks_has_a_transcript_and_a_place_on_the_page() -> None:
    version, harnesses = shipped_harnesses()
    assert {read(path)["harness"] for path in GOLDEN} == set(harnesses)
    page = PAGE.read_text("utf-8")
    assert f"version {version}" in page
    assert all(f"`{name}`" in page for name in harnesses)


def test_without_its_own_marks_no_transcript_is_read_right() -> None:
    _, harnesses = shipped_harnesses()
    for path in GOLDEN:
        case = read(path)
        others = MarkIndex.of(marks for name, marks in harnesses.items() if name != case["harness"])
        assert judged(case, others)[0] != case["human"], path.stem
