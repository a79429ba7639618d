"""Labels are fed to monitors of the certified loss and of each candidate's risks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from router.drift.label_watch import LabelWatch
from router.errors import ConfigError
from tests.router.drift.decisions import decision


def label(watch: LabelWatch, rng: np.random.Generator, n: int, *, small: float, large: float) -> None:
    """Feed n labels of both candidates, which fail with these chances; the risks say .3 and .1."""
    for _ in range(n):
        losses = {"small": float(rng.random() < small), "large": float(rng.random() < large)}
        watch.add(decision(risks=(0.3, 0.1)), losses)


def test_a_policy_that_is_as_certified_raises_no_alarm() -> None:
    watch = LabelWatch("large", max_loss=0.25)
    label(watch, np.random.default_rng(0), 1_000, small=0.3, large=0.1)
    assert watch.problems == []


def test_a_loss_beyond_the_certified_one_and_risks_that_are_too_low_are_told_in_words() -> None:
    watch = LabelWatch("large", max_loss=0.02)
    label(watch, np.random.default_rng(1), 2_000, small=0.5, large=0.1)
    assert len(watch.problems) == 2
    assert watch.problems[0].startswith("the mean loss against large exceeds the certified 0.02")
    assert watch.problems[1].startswith("candidate small fails more often than its risk says: 0.")


def test_a_candidate_that_became_better_is_told_too() -> None:
    watch = LabelWatch("large", max_loss=None)
    label(watch, np.random.default_rng(2), 1_000, small=0.05, large=0.1)
    (problem,) = watch.problems
    assert problem.startswith("candidate small fails less often than its risk says")


def test_a_request_that_went_to_the_reference_has_lost_nothing_and_one_grade_alone_is_no_drop() -> None:
    watch = LabelWatch("large", max_loss=0.02)
    watch.add(decision(chosen="large"), {})
    watch.add(decision(chosen="small"), {"small": 1.0})
    assert watch.loss is not None
    assert watch.loss.n == 1


@pytest.mark.parametrize(("losses", "inclusion"), [({"small": 1.5}, 1.0), ({"small": 1.0}, 0.05), ({"small": 1.0}, 2)])
def test_labels_outside_their_range_are_refused_and_nothing_is_taken(
    losses: dict[str, float], inclusion: float
) -> None:
    watch = LabelWatch("large", max_loss=0.02, min_inclusion=0.1)
    with pytest.raises(ConfigError):
        watch.add(decision(), losses, inclusion)
    assert not watch.calibration


def test_a_watch_survives_a_restart() -> None:
    rng = np.random.default_rng(3)
    watch = LabelWatch("large", max_loss=0.02)
    label(watch, rng, 50, small=0.5, large=0.1)
    again = LabelWatch.from_json(json.loads(json.dumps(watch.to_json())))
    for one in (watch, again):
        label(one, np.random.default_rng(4), 50, small=0.5, large=0.1)
    assert json.dumps(again.to_json()) == json.dumps(watch.to_json())
    with pytest.raises(ConfigError):
        LabelWatch.from_json({"reference": "large"})
