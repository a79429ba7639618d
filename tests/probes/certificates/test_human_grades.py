"""The bound of the mean human loss is valid whatever the judge does, and a good judge saves half of the grades."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy import stats

from probes.certificates.bounds import MeanBound, excludes, upper_bound
from probes.certificates.fixed_sequence import Certificate, certify_groups, certify_path
from probes.certificates.human_grades import GradedLosses, _block_growth
from probes.certificates.label_planning import labels_needed
from probes.errors import DataError
from tests.probes.certificates.judges import JUDGES, graded_losses

RECTIFIED, BETTING = MeanBound("rectified"), MeanBound("betting")
DRAWS = 1500


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("human", [(0.15, 0.15), (0.02, 0.0), (0.4, 0.2)])
def test_a_true_hypothesis_is_rejected_no_more_often_than_delta(judge, human):
    losses = graded_losses(judge, draws=DRAWS, grades=120, judged_only=1200, human=human)
    wrong = excludes(losses, human[0] - human[1], 0.1, RECTIFIED).sum()
    # 0.1 percent of runs would exceed this at a rate of exactly delta
    assert wrong <= stats.binom.ppf(0.999, DRAWS, 0.1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize(("grades", "judged_only"), [(30, 30), (60, 7), (100, 5000), (400, 2000)])
def test_a_true_hypothesis_is_rejected_no_more_often_than_delta_in_many_draws(judge, grades, judged_only):
    wrong, total = np.zeros(3), 0
    for seed in range(20):
        losses = graded_losses(judge, 500, grades, judged_only, human=(0.17, 0.15), seed=seed)
        total += 500
        for number, delta in enumerate((0.2, 0.05, 0.01)):
            wrong[number] += excludes(losses, 0.02, delta, RECTIFIED).sum()
    assert (wrong <= stats.binom.ppf(0.999, total, (0.2, 0.05, 0.01))).all()


@pytest.mark.parametrize("limit", [-0.2, 0.0, 0.3])
@pytest.mark.parametrize("block", [1, 2])
def test_the_probability_of_a_false_rejection_is_at_most_delta_by_enumeration(limit, block):
    """Every outcome of a tiny experiment is one policy; the sum of the probabilities of the rejected ones is exact."""
    rounds = 2
    values = (-1.0, 0.0, 1.0)
    outcomes = np.array(list(product(values, repeat=rounds * (2 + block))))
    human = np.full((len(outcomes), rounds * (1 + block)), np.nan)
    human[:, :rounds] = outcomes[:, :rounds]
    losses = GradedLosses(human, outcomes[:, rounds:])
    rejected = excludes(losses, limit, 0.5, RECTIFIED)
    assert rejected.any()
    rng = np.random.default_rng(0)
    for _ in range(200):
        table = rng.dirichlet(np.full(9, 0.3)).reshape(3, 3)  # human x judged
        law = table.sum(axis=1)
        mean = law @ values
        if mean <= limit:  # tilt towards losses until the hypothesis is just true
            table = (table * (1 - limit) + (limit - mean) * np.eye(3)[[2]].T * table.sum(axis=0)) / (1 - mean)
            assert table.sum(axis=1) @ values == pytest.approx(limit)
        assert _probability(table, losses, rounds)[rejected].sum() <= 0.5 + 1e-9


def _probability(table, losses, rounds):
    judged = (losses.judged + 1).astype(int)
    human = (losses.human[:, :rounds] + 1).astype(int)
    pairs = table[human, judged[:, :rounds]].prod(axis=1)
    return pairs * table.sum(axis=0)[judged[:, rounds:]].prod(axis=1)


def test_half_as_many_grades_do_if_the_judge_is_right_nine_times_in_ten():
    without = graded_losses("right 9 in 10", draws=400, grades=600, judged_only=0, human=(0.15, 0.15))
    half = graded_losses("right 9 in 10", draws=400, grades=300, judged_only=6000, human=(0.15, 0.15), seed=1)
    power_without = excludes(without.human, 0.05, 0.05).mean()
    power_of_half = excludes(half, 0.05, 0.05, RECTIFIED).mean()
    assert 0.5 < power_without < power_of_half


def test_a_useless_judge_costs_next_to_nothing():
    losses = graded_losses("useless", draws=600, grades=300, judged_only=3000, human=(0.12, 0.15))
    alone = excludes(losses.human[:, losses.graded], 0.05, 0.05, BETTING).mean()
    assert 0.3 < alone < 0.9
    assert excludes(losses, 0.05, 0.05, RECTIFIED).mean() > alone - 0.03


def test_without_judged_draws_it_is_plain_betting():
    losses = graded_losses("right 9 in 10", draws=5, grades=250, judged_only=0, human=(0.1, 0.12))
    np.testing.assert_array_equal(upper_bound(losses, 0.05, RECTIFIED), upper_bound(losses.human, 0.05, BETTING))


def test_the_estimate_has_no_bias_from_a_kind_judge_and_a_smaller_error_than_the_grades_alone():
    losses = graded_losses("too kind", draws=2000, grades=200, judged_only=4000, human=(0.2, 0.1))
    alone = losses.human[:, losses.graded].mean(axis=1)
    assert abs(losses.judged.mean() - 0.1) > 0.1
    assert abs(losses.mean().mean() - 0.1) < 0.005
    assert losses.mean().std() < 0.8 * alone.std()
    bounds = upper_bound(losses[:200], 0.05, RECTIFIED)
    assert (bounds > losses[:200].mean()).all()
    assert np.mean(bounds >= 0.1) >= 0.9


def test_policies_are_judged_one_by_one_and_the_path_ends_before_the_first_that_fails():
    parts = [
        graded_losses("right 9 in 10", draws=1, grades=400, judged_only=4000, human=human, seed=seed)
        for seed, human in enumerate([(0.1, 0.15), (0.1, 0.1), (0.1, 0.1), (0.3, 0.1), (0.1, 0.2)])
    ]
    path = GradedLosses(np.vstack([p.human for p in parts]), np.vstack([p.judged for p in parts]))
    assert excludes(path, 0.06, 0.05, RECTIFIED).tolist() == [
        bool(excludes(part, 0.06, 0.05, RECTIFIED)[0]) for part in parts
    ]
    found = certify_path(path, 0.06, 0.05, RECTIFIED)
    assert isinstance(found, Certificate)
    assert (found.index, found.n, found.method) == (2, 400, "rectified")
    assert found.estimate <= found.upper_bound <= 0.06


def test_a_group_is_certified_from_its_own_grades():
    losses = graded_losses("right 9 in 10", draws=1, grades=800, judged_only=4000, human=(0.05, 0.1))
    groups = ["even", "odd"] * 2400
    found = certify_groups(losses, groups, 0.05, 0.05, RECTIFIED)
    assert [answer.n for answer in found.values()] == [400, 400]
    alone = losses.columns(np.arange(1, 4800, 2))
    assert found["odd"] == certify_path(alone, 0.05, 0.05, RECTIFIED)


def test_fewer_grades_are_needed_beside_a_good_judge_than_beside_a_useless_one():
    needed = {
        judge: labels_needed(
            graded_losses(judge, draws=1, grades=5000, judged_only=8000, human=(0.12, 0.12)), 0.05, 0.05, RECTIFIED
        )
        for judge in ("right 9 in 10", "useless")
    }
    assert needed["right 9 in 10"] < 0.6 * needed["useless"]


@pytest.mark.parametrize("q", [1e-6, 0.1, 0.5, 0.9])
def test_the_growth_of_a_block_is_never_overstated(q):
    guess, room = -0.2, 1.2
    deviations = np.linspace(-0.8, 1.2, 401)
    exact = np.log1p(-q / room * deviations)
    lower = _block_growth(np.asarray(q / room), np.asarray(room), (deviations, deviations**2))
    assert (lower <= exact + 1e-12).all()
    assert guess + room == 1.0
    assert lower[-1] == pytest.approx(exact[-1])


@pytest.mark.parametrize(
    ("human", "judged", "words"),
    [
        ([[0.0, np.nan]], [[0.0, 1.5]], "policy 0, prompt 1 has 1.5"),
        ([[2.0, np.nan]], [[0.0, 1.0]], "policy 0, prompt 0 has 2.0"),
        ([[0.0, np.nan]], [[0.0, np.nan]], "policy 0, prompt 1 has nan"),
        ([[np.nan, np.nan]], [[0.0, 0.0]], "for one prompt at least"),
        ([[0.0, np.nan], [np.nan, 0.0]], [[0.0, 0.0]] * 2, "for the same prompts of every policy"),
        ([[0.0]], [[0.0, 0.0]], "of one shape"),
        ([0.0], [0.0], "of one shape"),
    ],
)
def test_unusable_losses_are_refused_by_name(human, judged, words):
    with pytest.raises(DataError, match=words):
        excludes(GradedLosses(np.array(human), np.array(judged)), 0.02, 0.05, RECTIFIED)


def test_the_method_and_the_kind_of_the_losses_must_belong_together():
    losses = graded_losses("useless", draws=1, grades=10, judged_only=10)
    for bound in (BETTING, MeanBound("ternary")):
        with pytest.raises(DataError, match="rectified bound needs GradedLosses"):
            excludes(losses, 0.02, 0.05, bound)
    with pytest.raises(DataError, match="rectified bound needs GradedLosses"):
        upper_bound([0.0, 1.0], 0.05, RECTIFIED)
