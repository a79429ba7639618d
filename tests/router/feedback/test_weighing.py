"""Of feedback that disagrees, the newest of each source and the highest authority count; equals dispute."""

from __future__ import annotations

import itertools

import pytest

from router.feedback.weighing import weighed
from router.ledger.reader import LoggedFeedback

_clock = itertools.count(1)


def said(kind: str, value: float, *, authority: str = "user", source: str = "", name: str = "") -> LoggedFeedback:
    at = float(next(_clock))
    return LoggedFeedback(f"{at}", "d", at, kind, value, name, authority, source, caller=None, verified=True)


@pytest.mark.parametrize(
    ("pieces", "values"),
    [
        ([said("thumb", 1), said("thumb", 0)], [0.0]),  # the same user changed the thumb
        ([said("thumb", 1, source="a"), said("thumb", 0, source="b")], [None]),
        ([said("thumb", 1, source="a"), said("thumb", 0, source="b"), said("thumb", 1, source="b")], [1.0]),
        ([said("verdict", 0), said("verdict", 1, authority="reviewer")], [1.0]),
        ([said("verdict", 1, authority="reviewer"), said("verdict", 0, authority="judge")], [1.0]),
        ([said("score", 0.4, source="a"), said("score", 0.8, source="b")], [pytest.approx(0.6)]),
        ([said("score", 0.2, source="a"), said("score", 0.8, source="b")], [None]),
        ([said("score", 0.2, name="tone"), said("score", 0.8, name="facts")], [0.8, 0.2]),
        ([said("check", 0), said("thumb", 1), said("retry", 0)], [0.0, 0.0, 1.0]),
        ([], []),
    ],
)
def test_which_feedback_counts(pieces: list[LoggedFeedback], values: list[float | None]) -> None:
    for order in (pieces, pieces[::-1]):  # what counts does not depend on the order in which rows are read
        assert [one.value for one in weighed(order)] == values
