from __future__ import annotations

import math

import pytest

from router.collecting.graders.naming import grader_named
from router.collecting.values import ModelAnswer
from tests.router.collecting.graders.grading import NobodyToAsk, sample


async def score(loss: float | None) -> float | None:
    verdict = await grader_named("logprob").grade(sample(), ModelAnswer("m", "x", mean_token_loss=loss), NobodyToAsk())
    assert bool(verdict.reason) == (verdict.score is None)
    return verdict.score


async def test_the_score_is_the_geometric_mean_of_the_tokens_probabilities() -> None:
    assert await score(-(math.log(0.5) + math.log(0.125)) / 2) == pytest.approx(0.25)
    assert await score(0.0) == 1
    assert await score(1e9) == 0
    assert grader_named("logprob").needs_token_loss


@pytest.mark.parametrize("loss", [None, math.nan, math.inf, -0.1])
async def test_without_log_probabilities_there_is_no_score(loss: float | None) -> None:
    assert await score(loss) is None
