"""The guarantee itself: over 500 calibration draws with known truth, violations stay within delta.

Truth is exact in both worlds. Synthetic: a closed form. Real: prompts that the probe was not fitted on are
declared the population, calibration sets are drawn from them with replacement, and the true drop of a
policy is its mean over the population. Given a population each draw violates with probability at most
delta, and draws are independent; so the number of violations is at most binomial, and the tests allow
its 99.9 % quantile, 41 of 500 at delta = .05. The uncertified rule (the largest threshold whose
calibration drop is within the limit) must break the same allowance.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.routing_outcomes import policy_drops, synthetic_outcomes, synthetic_truth
from probes.certificates.bounds import MeanBound
from probes.certificates.fixed_sequence import Certificate, certify_groups, certify_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

DRAWS = 500
DELTA = 0.05
ALLOWED = int(stats.binom.ppf(0.999, DRAWS, DELTA))
LIMITS = (0.01, 0.02, 0.05)
BOUNDS = (MeanBound("ternary"), MeanBound("betting"))
SYNTHETIC_SIZE = 2000


def real_draws(populations):
    """Yield (gain, drop, thresholds, truth by threshold) of 500 calibration sets."""
    for seed, population in enumerate(populations):
        rng = np.random.default_rng(seed)
        thresholds = population.thresholds[::2]
        truth = policy_drops(population.gain, population.drop, thresholds).mean(axis=1)
        for _ in range(DRAWS // len(populations)):
            pick = rng.integers(0, len(population.gain), size=len(population.gain))
            yield population.gain[pick], population.drop[pick], thresholds, truth


def synthetic_draws():
    """Yield the same of 500 synthetic calibration sets."""
    rng = np.random.default_rng(1)
    for _ in range(DRAWS):
        population = synthetic_outcomes(SYNTHETIC_SIZE, rng)
        thresholds = population.thresholds[::2]
        yield population.gain, population.drop, thresholds, synthetic_truth(thresholds)


def violations(draws, limit, bound):
    """Return how many certified policies are worse than the limit, and the mean certified weak share."""
    wrong, shares = 0, []
    for gain, drop, thresholds, truth in draws:
        answer = certify_path(policy_drops(gain, drop, thresholds), limit, DELTA, bound)
        if isinstance(answer, Certificate):
            wrong += bool(truth[answer.index] > limit)
            shares.append(float((gain < thresholds[answer.index]).mean()))
        else:
            shares.append(0.0)
    assert len(shares) == DRAWS
    return wrong, float(np.mean(shares))


def uncertified_violations(draws, limit):
    """Return how often the largest threshold that looks good enough is not."""
    wrong = 0
    for gain, drop, thresholds, truth in draws:
        passed = policy_drops(gain, drop, thresholds).mean(axis=1) <= limit
        wrong += bool(passed.any() and truth[np.flatnonzero(passed).max()] > limit)
    return wrong


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.method)
@pytest.mark.parametrize("limit", LIMITS)
def test_certificates_on_real_outcomes_are_wrong_no_more_often_than_delta(routing_outcomes, limit, bound):
    wrong, share = violations(real_draws(routing_outcomes), limit, bound)
    assert wrong <= ALLOWED
    assert share > 0.05


@pytest.mark.parametrize("limit", LIMITS)
def test_the_uncertified_rule_fails_on_real_outcomes(routing_outcomes, limit):
    assert uncertified_violations(real_draws(routing_outcomes), limit) > ALLOWED


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.method)
@pytest.mark.parametrize("limit", LIMITS)
def test_certificates_on_synthetic_outcomes_are_wrong_no_more_often_than_delta(limit, bound):
    wrong, share = violations(synthetic_draws(), limit, bound)
    assert wrong <= ALLOWED
    assert share > 0.05


@pytest.mark.parametrize("limit", LIMITS)
def test_the_uncertified_rule_fails_on_synthetic_outcomes(limit):
    assert uncertified_violations(synthetic_draws(), limit) > ALLOWED


def test_simultaneous_group_certificates_are_all_right_together():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(DRAWS):
        population = synthetic_outcomes(1800, rng)
        group = rng.integers(0, 3, size=1800)
        thresholds = population.thresholds[::4]
        losses = policy_drops(population.gain, population.drop, thresholds)
        answers = certify_groups(losses, group.tolist(), 0.05, DELTA, simultaneous=True)
        truth = synthetic_truth(thresholds)
        wrong += any(truth[a.index] > 0.05 for a in answers.values() if hasattr(a, "index"))
    assert wrong <= ALLOWED
