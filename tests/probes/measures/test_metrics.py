"""Metrics on data whose value is known in closed form, against scikit-learn, and under ties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import brier_score_loss, roc_auc_score

from probes.errors import DataError
from probes.measures import prediction as metrics


def test_pearson_r_is_one_for_a_line_and_that_of_numpy_elsewhere() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=50)
    b = 0.5 * a + rng.normal(size=50)
    assert metrics.pearson_r(a, 3.0 * a + 2.0) == pytest.approx(1.0, abs=1e-15)
    assert metrics.pearson_r(a, -a) == pytest.approx(-1.0, abs=1e-15)
    assert metrics.pearson_r(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-14)


def test_fishers_interval_is_the_textbook_one() -> None:
    interval = metrics.fisher_interval(0.5, 28)
    assert interval.low == pytest.approx(np.tanh(np.arctanh(0.5) - 1.959963985 / 5.0))
    assert interval.high == pytest.approx(np.tanh(np.arctanh(0.5) + 1.959963985 / 5.0))
    assert metrics.fisher_interval(1.0, 10).low == 1.0


def test_bootstrap_and_fisher_agree_on_normal_data() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=400)
    b = 0.6 * a + 0.8 * rng.normal(size=400)
    boot = metrics.bootstrap(metrics.pearson_r, a, b, n_resamples=500)
    fisher = metrics.fisher_interval(boot.value, 400)
    assert_allclose([boot.low, boot.high], [fisher.low, fisher.high], atol=0.02)


def test_bootstrap_is_paired_seeded_and_wider_for_whole_groups() -> None:
    rng = np.random.default_rng(2)
    a = rng.normal(size=200)
    difference = metrics.bootstrap(lambda x, y: float(np.mean(x - y)), a, a + 1.0, n_resamples=200)
    assert (difference.low, difference.high) == (pytest.approx(-1.0), pytest.approx(-1.0))
    groups = np.repeat(np.arange(20), 10)
    clustered = rng.normal(size=20)[groups]
    rows, whole = (
        metrics.bootstrap(lambda x: float(np.mean(x)), clustered, groups=g, n_resamples=400) for g in (None, groups)
    )
    assert whole.high - whole.low > 2.0 * (rows.high - rows.low)
    again = metrics.bootstrap(lambda x: float(np.mean(x)), clustered, groups=groups, n_resamples=400)
    assert again == whole


def test_a_slice_is_measured_on_its_own_rows() -> None:
    values, labels = np.array([1.0, 3.0, 10.0, 10.0]), ["b", "b", "a", "a"]
    found = metrics.per_slice(lambda x: float(np.mean(x)), labels, values, n_resamples=10)
    assert {label: interval.value for label, interval in found.items()} == {"a": 10.0, "b": 2.0}


def test_auroc_with_ties_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    scores, labels = np.round(rng.normal(size=300), 1), rng.integers(0, 2, size=300)
    assert metrics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    assert metrics.auroc(np.zeros(4), [0, 1, 0, 1]) == 0.5


def test_brier_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(4)
    p, y = rng.random(100), rng.integers(0, 2, size=100)
    assert metrics.brier(p, y) == pytest.approx(brier_score_loss(y, p), abs=1e-15)


def test_ece_of_a_known_shift_is_that_shift() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.7, size=200_000)
    y = (rng.random(200_000) < p + 0.1).astype(float)
    assert metrics.ece(p, y) == pytest.approx(0.1, abs=0.005)


def test_debiasing_takes_out_most_of_what_a_perfect_map_shows_by_chance() -> None:
    rng = np.random.default_rng(6)
    plain, debiased = [], []
    for _ in range(50):
        p = rng.random(500)
        y = (rng.random(500) < p).astype(float)
        plain.append(metrics.ece(p, y, debias=False))
        debiased.append(metrics.ece(p, y))
    assert np.mean(plain) > 0.03
    assert np.mean(debiased) < 0.6 * np.mean(plain)


def test_ece_never_splits_equal_predictions() -> None:
    p, y = np.full(100, 0.5), np.repeat([0.0, 1.0], 50)
    assert metrics.ece(p, y, debias=False) == 0.0
    assert metrics.ece(p, y[::-1], debias=False) == 0.0
    assert len(metrics.reliability_curve(p, y)) == 1


def test_the_reliability_curve_partitions_the_rows_and_its_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(7)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    curve = metrics.reliability_curve(p, y, n_bins=20)
    assert sum(b.n for b in curve) == 20_000
    assert {b.n for b in curve} == {1_000}
    assert sum(b.low <= b.predicted <= b.high for b in curve) >= 17


def test_wilsons_interval_is_the_textbook_one_and_stays_in_the_unit_interval() -> None:
    (only,) = metrics.reliability_curve(np.full(10, 0.2), np.repeat([1.0, 0.0], [2, 8]), n_bins=1)
    assert (only.low, only.high) == (pytest.approx(0.0567, abs=1e-4), pytest.approx(0.5098, abs=1e-4))
    (none,) = metrics.reliability_curve(np.full(10, 0.2), np.zeros(10), n_bins=1)
    assert none.low == 0.0
    assert none.high == pytest.approx(0.2775, abs=1e-4)


def world(n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    weak = (rng.random(n) < 0.6).astype(float)
    strong = (rng.random(n) < 0.9).astype(float)
    return rng.normal(size=n), weak, strong


def test_apgr_of_a_constant_score_is_one_half_and_cpt_is_x() -> None:
    _, weak, strong = world()
    assert metrics.apgr(np.zeros(200), weak, strong) == pytest.approx(0.5)
    assert metrics.cpt(np.zeros(200), weak, strong, 0.8) == pytest.approx(0.8)


def test_apgr_is_the_trapezoid_under_the_curve_drawn_by_hand() -> None:
    weak, strong = [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    # Gains in order 1, 1, 0, -1 over a total of 1: PGR is 0, 1, 2, 2, 1 at shares 0, 1/4, ..., 1.
    assert metrics.apgr([4, 3, 2, 1], weak, strong) == pytest.approx((0.5 + 1.5 + 2.0 + 1.5) / 4)
    assert metrics.cpt([4, 3, 2, 1], weak, strong, 0.5) == pytest.approx(0.125)
    assert metrics.cpt([4, 3, 2, 1], weak, strong, 1.0) == pytest.approx(0.25)
    assert metrics.cpt([4, 3, 2, 1], weak, strong, 0.0) == 0.0


def test_ties_count_as_the_mean_over_their_orders() -> None:
    weak, strong = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    tied = metrics.apgr([2, 1, 1, 1], weak, strong)
    orders = [metrics.apgr([9, *order], weak, strong) for order in permutations((1, 2, 3))]
    assert tied == pytest.approx(np.mean(orders))


def test_no_figure_depends_on_the_order_of_rows() -> None:
    s, weak, strong = world()
    s = np.round(s)
    order = np.random.default_rng(9).permutation(200)
    for figure in (metrics.apgr, lambda *rows: metrics.cpt(*rows, 0.5)):
        assert figure(s[order], weak[order], strong[order]) == pytest.approx(figure(s, weak, strong))


def test_the_oracle_is_best_and_its_reverse_mirrors_it_about_one_half() -> None:
    _, weak, strong = world()
    best = metrics.apgr(strong - weak, weak, strong)
    rng = np.random.default_rng(10)
    assert all(metrics.apgr(rng.normal(size=200), weak, strong) < best for _ in range(100))
    assert metrics.apgr(weak - strong, weak, strong) == pytest.approx(1.0 - best)


def test_a_strong_model_that_is_not_better_has_no_gap_to_recover() -> None:
    s, weak, strong = world()
    with pytest.raises(DataError, match="must be better than the weak"):
        metrics.apgr(s, strong, weak)


def test_the_cost_quality_curve_runs_from_all_weak_to_all_strong() -> None:
    s, weak, strong = world()
    dear = np.linspace(1.0, 3.0, 200)
    curve = metrics.cost_quality_curve(s, weak, strong, 0.5, dear)
    assert_allclose([curve.cost[0], curve.cost[-1]], [0.5, 2.0])
    assert_allclose([curve.quality[0], curve.quality[-1]], [weak.mean(), strong.mean()])
    half = np.argsort(-s)[:100]
    assert_allclose(curve.cost[100], (dear[half].sum() + 0.5 * 100) / 200)


def test_areas_of_straight_and_bent_curves_are_exact() -> None:
    straight = metrics.cost_quality_curve([0, 0], [0.2, 0.4], [0.6, 0.8], 1.0, 3.0)
    assert metrics.area_under_curve(straight) == pytest.approx(0.5)
    assert metrics.aiq(straight) == pytest.approx(0.5)
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 1.0, 3.0, 2.0])
    bent = metrics.CostQualityCurve(x / 4, x, y)
    # The hull goes 0, 2, 2.5, 3 and stays at 3.
    assert metrics.aiq(bent) == pytest.approx((1.0 + 2.25 + 2.75 + 3.0) / 4)
    assert metrics.area_under_curve(bent) == pytest.approx((1.0 + 1.5 + 2.0 + 2.5) / 4)


def test_cost_saved_is_read_between_points_and_none_where_never_reached() -> None:
    curve = metrics.CostQualityCurve(np.array([0.0, 0.5, 1.0]), np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.9, 0.8]))
    assert metrics.cost_saved(curve, 4.0, 0.8) == pytest.approx(1.0 - 1.75 / 4.0)
    assert metrics.cost_saved(curve, 1.0, 0.8) == pytest.approx(1.0 - 1.75)
    assert metrics.cost_saved(curve, 4.0, 0.9) == pytest.approx(0.5)
    assert metrics.cost_saved(curve, 4.0, 0.95) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.pearson_r([1.0, 1.0], [1.0, 2.0]), "two inputs that vary"),
        (lambda: metrics.fisher_interval(0.5, 3), "n >= 4"),
        (lambda: metrics.auroc([1.0, 2.0], [1, 1]), "both present"),
        (lambda: metrics.auroc([1.0, 2.0], [0.5, 1]), "0 or 1"),
        (lambda: metrics.ece([0.5, 1.5], [0, 1]), r"predicted must lie in \[0, 1\]; row 1"),
        (lambda: metrics.ece([0.5], [0], n_bins=0), "n_bins"),
        (lambda: metrics.brier([], []), "at least one row"),
        (lambda: metrics.cpt([1.0], [0.0], [1.0], 1.5), "x must lie"),
        (lambda: metrics.apgr([np.nan], [0.0], [1.0]), "gain_scores must be finite; row 0"),
        (lambda: metrics.bootstrap(np.mean, [1.0], [1.0, 2.0]), "equally many rows"),
        (lambda: metrics.bootstrap(np.mean, [1.0], confidence=1.0), "confidence must lie"),
        (lambda: metrics.bootstrap(np.mean, [1.0], groups=[1, 2]), "one label per row"),
        (lambda: metrics.area_under_curve(metrics.CostQualityCurve(*np.ones((3, 2)))), "dearer"),
        (lambda: metrics.aiq(metrics.CostQualityCurve(*np.ones((3, 2)))), "range of costs"),
        (lambda: metrics.cost_saved(metrics.CostQualityCurve(*np.ones((3, 2))), 0.0, 1.0), "must be > 0"),
    ],
)
def test_undefined_figures_are_errors_not_numbers(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
