"""A canary that loses too much is rolled back, one that keeps its limit is not, and a session never changes sides."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from router.errors import ConfigError
from router.rollout.assignment import is_in_canary
from router.rollout.canary import Canary, CanaryEvent, CanaryPlan, CanaryStatus
from router.rollout.evidence import LATENCY_SAMPLE, CanaryEvidence

KEYS = [f"session {i}" for i in range(4_000)]


def plan(**changes: Any) -> CanaryPlan:
    return CanaryPlan(**({"canary_id": "c1", "policy": "new", "base": "old", "max_loss": 0.02} | changes))


def drops(rng: np.random.Generator, mean: float, n: int) -> list[float]:
    """Return n losses against the reference, each -1, 0 or 1, with this mean. Both models fail alone now and then."""
    return rng.choice([1.0, -1.0, 0.0], size=n, p=[0.12 + mean, 0.12, 0.76 - mean]).tolist()


def rolled_back_after(mean: float, seed: int, n: int) -> int | None:
    """Return after how many labels a canary with this mean loss is rolled back; None if it is not within n labels."""
    evidence = CanaryEvidence(0.02)
    for i, loss in enumerate(drops(np.random.default_rng(seed), mean, n)):
        evidence.label(loss)
        if evidence.against:
            return i + 1
    return None


@pytest.mark.slow
def test_eight_points_beyond_the_limit_are_found_within_2000_labels_in_95_of_100_runs() -> None:
    assert sum(rolled_back_after(0.10, seed, 2_000) is not None for seed in range(100)) >= 95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_canary_at_its_limit_is_rolled_back_in_at_most_5_of_100_runs_however_long_it_runs() -> None:
    assert sum(rolled_back_after(0.02, 1_000 + seed, 20_000) is not None for seed in range(100)) <= 5


def test_a_few_runs_of_both_go_as_they_should() -> None:
    assert all(rolled_back_after(0.10, seed, 2_000) is not None for seed in range(10))
    assert all(rolled_back_after(0.02, 1_000 + seed, 500) is None for seed in range(10))


def test_the_share_is_drawn_evenly_sticky_and_anew_for_each_canary() -> None:
    small = {key for key in KEYS if is_in_canary("c1", key, 0.05)}
    wide = {key for key in KEYS if is_in_canary("c1", key, 0.25)}
    other = {key for key in KEYS if is_in_canary("c2", key, 0.05)}
    assert small < wide
    assert len(small) / len(KEYS) == pytest.approx(0.05, abs=0.015)
    assert len(small & other) < len(small) / 2
    assert all(is_in_canary("c1", key, 1.0) for key in KEYS)
    assert not any(is_in_canary("c1", key, 0.0) for key in KEYS)


def test_a_good_canary_is_widened_step_by_step_and_promoted_and_every_step_is_told() -> None:
    told: list[CanaryEvent] = []
    canary = Canary(plan(), on_change=told.append, clock=lambda: 7.0)
    rng = np.random.default_rng(0)
    for loss in drops(rng, -0.05, 5_000):
        if canary.is_over:
            break
        canary.label(loss)
    assert canary.status is CanaryStatus.PROMOTED
    assert [event.share for event in told if event.status is CanaryStatus.RUNNING] == [0.25, 0.5, 1.0]
    assert told[-1].status is CanaryStatus.PROMOTED
    assert {event.at for event in told} == {7.0}
    assert "labels show that the mean loss is less than 0.04" in told[-1].why
    assert all(canary.policy_for(key) == "new" for key in KEYS[:50])
    canary.stop("people complain")
    assert all(canary.policy_for(key) == "old" for key in KEYS[:50])
    assert told[-1].status is CanaryStatus.STOPPED


def test_a_bad_canary_decides_nothing_any_more() -> None:
    told: list[CanaryEvent] = []
    canary = Canary(plan(), on_change=told.append)
    in_canary = next(key for key in KEYS if canary.policy_for(key) == "new")
    for loss in drops(np.random.default_rng(0), 0.2, 2_000):
        canary.label(loss)
    assert canary.status is CanaryStatus.ROLLED_BACK
    assert canary.policy_for(in_canary) == "old"
    assert told[-1].why.startswith("the mean loss exceeds 0.02: after ")
    assert "with a chance of at most 0.0" in told[-1].why
    n = len(told)
    canary.label(0.0)
    canary.stop("nobody needs it")
    assert len(told) == n


def test_it_pauses_while_the_evidence_is_inconclusive_and_goes_on_when_it_is_not() -> None:
    told: list[CanaryEvent] = []
    canary = Canary(plan(labels_per_step=20), on_change=told.append)
    for loss in drops(np.random.default_rng(1), 0.0, 20):
        canary.label(loss)
    assert canary.status is CanaryStatus.PAUSED
    assert "inconclusive after 20 labels" in told[-1].why
    assert canary.share == 0.05
    for loss in drops(np.random.default_rng(2), -0.1, 400):
        canary.label(loss)
    assert canary.share > 0.05


def test_labels_that_lose_take_back_what_earlier_ones_have_shown() -> None:
    told: list[CanaryEvent] = []
    canary = Canary(plan(labels_per_step=20), on_change=told.append)
    rng = np.random.default_rng(4)
    while canary.share == 0.05:
        canary.label(drops(rng, -0.1, 1)[0])
    for loss in drops(rng, 0.4, 400):
        canary.label(loss)
    assert canary.share in (0.25, 0.0)
    assert [event.share for event in told if event.status is CanaryStatus.RUNNING] == [0.25]
    assert told[-1].status is CanaryStatus.ROLLED_BACK


def test_it_pauses_when_labels_stop_and_runs_when_they_come_again() -> None:
    canary = Canary(plan())
    canary.pause("no label for a day")
    assert canary.status is CanaryStatus.PAUSED
    canary.label(0.0)
    assert canary.status is CanaryStatus.RUNNING


def test_errors_and_slow_answers_roll_it_back_without_any_label() -> None:
    failing, slow = Canary(plan()), Canary(plan())
    for i in range(300):
        failing.ended("new", failed=i % 5 == 0, latency_s=1.0)
    assert failing.evidence.against == "more than 2.0% of the requests ended without an answer"
    for i in range(LATENCY_SAMPLE):
        slow.ended("old", failed=False, latency_s=i / LATENCY_SAMPLE)
    for _ in range(100):
        slow.ended("new", failed=False, latency_s=2.0)
    assert slow.status is CanaryStatus.ROLLED_BACK
    assert slow.evidence.against == "more than 10% of the answers took longer than 0.95 s"


def test_as_many_errors_and_slow_answers_as_usual_do_not() -> None:
    canary, rng = Canary(plan()), np.random.default_rng(0)
    for _ in range(1_500):
        canary.ended("old", failed=False, latency_s=float(rng.exponential()))
        canary.ended("new", failed=bool(rng.random() < 0.01), latency_s=float(rng.exponential()))
    assert canary.status is CanaryStatus.RUNNING


def test_a_canary_survives_a_restart() -> None:
    canary = Canary(plan(labels_per_step=50))
    for loss in drops(np.random.default_rng(3), -0.1, 300):
        canary.label(loss)
    again = Canary.from_json(json.loads(json.dumps(canary.to_json())))
    assert again.to_json() == canary.to_json()
    assert (again.share, again.status) == (canary.share, canary.status)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": ()},
        {"steps": (0.5, 0.5)},
        {"steps": (0.0, 1.0)},
        {"steps": (0.5, 1.5)},
        {"steps": (0.00001, 1.0)},
        {"policy": ""},
        {"base": 5},
        {"labels_per_step": 0},
        {"policy": "old"},
    ],
)
def test_a_plan_that_leads_nowhere_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        plan(**changes)


@pytest.mark.parametrize("broken", [{}, {"plan": {}}, {"plan": 3}, {"plan": {"steps": 4}}])
def test_a_state_that_is_none_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Canary.from_json(broken)


@pytest.mark.parametrize("settings", [{"max_loss": 1.0}, {"max_loss": 0.02, "slack": 0.0}, {"max_loss": 0.99}])
def test_limits_that_no_loss_can_meet_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CanaryEvidence(**settings)


def test_a_loss_outside_its_range_is_refused_and_nothing_is_taken() -> None:
    evidence = CanaryEvidence(0.02)
    with pytest.raises(ConfigError):
        evidence.label(1.5)
    assert evidence.n_labels == 0


def test_an_infinite_number_in_a_state_is_refused() -> None:
    plain = Canary(CanaryPlan("c", "new", "old", 0.02)).to_json() | {"step": float("inf")}
    with pytest.raises(ConfigError, match="no state of a canary"):
        Canary.from_json(plain)


@pytest.mark.parametrize(("steps", "said"), [((0.5, 0.1), "got 0.5, 0.1."), ((), "got none.")])
def test_steps_that_do_not_rise_are_told_as_a_person_writes_them(steps: tuple[float, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(steps=steps)
    assert str(caught.value).endswith(said)
