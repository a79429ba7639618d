"""The history of counts: growth over a time, quantiles, and a bound on its memory."""

from __future__ import annotations

import pytest

from router.observing import catalogue
from router.observing.history import MOST_SAMPLES, SAMPLE_S, Growth, History
from router.observing.tally import Tally


class Clocked:
    """A history whose time and counts the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tally = Tally()
        self.history = History(self.tally.snapshot, lambda: self.now)

    def run(self, steps: int, per_step: float = 1.0) -> None:
        for _ in range(steps):
            self.now += SAMPLE_S
            self.tally.count(catalogue.DECISIONS, ("p", "v", "small", "FIXED"), per_step)
            self.history.take()

    def grown(self, seconds: float | None) -> float:
        return Growth(self.history.line(seconds)[0], self.history.now()[0]).total(catalogue.DECISIONS)


def test_growth_is_of_the_time_that_was_asked_for() -> None:
    clocked = Clocked()
    clocked.run(10)
    clocked.run(4, per_step=5.0)
    assert clocked.grown(4 * SAMPLE_S) == 20
    assert clocked.grown(5 * SAMPLE_S) == 21
    assert clocked.grown(3600) == clocked.grown(None) == 30


def test_after_days_an_hour_is_still_an_hour_and_nothing_grows() -> None:
    clocked = Clocked()
    clocked.run(12_000)
    an_hour = 3600 / SAMPLE_S
    assert an_hour <= clocked.grown(3600) <= an_hour + 20
    a_day = 86_400 / SAMPLE_S
    assert a_day - 20 <= clocked.grown(86_400) <= a_day + 20
    assert clocked.grown(None) == 12_000
    assert len(clocked.history.line(None)) <= MOST_SAMPLES + 300


def test_versions_are_added_up_and_one_that_is_forgotten_makes_no_negative_growth() -> None:
    clocked = Clocked()
    clocked.tally.count(catalogue.DECISIONS, ("p", "old", "small", "FIXED"), 10)
    clocked.history.take()
    clocked.tally._counts.drop(("p", "old"))
    clocked.tally.count(catalogue.DECISIONS, ("p", "new", "small", "FIXED"), 4)
    clocked.now += SAMPLE_S
    grown = Growth(clocked.history.line(SAMPLE_S)[-1], clocked.history.now()[0])
    assert grown.total(catalogue.DECISIONS) == 0
    assert grown.by(catalogue.DECISIONS, "candidate") == {}


def test_growth_by_a_label() -> None:
    clocked = Clocked()
    for candidate, reason, count in (("small", "FIXED", 2), ("small", "PINNED", 3), ("large", "PINNED", 4)):
        clocked.tally.count(catalogue.DECISIONS, ("p", "v", candidate, reason), count)
    grown = Growth(clocked.history.began, clocked.history.now()[0])
    assert grown.by(catalogue.DECISIONS, "candidate") == {"small": 5, "large": 4}
    assert grown.by(catalogue.DECISIONS, "reason") == {"FIXED": 2, "PINNED": 7}
    assert grown.total(catalogue.DECISIONS, candidate="small", reason="PINNED") == 3


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([], 0.5, None), ([0.0003] * 4, 0.5, 0.000375), ([9.0], 0.9, 2.5)]
)
def test_quantiles_are_those_of_prometheus(values: list[float], share: float, expected: float | None) -> None:
    clocked = Clocked()
    for value in values:
        clocked.tally.observe(catalogue.DECISION_SECONDS, ("total",), value)
    grown = Growth(clocked.history.began, clocked.history.now()[0])
    found = grown.quantile(catalogue.DECISION_SECONDS, ("total",), share)
    assert found == (None if expected is None else pytest.approx(expected))
