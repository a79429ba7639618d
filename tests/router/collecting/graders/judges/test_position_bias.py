"""Asking in both orders removes a judge's preference for the first answer; asking in one order does not."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from router.collecting.graders.naming import grader_named
from router.collecting.values import ModelAnswer
from tests.router.collecting.graders.grading import sample
from tests.router.collecting.graders.judges.judging import data_of, judge_upstream, verdict_json

N = 120
#: How much better the first answer looks to this judge, and how much better an answer of 100 characters more.
FIRST, LONGER = 0.25, 0.1


def quality(text: str) -> float:
    return float(text.split()[0])


def biased(body: Mapping[str, Any]) -> str:
    """Prefer the better answer, but also the first one and the longer one."""
    data = data_of(body)
    first, second = data["ANSWER A"], data["ANSWER B"]
    gap = quality(first) - quality(second) + FIRST + LONGER * (len(first) - len(second)) / 100
    return verdict_json("tie" if abs(gap) < 0.02 else "A" if gap > 0 else "B")


async def mean_scores(spec: str, *, longer: bool = False) -> tuple[float, float]:
    """Return what the judge says of a candidate on average, and what is true."""
    rng = random.Random(7)
    grader = grader_named(spec)
    found, true = [], []
    async with judge_upstream(biased) as asking:
        for _ in range(N):
            mine, other = rng.random(), rng.random()
            text = f"{mine:.3f}" + " word" * (40 if longer else 0)
            asking.answers = {"strong": f"{other:.3f} x"}
            found.append((await grader.grade(sample(), ModelAnswer("cheap", text), asking)).score)
            true.append(float(mine > other))
    assert None not in found
    return float(np.mean(np.array(found, dtype=float))), float(np.mean(true))


async def test_both_orders_remove_the_preference_for_the_first_answer() -> None:
    found, true = await mean_scores("judge:model=j,reference=strong")
    assert found == pytest.approx(true, abs=0.05)


async def test_one_order_keeps_the_preference_for_the_first_answer() -> None:
    found, true = await mean_scores("judge:model=j,reference=strong,both_orders=false")
    assert found > true + 0.15


async def test_the_preference_for_longer_answers_stays_and_is_written_down() -> None:
    """No order helps here, which is why `elle label` measures what is left."""
    even, _ = await mean_scores("judge:model=j,reference=strong")
    longer, _ = await mean_scores("judge:model=j,reference=strong", longer=True)
    assert longer > even + 0.05
    async with judge_upstream(biased) as asking:
        asking.answers = {"strong": "0.5"}
        grader = grader_named("judge:model=j,reference=strong")
        verdict = await grader.grade(sample(), ModelAnswer("cheap", "0.5" + " word" * 200), asking)
    assert verdict.detail == {"compared_with": "strong", "longer": True, "first": "A", "second": "A"}
