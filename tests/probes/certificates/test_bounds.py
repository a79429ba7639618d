"""Bounds of a mean agree with closed forms and brute force, and are wrong no more often than delta."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from probes.certificates.bounds import MeanBound, choose_method, excludes, upper_bound
from probes.certificates.exact_counts import (
    NUISANCE_SHARE,
    binomial_cdf,
    clopper_pearson_upper,
    ternary_p_value,
)
from probes.errors import DataError

TERNARY, BETTING = MeanBound("ternary"), MeanBound("betting")
BINOMIAL = MeanBound("binomial", 0.0, 1.0)
every_bound = pytest.mark.parametrize("bound", [TERNARY, BETTING], ids=lambda bound: bound.method)


def ternary_losses(rng, shape, mean, discordant):
    chances = [(discordant - mean) / 2, 1 - discordant, (discordant + mean) / 2]
    return rng.choice([-1.0, 0.0, 1.0], size=shape, p=chances)


@pytest.mark.parametrize("n", [1, 2, 30, 4200])
def test_the_binomial_distribution_function_agrees_with_scipy(n):
    rng = np.random.default_rng(n)
    k = rng.integers(-1, n + 2, size=400)
    p = np.clip(k / n + rng.normal(size=400) / np.sqrt(n), 0, 1)
    np.testing.assert_allclose(binomial_cdf(k, n, p), stats.binom.cdf(k, n, p), rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("n", [1, 2, 30, 4200])
@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-3])
def test_clopper_pearson_agrees_with_the_beta_quantile(n, delta):
    k = np.unique(np.linspace(0, n, 50).astype(int))
    expected = np.where(k == n, 1.0, stats.beta.ppf(1 - delta, k + 1, np.maximum(n - k, 1)))
    np.testing.assert_allclose(clopper_pearson_upper(k, n, delta), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [3, 8, 13])
@pytest.mark.parametrize("limit", [-0.1, 0.05, 0.3])
def test_the_ternary_p_value_is_the_brute_force_maximum_over_the_nuisance(n, limit):
    delta, beta = 0.2, 0.2 * NUISANCE_SHARE
    for net in range(-n, int(np.floor((n - 1) * limit - 2)) + 1):
        for discordant in range(abs(net), n + 1, 2):
            ceiling = float(clopper_pearson_upper(discordant, n, beta))
            if abs(limit) > min(ceiling, 0.5):
                continue
            worst = max(_net_tail(net, n, limit, q) for q in np.linspace(abs(limit), min(ceiling, 0.5), 200))
            p = float(ternary_p_value(net, discordant, n, limit, delta))
            if ceiling <= 0.5:
                assert p == pytest.approx(min(1.0, beta + worst), abs=1e-12)
            else:
                beyond = max(_net_tail(net, n, limit, q) for q in np.linspace(0.5, ceiling, 200))
                assert p >= min(1.0, beta + max(worst, beyond)) - 1e-12


@pytest.mark.parametrize(("net", "limit"), [(-30, 0.0), (-60, 0.0), (-90, 0.0), (-90, -0.2), (-30, 0.1)])
def test_where_most_answers_differ_the_ternary_p_value_is_near_the_best_chernoff_bound(net, limit):
    n, discordant, delta = 200, 150, 0.05
    q = float(clopper_pearson_upper(discordant, n, delta * NUISANCE_SHARE))

    def chernoff(t):
        moment = (q + limit) / 2 * np.exp(-t) + 1 - q + (q - limit) / 2 * np.exp(t)
        return moment**n * np.exp(t * net)

    best = optimize.minimize_scalar(chernoff, bounds=(1e-3, 3), method="bounded").fun
    found = float(ternary_p_value(net, discordant, n, limit, delta)) - delta * NUISANCE_SHARE
    assert best < 0.9
    assert found == pytest.approx(best, rel=1e-3, abs=1e-12)
    assert found > _net_tail(net, n, limit, q)


@pytest.mark.parametrize("limit", [-0.1, 0.0, 0.1])
def test_a_sum_near_the_limit_shows_nothing_and_its_ternary_p_value_is_one(limit):
    n = 201  # (n - 1) limit - 2 is the last sum that is tested
    last = round((n - 1) * limit) - 2
    assert float(ternary_p_value(last, 61, n, limit - 1e-9, 0.05)) == 1.0
    nets = last + np.arange(1, 5)
    assert ternary_p_value(nets, 61, n, limit, 0.05).tolist() == [1.0] * 4
    assert float(ternary_p_value(last, 61, n, limit, 0.05)) < 0.7


def _net_tail(net, n, mean, q):
    law = np.array([1.0])
    for _ in range(n):
        law = np.convolve(law, [(q - mean) / 2, 1 - q, (q + mean) / 2])
    return law[: net + n + 1].sum()


def test_without_negative_losses_the_binomial_bound_is_clopper_pearson():
    losses = np.zeros(200)
    losses[:13] = 1
    bound = upper_bound(losses, 0.05, BINOMIAL)[0]
    assert bound == pytest.approx(stats.beta.ppf(0.95, 14, 187), abs=2e-5)


@every_bound
def test_bounds_shrink_with_more_samples_less_confidence_and_lower_losses(bound):
    losses = ternary_losses(np.random.default_rng(1), 400, 0.0, 0.1)
    first = upper_bound(losses, 0.05, bound)[0]
    assert losses.mean() < first < 1
    assert upper_bound(np.tile(losses, 8), 0.05, bound)[0] < first
    assert upper_bound(losses, 0.2, bound)[0] < first
    lower = np.where(np.arange(400) % 20 == 0, -1.0, losses)
    assert upper_bound(lower, 0.05, bound)[0] < first


@every_bound
def test_the_upper_bound_is_where_exclusion_begins(bound):
    losses = ternary_losses(np.random.default_rng(2), 900, 0.01, 0.2)
    edge = float(upper_bound(losses, 0.05, bound)[0])
    assert excludes(losses, edge + 1e-9, 0.05, bound)[0]
    assert not excludes(losses, edge - 1e-4, 0.05, bound)[0]


@every_bound
def test_rows_are_judged_one_by_one(bound):
    rng = np.random.default_rng(3)
    losses = np.vstack([ternary_losses(rng, 800, mean, 0.1) for mean in (-0.05, 0.0, 0.02, 0.08)])
    together = excludes(losses, 0.03, 0.05, bound)
    alone = [bool(excludes(row, 0.03, 0.05, bound)[0]) for row in losses]
    assert together.tolist() == alone


def test_at_the_size_of_the_mmlu_split_the_default_bounds_are_near_the_normal_one():
    losses = ternary_losses(np.random.default_rng(4), (20, 4200), 0.01, 0.08)
    normal = losses.mean(axis=1) + 1.645 * losses.std(axis=1) / np.sqrt(4200)
    for bound in (TERNARY, BETTING):
        excess = upper_bound(losses, 0.05, bound) - losses.mean(axis=1)
        assert np.mean(excess) < 1.15 * np.mean(normal - losses.mean(axis=1))


@every_bound
@pytest.mark.parametrize(("mean", "discordant"), [(0.02, 0.02), (0.02, 0.1), (0.05, 0.6)])
def test_a_true_hypothesis_is_rejected_no_more_often_than_delta(bound, mean, discordant):
    draws = 1500
    losses = ternary_losses(np.random.default_rng(5), (draws, 300), mean, discordant)
    wrong = excludes(losses, mean, 0.1, bound).sum()
    # 0.1 percent of runs would exceed this at a rate of exactly delta
    assert wrong <= stats.binom.ppf(0.999, draws, 0.1)


def test_betting_keeps_its_level_on_losses_that_are_rare_and_large():
    rng = np.random.default_rng(6)
    losses = np.where(rng.random((1500, 300)) < 0.01, 1.0, -0.01 / 0.99 + rng.uniform(-0.001, 0.001, (1500, 300)))
    wrong = excludes(losses, 0.0, 0.1, BETTING).sum()
    assert wrong <= stats.binom.ppf(0.999, 1500, 0.1)


def test_losses_between_the_lattice_points_are_rounded_up():
    losses = np.tile([-0.5, 0.25, 0.0, 0.0], 100)
    rounded = np.tile([0.0, 1.0, 0.0, 0.0], 100)
    limits = np.linspace(0.2, 0.4, 21)
    answers = [excludes(losses, m, 0.05, TERNARY)[0] for m in limits]
    assert answers == [excludes(rounded, m, 0.05, TERNARY)[0] for m in limits]
    assert answers[0] != answers[-1]


def test_nothing_can_exceed_the_top_of_the_range():
    for bound in (TERNARY, BETTING):
        assert excludes(np.ones(5), 1.0, 0.05, bound)[0]
        assert upper_bound(np.ones(5), 0.05, bound)[0] == 1.0


def test_binary_scores_call_for_the_exact_bound_and_others_for_betting():
    assert choose_method([0, 1, 1]) == "ternary"
    assert choose_method([0, 0.5, 1]) == "betting"


@pytest.mark.parametrize(
    ("losses", "delta", "bound", "words"),
    [
        ([[0.0, 1.5]], 0.05, BETTING, "policy 0, prompt 1 has 1.5"),
        ([[0.0], [np.nan]], 0.05, BETTING, "policy 1, prompt 0 has nan"),
        (np.zeros((2, 0)), 0.05, BETTING, "at least one of each"),
        ([0.0], 1.0, BETTING, "delta must lie strictly between 0 and 1"),
        ([0.0], 0.05, MeanBound("bootstrap"), "method of a bound must be one of"),
        ([0.0], 0.05, MeanBound("binomial"), "needs losses in \\[0, 1\\]"),
        ([[0.0], [0.0, 1.0]], 0.05, BETTING, "rectangular"),
    ],
)
def test_unusable_losses_are_refused_by_name(losses, delta, bound, words):
    with pytest.raises(DataError, match=words):
        excludes(losses, 0.02, delta, bound)


def test_the_ternary_bound_refuses_a_wider_range():
    with pytest.raises(DataError, match="needs losses in \\[-1, 1\\]"):
        excludes([0.0], 0.02, 0.05, MeanBound(high=3.0))
