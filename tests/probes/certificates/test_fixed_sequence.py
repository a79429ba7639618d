"""Certificates along a path: what is certified or refused, and the figures of both; label counts; learning curves."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.routing_outcomes import policy_drops
from probes.certificates.bounds import MeanBound, excludes, upper_bound
from probes.certificates.fixed_sequence import Certificate, NotCertified, certify_groups, certify_path
from probes.certificates.label_planning import fit_learning_curve, labels_needed
from probes.errors import DataError

SHARES = np.arange(1, 200) / 200
TERNARY, BETTING = MeanBound("ternary"), MeanBound("betting")
BINOMIAL = MeanBound("binomial", 0.0, 1.0)
every_bound = pytest.mark.parametrize("bound", [TERNARY, BETTING], ids=lambda bound: bound.method)


def true_drop(share):
    return 0.01 * share + 0.125 * share**2


def outcomes(n, seed):
    """Gains uniform on [0, 1]; P(drop = 1) = .05 + .25 gain, P(drop = -1) = .04: the drop is `true_drop`."""
    rng = np.random.default_rng(seed)
    gain, draw = rng.random(n), rng.random(n)
    return gain, np.where(draw < 0.04, -1.0, np.where(draw < 0.09 + 0.25 * gain, 1.0, 0.0))


def test_the_certified_threshold_saves_most_of_what_perfect_knowledge_would():
    answer = certify_path(policy_drops(*outcomes(4200, 0), SHARES), 0.02)
    assert isinstance(answer, Certificate)
    assert true_drop(SHARES[answer.index]) <= 0.02
    assert SHARES[answer.index] > 0.28  # 0.36 with the truth known
    assert answer.estimate <= answer.upper_bound <= 0.02


def test_the_walk_stops_at_the_first_policy_that_fails_even_if_later_ones_pass():
    good, bad = np.zeros(500), np.ones(500)
    answer = certify_path([good, good, bad, good], 0.05)
    assert isinstance(answer, Certificate)
    assert answer.index == 1


def test_a_path_that_passes_everywhere_is_certified_to_its_end_across_blocks():
    answer = certify_path(np.zeros((700, 4000)), 0.05)
    assert isinstance(answer, Certificate)
    assert answer.index == 699
    late = np.zeros((700, 4000))
    late[600] = 1
    assert certify_path(late, 0.05).index == 599


@every_bound
def test_more_room_more_doubt_and_more_labels_never_certify_less(bound):
    gain, drop = outcomes(3000, 1)
    losses = policy_drops(gain, drop, SHARES)

    def index(matrix, limit, delta):
        answer = certify_path(matrix, limit, delta, bound)
        return answer.index if isinstance(answer, Certificate) else -1

    assert index(losses, 0.02, 0.05) <= index(losses, 0.03, 0.05) <= index(losses, 0.05, 0.05)
    assert index(losses, 0.03, 0.01) <= index(losses, 0.03, 0.05) <= index(losses, 0.03, 0.2)
    assert index(losses, 0.03, 0.05) < index(np.tile(losses, 4), 0.03, 0.05)


@every_bound
def test_the_labels_that_are_needed_are_those_of_the_bound_that_was_asked_for(bound):
    gain, drop = outcomes(60, 2)
    answer = certify_path(policy_drops(gain, drop, SHARES), 0.02, 0.05, bound)
    safest = policy_drops(gain, drop, SHARES)[:1]
    assert answer.labels_needed == labels_needed(safest, 0.02, 0.05, bound)


@pytest.mark.parametrize("delta", [0, 1, -0.05, float("nan")])
def test_a_confidence_of_nothing_or_of_all_is_refused(delta):
    with pytest.raises(DataError, match="delta must lie strictly between 0 and 1"):
        certify_path(np.zeros((1, 100)), 0.02, delta)


def test_too_few_labels_are_answered_with_how_many_would_do():
    gain, drop = outcomes(60, 2)
    answer = certify_path(policy_drops(gain, drop, SHARES), 0.02)
    assert isinstance(answer, NotCertified)
    assert answer.upper_bound > 0.02 > answer.estimate
    assert answer.labels_needed is not None
    assert answer.labels_needed > answer.n == 60
    assert answer.more_labels == answer.labels_needed - 60
    more = np.zeros(answer.labels_needed)
    assert certify_path(more, 0.02).index == 0


def test_no_number_of_labels_is_promised_when_the_estimate_is_above_the_limit():
    answer = certify_path(np.tile([0.0, 0.0, 0.0, 1.0], 50), 0.1)
    assert isinstance(answer, NotCertified)
    assert answer.estimate == 0.25
    assert answer.labels_needed is None
    assert answer.more_labels is None


def test_other_targets_are_means_too():
    strong = np.array([np.arange(400) % 10 < k for k in (0, 2, 5)], dtype=float)
    share = certify_path(strong, 0.3, bound=BINOMIAL)
    assert isinstance(share, Certificate)
    assert share.index == 1
    assert share.upper_bound == pytest.approx(stats.beta.ppf(0.95, 81, 320), abs=2e-5)
    cost = certify_path(strong * 4.0, 1.2, bound=MeanBound("betting", 0.0, 4.0))
    assert isinstance(cost, Certificate)
    assert cost.index == 1
    assert 0.8 < cost.upper_bound <= 1.2


def test_groups_are_certified_from_their_own_prompts():
    gain, drop = outcomes(4000, 4)
    losses = policy_drops(gain, drop, SHARES)
    groups = ["even" if i % 2 == 0 else "odd" for i in range(4000)]
    apart = certify_groups(losses, groups, 0.03)
    assert apart["odd"] == certify_path(losses[:, 1::2], 0.03)
    assert certify_groups(losses, groups, 0.03, simultaneous=True)["even"] == certify_path(losses[:, ::2], 0.03, 0.025)


def test_prompts_sent_to_the_strong_model_lose_nothing():
    drops = policy_drops([0.1, 0.5, 0.9], [1.0, -1.0, 1.0], [0.0, 0.5, 0.6, 2.0])
    np.testing.assert_array_equal(drops, [[0, 0, 0], [1, 0, 0], [1, -1, 0], [1, -1, 1]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: certify_groups([[0.0, 1.0]], ["a"], 0.02), "one label per prompt, 2; got 1"),
        (lambda: certify_path([2.0], 0.02), "policy 0, prompt 0 has 2.0"),
        (lambda: fit_learning_curve([1, 2, 3], np.zeros((3, 3))), "at least 4 different"),
        (lambda: fit_learning_curve([1, 2, 3, 4], np.zeros((2, 4))), "repetitions >= 3"),
        (lambda: fit_learning_curve([1, 2, 3, 4], np.full((3, 4), np.nan)), "repetition 0"),
    ],
)
def test_unusable_input_is_refused_by_name(call, words):
    with pytest.raises(DataError, match=words):
        call()


@every_bound
def test_the_number_of_labels_asked_for_gives_a_certificate_four_times_in_five(bound):
    losses = np.repeat([-1.0, 0.0, 1.0], [20, 920, 60])
    n = labels_needed(losses, 0.06, bound=bound)
    fresh = np.random.default_rng(9).choice(losses, size=(400, n))
    success = excludes(fresh, 0.06, 0.05, bound).mean()
    # power is judged on 100 draws (standard error .04) and once more on 400 (.02)
    assert 0.8 - 0.11 < success < 0.8 + 0.13


def test_a_sample_without_any_loss_asks_for_exactly_the_labels_that_exclude_the_limit():
    n = labels_needed(np.zeros(10), 0.05, bound=BINOMIAL)
    assert upper_bound(np.zeros(n), 0.05, BINOMIAL)[0] <= 0.05 + 1e-9
    assert abs(n - np.log(0.05) / np.log(0.95)) <= 0.03 * n + 1


def test_more_labels_than_allowed_is_no_answer():
    assert labels_needed(np.repeat([0.0, 1.0], [899, 101]), 0.1011, max_labels=2000) is None


def test_a_power_law_is_recovered_and_its_interval_covers_the_extrapolation():
    sizes = np.array([100, 200, 400, 800, 1600, 3200])
    truth = 0.7 - 0.9 * sizes**-0.4
    rng = np.random.default_rng(5)
    curve = fit_learning_curve(sizes, truth + rng.normal(scale=0.003, size=(12, 6)))
    assert curve.floor == pytest.approx(0.7, abs=0.03)
    assert curve.rate == pytest.approx(0.4, abs=0.12)
    np.testing.assert_allclose(curve.predict(sizes), truth, atol=0.004)
    low, high = curve.interval(12_800)
    assert low < 0.7 - 0.9 * 12_800**-0.4 < high
    assert high - low < 0.04


def test_exact_data_are_fitted_exactly():
    sizes = np.array([50.0, 100.0, 500.0, 1000.0])
    curve = fit_learning_curve(sizes, np.tile(0.2 + 3.0 * sizes**-0.5, (3, 1)))
    assert (curve.floor, curve.scale, curve.rate) == pytest.approx((0.2, 3.0, 0.5), abs=1e-6)
    low, high = curve.interval(sizes)
    np.testing.assert_allclose(low, high)
