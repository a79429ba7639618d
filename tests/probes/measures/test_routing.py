"""Measures of routing: against values computed by hand, and with equal scores."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probes.errors import DataError
from probes.measures import routing


def two_models(n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    weak = (rng.random(n) < 0.6).astype(float)
    strong = (rng.random(n) < 0.9).astype(float)
    return rng.normal(size=n), weak, strong


def test_apgr_of_a_constant_score_is_one_half_and_cpt_is_x() -> None:
    _, weak, strong = two_models()
    assert routing.apgr(np.zeros(200), weak, strong) == pytest.approx(0.5)
    assert routing.cpt(np.zeros(200), weak, strong, 0.8) == pytest.approx(0.8)


def test_apgr_is_the_trapezoid_under_the_curve_drawn_by_hand() -> None:
    weak, strong = [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]
    # Gains in order 1, 1, 0, -1 over a total of 1: PGR is 0, 1, 2, 2, 1 at shares 0, 1/4, ..., 1.
    assert routing.apgr([4, 3, 2, 1], weak, strong) == pytest.approx((0.5 + 1.5 + 2.0 + 1.5) / 4)
    assert routing.cpt([4, 3, 2, 1], weak, strong, 0.5) == pytest.approx(0.125)
    assert routing.cpt([4, 3, 2, 1], weak, strong, 1.0) == pytest.approx(0.25)
    assert routing.cpt([4, 3, 2, 1], weak, strong, 0.0) == 0.0


def test_ties_count_as_the_mean_over_their_orders() -> None:
    weak, strong = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    tied = routing.apgr([2, 1, 1, 1], weak, strong)
    orders = [routing.apgr([9, *order], weak, strong) for order in permutations((1, 2, 3))]
    assert tied == pytest.approx(np.mean(orders))


def test_no_figure_depends_on_the_order_of_rows() -> None:
    s, weak, strong = two_models()
    s = np.round(s)
    order = np.random.default_rng(9).permutation(200)
    for figure in (routing.apgr, lambda *rows: routing.cpt(*rows, 0.5)):
        assert figure(s[order], weak[order], strong[order]) == pytest.approx(figure(s, weak, strong))


def test_the_oracle_is_best_and_its_reverse_mirrors_it_about_one_half() -> None:
    _, weak, strong = two_models()
    best = routing.apgr(strong - weak, weak, strong)
    rng = np.random.default_rng(10)
    assert all(routing.apgr(rng.normal(size=200), weak, strong) < best for _ in range(100))
    assert routing.apgr(weak - strong, weak, strong) == pytest.approx(1.0 - best)


def test_a_strong_model_that_is_not_better_has_no_gap_to_recover() -> None:
    s, weak, strong = two_models()
    with pytest.raises(DataError, match="must be better than the weak"):
        routing.apgr(s, strong, weak)


def test_the_cost_quality_curve_runs_from_all_weak_to_all_strong() -> None:
    s, weak, strong = two_models()
    dear = np.linspace(1.0, 3.0, 200)
    curve = routing.cost_quality_curve(s, weak, strong, 0.5, dear)
    assert_allclose([curve.cost[0], curve.cost[-1]], [0.5, 2.0])
    assert_allclose([curve.quality[0], curve.quality[-1]], [weak.mean(), strong.mean()])
    half = np.argsort(-s)[:100]
    assert_allclose(curve.cost[100], (dear[half].sum() + 0.5 * 100) / 200)


def test_areas_of_straight_and_bent_curves_are_exact() -> None:
    straight = routing.cost_quality_curve([0, 0], [0.2, 0.4], [0.6, 0.8], 1.0, 3.0)
    assert routing.area_under_curve(straight) == pytest.approx(0.5)
    assert routing.aiq(straight) == pytest.approx(0.5)
    x, y = np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([0.0, 2.0, 1.0, 3.0, 2.0])
    bent = routing.CostQualityCurve(x / 4, x, y)
    # The hull goes 0, 2, 2.5, 3 and stays at 3.
    assert routing.aiq(bent) == pytest.approx((1.0 + 2.25 + 2.75 + 3.0) / 4)
    assert routing.area_under_curve(bent) == pytest.approx((1.0 + 1.5 + 2.0 + 2.5) / 4)


def test_cost_saved_is_read_between_points_and_none_where_never_reached() -> None:
    curve = routing.CostQualityCurve(np.array([0.0, 0.5, 1.0]), np.array([1.0, 2.0, 4.0]), np.array([0.5, 0.9, 0.8]))
    assert routing.cost_saved(curve, 4.0, 0.8) == pytest.approx(1.0 - 1.75 / 4.0)
    assert routing.cost_saved(curve, 1.0, 0.8) == pytest.approx(1.0 - 1.75)
    assert routing.cost_saved(curve, 4.0, 0.9) == pytest.approx(0.5)
    assert routing.cost_saved(curve, 4.0, 0.95) is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: routing.cpt([1.0], [0.0], [1.0], 1.5), "x must lie"),
        (lambda: routing.apgr([np.nan], [0.0], [1.0]), "gain_scores must be finite; row 0"),
        (lambda: routing.area_under_curve(routing.CostQualityCurve(*np.ones((3, 2)))), "end at a higher cost"),
        (lambda: routing.aiq(routing.CostQualityCurve(*np.ones((3, 2)))), "range of costs"),
        (lambda: routing.cost_saved(routing.CostQualityCurve(*np.ones((3, 2))), 0.0, 1.0), "must be > 0"),
    ],
)
def test_undefined_figures_are_errors_not_numbers(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
