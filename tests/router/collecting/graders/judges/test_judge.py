from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.judges.judge_grader import ATTEMPTS
from router.collecting.graders.naming import grader_named
from router.collecting.values import ModelAnswer
from tests.router.collecting.graders.grading import sample
from tests.router.collecting.graders.judges.judging import data_of, judge_upstream, verdict_json

PAIRWISE = grader_named("judge:model=j,reference=strong")


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [("A", "B", 1.0), ("B", "A", 0.0), ("tie", "tie", 0.5), ("A", "A", 0.5), ("B", "B", 0.5), ("A", "tie", 0.5)],
)
async def test_the_score_is_what_both_orders_agree_on_and_else_a_tie(first: str, second: str, score: float) -> None:
    def reply(body: Mapping[str, Any]) -> str:
        return verdict_json(first if data_of(body)["ANSWER A"] == "mine" else second)

    async with judge_upstream(reply) as asking:
        asking.answers = {"strong": "theirs"}
        verdict = await PAIRWISE.grade(sample(), ModelAnswer("cheap", "mine"), asking)
    assert verdict.score == score
    assert [data_of(body)["ANSWER A"] for body in asking.bodies] == ["mine", "theirs"]
    assert verdict.detail["first"] == first
    assert verdict.detail["second"] == {"A": "B", "B": "A", "tie": "tie"}[second]


async def test_the_judge_sees_request_and_answers_and_no_name_of_a_model() -> None:
    async with judge_upstream(lambda _: verdict_json("tie")) as asking:
        asking.answers = {"strong": "theirs"}
        await PAIRWISE.grade(sample(), ModelAnswer("cheap", "mine"), asking)
    body = asking.bodies[0]
    assert data_of(body) == {"REQUEST": "What is 6 times 7?", "ANSWER A": "mine", "ANSWER B": "theirs"}
    assert "cheap" not in json.dumps(body)
    assert "strong" not in json.dumps(body["messages"])
    assert (body["temperature"], body["max_tokens"]) == (0.0, 1024)
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["properties"]["verdict"]["enum"] == ["A", "tie", "B"]


async def test_a_provider_may_get_neither_temperature_nor_response_format() -> None:
    grader = grader_named("judge:model=j,rubric=be kind,structured=false,temperature=none,max_tokens=99")
    async with judge_upstream(lambda _: verdict_json(4)) as asking:
        verdict = await grader.grade(sample(), ModelAnswer("cheap", "mine"), asking)
    assert (verdict.score, verdict.detail) == (0.75, {"grade": 4})
    assert set(asking.bodies[0]) == {"model", "messages", "max_tokens"}
    assert data_of(asking.bodies[0]) == {"RUBRIC": "be kind", "REQUEST": "What is 6 times 7?", "ANSWER": "mine"}


async def test_equal_answers_and_the_reference_model_itself_cost_no_call() -> None:
    async with judge_upstream(lambda _: verdict_json("A")) as asking:
        asking.answers = {"strong": " same\n"}
        assert (await PAIRWISE.grade(sample(), ModelAnswer("cheap", "same"), asking)).score == 0.5
        assert (await PAIRWISE.grade(sample(), ModelAnswer("strong", "other"), asking)).score == 0.5
    assert asking.bodies == []


async def test_a_judge_that_makes_sense_in_the_end_is_heard_and_each_attempt_is_another_question() -> None:
    replies = iter(["I like A.", "", verdict_json("A"), verdict_json("B")])
    async with judge_upstream(lambda _: next(replies)) as asking:
        asking.answers = {"strong": "theirs"}
        verdict = await PAIRWISE.grade(sample(), ModelAnswer("cheap", "mine"), asking)
    assert verdict.score == 1
    assert [len(body["messages"]) for body in asking.bodies] == [2, 4, 6, 2]
    assert len({json.dumps(body) for body in asking.bodies}) == 4


@pytest.mark.parametrize(
    "nonsense", ["", "A", "x" * 50_000, "\0", '{"verdict": "C"}', "[" * 9_000, '{"verdict": null}', "\ud83d"]
)
async def test_a_judge_that_answers_nonsense_gives_no_score_after_a_few_attempts(nonsense: str) -> None:
    async with judge_upstream(lambda _: nonsense) as asking:
        asking.answers = {"strong": "theirs"}
        verdict = await PAIRWISE.grade(sample(), ModelAnswer("cheap", "mine"), asking)
    assert verdict.score is None
    assert "3 times" in verdict.reason
    assert len(asking.bodies) == ATTEMPTS
    assert all(len(json.dumps(body)) < 20_000 for body in asking.bodies)


async def test_an_error_of_the_context_passes_so_that_the_verdict_stays_open() -> None:
    async with judge_upstream(lambda _: verdict_json("A")) as asking:
        with pytest.raises(KeyError):
            await PAIRWISE.grade(sample(), ModelAnswer("cheap", "mine"), asking)


def test_the_plan_counts_each_order_and_says_which_calls_are_repeats() -> None:
    calls = PAIRWISE.calls(sample(), answer_tokens=500)
    assert [call.is_repeat for call in calls] == [False, True, True] * 2
    assert {call.model for call in calls} == {"j"}
    assert all(1_000 < call.input_tokens < 10_000 and call.output_tokens == 1024 for call in calls)
    assert len(grader_named("judge:model=j,rubric=x").calls(sample(), 500)) == 3
    assert len(grader_named("judge:model=j,reference=s,both_orders=false").calls(sample(), 500)) == 3
    assert PAIRWISE.models == ("j",)
    assert PAIRWISE.answers_of == ("strong",)


async def test_the_plan_is_an_upper_estimate_of_what_is_sent() -> None:
    long = "word " * 2_000
    async with judge_upstream(lambda _: "nonsense " * 500) as asking:
        asking.answers = {"strong": "other " * 2_000}
        await PAIRWISE.grade(sample(), ModelAnswer("cheap", long), asking)
    planned = PAIRWISE.calls(sample(), answer_tokens=3_000)
    for body, call in zip(asking.bodies, planned, strict=False):
        characters = sum(len(message["content"]) for message in body["messages"])
        assert characters / 4 <= call.input_tokens


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("judge", "judge:model=NAME"),
        ("judge:model=j", "either whom to compare with"),
        ("judge:model=j,reference=s,rubric=x", "either whom to compare with"),
        ("judge:model=j,rubric=@nowhere.txt", "cannot be read"),
        ("judge:model=j,reference=s,max_tokens=0", "max_tokens"),
        ("agreement:model=j", "whom to agree with"),
        ("reference", "reference:model=NAME"),
        ("reference:modle=x", "Did you mean model"),
    ],
)
def test_a_judge_without_what_it_needs_is_refused_before_anything_is_spent(spec: str, said: str) -> None:
    with pytest.raises(GraderError) as caught:
        grader_named(spec)
    assert said in str(caught.value)


def test_the_version_follows_prompt_judge_and_the_text_of_the_rubric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rubric.txt").write_text("be kind")
    specs = ["judge:model=j,reference=s", "judge:model=k,reference=s", "agreement:model=j,reference=s"]
    versions = [grader_named(spec).version for spec in [*specs, "judge:model=j,rubric=be kind"]]
    assert len(set(versions)) == 4
    assert grader_named(f"judge:model=j,rubric=@{tmp_path / 'rubric.txt'}").version == versions[3]
    monkeypatch.setattr("router.collecting.graders.judges.judge.prompt_text", lambda name: f"another {name}")
    assert grader_named(specs[0]).version != versions[0]
