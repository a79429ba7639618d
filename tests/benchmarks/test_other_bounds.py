"""The tests of a mean that the benchmark compares: their closed forms, and the level that makes them tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.other_bounds import TESTS, excludes_by


def ternary_losses(rng, shape, mean, discordant):
    chances = [(discordant - mean) / 2, 1 - discordant, (discordant + mean) / 2]
    return rng.choice([-1.0, 0.0, 1.0], size=shape, p=chances)


def test_hoeffding_and_empirical_bernstein_begin_to_exclude_at_their_closed_forms():
    losses = ternary_losses(np.random.default_rng(0), 5000, 0.02, 0.1)
    mean, n = losses.mean(), losses.size
    log_term = np.log(2 / 0.05)
    edges = {
        "hoeffding": mean + 2 * np.sqrt(np.log(1 / 0.05) / (2 * n)),
        "empirical_bernstein": mean + np.sqrt(2 * losses.var(ddof=1) * log_term / n) + 14 * log_term / (3 * (n - 1)),
    }
    for name, edge in edges.items():
        assert excludes_by(name, losses, edge + 1e-9, 0.05)[0]
        assert not excludes_by(name, losses, edge - 1e-9, 0.05)[0]


@pytest.mark.parametrize("name", TESTS)
def test_rows_are_judged_one_by_one_and_a_larger_limit_is_easier_to_exclude(name):
    rng = np.random.default_rng(3)
    losses = np.vstack([ternary_losses(rng, 800, mean, 0.1) for mean in (-0.05, 0.0, 0.02, 0.08)])
    answers = [excludes_by(name, losses, limit, 0.05) for limit in np.linspace(0, 1, 40)]
    assert (np.diff(np.array(answers).astype(int), axis=0) >= 0).all()
    assert answers[-1].all()
    alone = [bool(excludes_by(name, row, 0.15, 0.05)[0]) for row in losses]
    assert excludes_by(name, losses, 0.15, 0.05).tolist() == alone


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize(("mean", "discordant"), [(0.02, 0.02), (0.02, 0.1), (0.05, 0.6)])
def test_a_true_hypothesis_is_rejected_no_more_often_than_delta(name, mean, discordant):
    draws = 1500
    losses = ternary_losses(np.random.default_rng(5), (draws, 300), mean, discordant)
    wrong = excludes_by(name, losses, mean, 0.1).sum()
    # 0.1 percent of runs would exceed this at a rate of exactly delta
    assert wrong <= stats.binom.ppf(0.999, draws, 0.1)
