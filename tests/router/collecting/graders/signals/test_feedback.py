from __future__ import annotations

import pytest

from router.collecting.graders.base import GraderError
from router.collecting.graders.naming import grader_named
from router.collecting.values import Feedback
from tests.router.collecting.graders.grading import verdict


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (Feedback("thumb", 1), 1.0),
        (Feedback("thumb", 0), 0.0),
        (Feedback("rating", 0.75), 0.75),
        (Feedback("retries", 0), 1.0),
        (Feedback("retries", 3), 0.0),
        (Feedback("rating", 4), None),
        (Feedback("rating", float("nan")), None),
    ],
)
async def test_what_people_did_becomes_a_score(given: Feedback, score: float | None) -> None:
    found = await verdict("feedback", "hi", answers={"cheap": "hi"}, feedback={"cheap": given})
    assert found.score == score
    assert found.detail == {"kind": given.kind}


async def test_feedback_is_about_the_answer_that_people_saw() -> None:
    thumb = {"cheap": Feedback("thumb", 1)}
    assert (await verdict("feedback", "new answer", answers={"cheap": "hi"}, feedback=thumb)).score is None
    assert (await verdict("feedback", "hi", answers={"cheap": "hi"})).score is None
    assert (await verdict("feedback", "hi", feedback=thumb)).score is None
    assert (await verdict("feedback:kinds=rating", "hi", answers={"cheap": "hi"}, feedback=thumb)).score is None


def test_an_unknown_kind_is_refused() -> None:
    assert grader_named("feedback").needs == {"feedback"}
    with pytest.raises(GraderError, match="among thumb, rating, retries"):
        grader_named("feedback:kinds=thumb+stars")
