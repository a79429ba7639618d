"""`RiskMonitor`: its arithmetic, its saved state, and its error rates if a user stops at any time."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from probes.certificates.monitor import RiskMonitor
from probes.errors import DataError


def ternary(rng, n, mean, discordant=0.12):
    return rng.choice([-1.0, 0.0, 1.0], size=n, p=[(discordant - mean) / 2, 1 - discordant, (discordant + mean) / 2])


def test_a_new_monitor_knows_nothing():
    monitor = RiskMonitor(0.02)
    assert monitor.log_wealth == pytest.approx(0.0)
    assert monitor.p_value == 1.0
    assert not monitor.alarmed
    assert monitor.interval() == (-1.0, 1.0)


def test_wealth_after_each_label_averages_to_what_it_was_when_the_mean_is_the_limit():
    monitor = RiskMonitor(0.25, low=-1, high=1).update([1.0, 0.0, -1.0])
    state = monitor.state()
    up = RiskMonitor.from_state(state).update(1.0)
    down = RiskMonitor.from_state(state).update(0.0)
    mean = 0.25 * np.exp(up.log_wealth) + 0.75 * np.exp(down.log_wealth)
    assert mean == pytest.approx(np.exp(monitor.log_wealth), rel=1e-12)


def test_batches_single_updates_and_a_saved_state_in_json_give_the_same_monitor():
    losses = ternary(np.random.default_rng(0), 300, 0.05)
    whole = RiskMonitor(0.02).update(losses)
    single = RiskMonitor(0.02)
    for value in losses[:170]:
        single.update(value)
    resumed = RiskMonitor.from_state(json.loads(json.dumps(single.state(), allow_nan=False)))
    resumed.update(losses[170:])
    assert resumed.state() == whole.state()
    assert resumed.interval() == whole.interval()


def test_memory_does_not_grow_with_labels():
    few = RiskMonitor(0.02).update(np.zeros(1))
    many = RiskMonitor(0.02).update(np.zeros(3000))
    assert len(few.state()) == len(many.state())
    assert len(few.state()["log_stakes"]) == len(many.state()["log_stakes"])


def test_an_alarm_is_remembered_after_better_labels():
    monitor = RiskMonitor(0.02).update(np.ones(60))
    assert monitor.alarmed
    monitor.update(-np.ones(200))
    assert monitor.alarmed
    assert monitor.log_wealth < 0
    assert monitor.p_value < 0.05


def test_a_policy_at_its_limit_seldom_alarms_although_looked_at_after_every_label():
    rng = np.random.default_rng(1)
    runs, alpha = 250, 0.1
    alarms = sum(RiskMonitor(0.02, alpha).update(ternary(rng, 1500, 0.02)).alarmed for _ in range(runs))
    # 0.1 percent of studies would exceed this at a rate of exactly alpha
    assert alarms <= stats.binom.ppf(0.999, runs, alpha)


def test_a_policy_that_goes_bad_after_a_long_good_time_is_caught():
    rng = np.random.default_rng(2)
    caught = 0
    for _ in range(20):
        monitor = RiskMonitor(0.02).update(ternary(rng, 4000, 0.0))
        assert not monitor.alarmed
        caught += monitor.update(ternary(rng, 2500, 0.10)).alarmed
    assert caught >= 18


def test_the_confidence_sequence_covers_at_all_times_at_once():
    rng = np.random.default_rng(3)
    runs, alpha, missed = 150, 0.1, 0
    for _ in range(runs):
        monitor = RiskMonitor(0.02, alpha)
        covered = True
        for batch in np.split(ternary(rng, 1000, 0.03), 100):
            low, high = monitor.update(batch).interval()
            covered &= low <= 0.03 <= high
        missed += not covered
    assert missed <= stats.binom.ppf(0.999, runs, alpha)


def test_the_confidence_sequence_closes_in_on_the_mean():
    losses = ternary(np.random.default_rng(4), 20_000, 0.03)
    low, high = RiskMonitor(0.02).update(losses).interval()
    assert low < losses.mean() < high
    assert high - low < 0.04


def test_an_uneven_audit_weighted_by_its_probabilities_keeps_the_level_and_an_unweighted_one_does_not():
    rng = np.random.default_rng(5)
    runs, n = 150, 1000
    honest = naive = 0
    for _ in range(runs):
        risky = rng.random(n) < 0.5
        losses = np.where(rng.random(n) < np.where(risky, 0.10, 0.02), 1.0, 0.0)  # mean 0.06
        chance = np.where(risky, 0.8, 0.2)
        audited = rng.random(n) < chance
        monitor = RiskMonitor(0.06, 0.1, low=0, min_inclusion=0.2)
        honest += monitor.update(np.where(audited, losses, 0.0), chance).alarmed
        naive += RiskMonitor(0.06, 0.1, low=0).update(losses[audited]).alarmed
    allowed = stats.binom.ppf(0.999, runs, 0.1)
    assert honest <= allowed < naive


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: RiskMonitor(0.02, 0.0), "delta must lie strictly"),
        (lambda: RiskMonitor(1.0), "low < limit < high"),
        (lambda: RiskMonitor(0.5, low=0.1), "low <= 0 <= high"),
        (lambda: RiskMonitor(0.02, min_inclusion=0.0), "min_inclusion must lie in"),
        (lambda: RiskMonitor(0.02).update([0.0, 1.5]), "entry 1 is 1.5"),
        (lambda: RiskMonitor(0.02).update(np.nan), "entry 0 is nan"),
        (lambda: RiskMonitor(0.02).update(0.0, 0.5), "inclusion must lie in"),
        (lambda: RiskMonitor(0.02).update(np.zeros((2, 2))), "a number or a vector"),
        (lambda: RiskMonitor.from_state({}), "must have schema 1"),
        (
            lambda: RiskMonitor.from_state(RiskMonitor(0.02).state() | {"mean": None}),
            "mean of a monitor state",
        ),
        (lambda: RiskMonitor.from_state(RiskMonitor(0.02).state() | {"log_stakes": [0.0]}), "list of 10"),
        (
            lambda: RiskMonitor.from_state(RiskMonitor(0.02).state() | {"log_stakes": [float("nan")] * 10}),
            "log_stakes of a monitor state",
        ),
    ],
)
def test_unusable_input_is_refused_by_name(call, words):
    with pytest.raises(DataError, match=words):
        call()


def test_a_refused_batch_changes_nothing():
    monitor = RiskMonitor(0.02).update([0.0, 1.0])
    before = monitor.state()
    with pytest.raises(DataError):
        monitor.update([1.0, 2.0])
    assert monitor.state() == before
