from __future__ import annotations

import pytest

from router.collecting.graders.judges.question import cut, transcript
from router.collecting.graders.naming import grader_named
from router.collecting.values import ModelAnswer
from tests.router.collecting.graders.grading import sample
from tests.router.collecting.graders.judges.judging import data_of, judge_upstream, verdict_json


@pytest.mark.parametrize(("said", "score"), [("correct", 1.0), ("incorrect", 0.0), ("partly", None)])
async def test_the_judge_compares_with_the_reference_answer(said: str, score: float | None) -> None:
    async with judge_upstream(lambda _: verdict_json(said)) as asking:
        grader = grader_named("reference:model=j")
        verdict = await grader.grade(sample(reference="42"), ModelAnswer("cheap", "6 * 7 = 42"), asking)
    assert verdict.score == score
    assert data_of(asking.bodies[0]) == {
        "REQUEST": "What is 6 times 7?",
        "REFERENCE ANSWER": "42",
        "ANSWER": "6 * 7 = 42",
    }


async def test_without_a_reference_answer_nobody_is_asked() -> None:
    async with judge_upstream(lambda _: verdict_json("correct")) as asking:
        verdict = await grader_named("reference:model=j").grade(sample(), ModelAnswer("cheap", "42"), asking)
    assert (verdict.score, asking.bodies) == (None, [])
    assert grader_named("reference:model=j").needs == {"reference"}


@pytest.mark.parametrize(("said", "score"), [("same", 1.0), ("different", 0.0)])
async def test_agreement_compares_the_meaning_with_the_strong_models_answer(said: str, score: float) -> None:
    async with judge_upstream(lambda _: verdict_json(said)) as asking:
        asking.answers = {"strong": "forty-two"}
        grader = grader_named("agreement:model=j,reference=strong")
        verdict = await grader.grade(sample(), ModelAnswer("cheap", "42"), asking)
        assert (await grader.grade(sample(), ModelAnswer("cheap", "forty-two "), asking)).score == 1
        assert (await grader.grade(sample(), ModelAnswer("strong", "else"), asking)).score == 1
    assert (verdict.score, verdict.detail) == (score, {"compared_with": "strong"})
    assert len(asking.bodies) == 1
    assert grader.answers_of == ("strong",)
    assert len(grader.calls(sample(), 100)) == 3


def test_a_chat_is_shown_with_its_speakers_and_with_what_a_judge_cannot_see() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    chat = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
        {"role": "tool", "content": "a cat", "tool_call_id": "1"},
        {"role": "user", "content": "So?"},
    ]
    assert transcript(chat) == (
        "[system]\nBe short.\n\n[user]\nWhat is this?\n[image_url, which you cannot see]\n\n[assistant]\n"
        "\n[calls a tool]\n\n[tool]\na cat\n\n[user]\nSo?"
    )
    assert transcript(chat[:1]) == "Be short."


def test_of_a_long_text_the_beginning_and_the_end_stay() -> None:
    assert cut("a" * 60 + "b" * 60, 100) == "a" * 50 + "\n[... 20 characters are left out here ...]\n" + "b" * 50
    assert cut("ab", 2) == "ab"
