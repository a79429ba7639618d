"""Calibration maps recover a true map, and the measure of calibration rejects a wrong one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.isotonic import IsotonicRegression

from probes.calibration.beta import Beta
from probes.calibration.choice import KINDS, cross_calibrate, fit_calibrators, from_state
from probes.calibration.isotonic import Isotonic
from probes.calibration.pava import pool_starts
from probes.calibration.sigmoid import Sigmoid
from probes.calibration.venn_abers import VennAbers
from probes.errors import DataError
from probes.measures.prediction import ece

every_kind = pytest.mark.parametrize("kind", sorted(KINDS))


def sigmoid_world(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, 0/1 losses and the true probabilities, which are far from the scores."""
    rng = np.random.default_rng(seed)
    s = rng.normal(0.4, 0.2, size=n)
    p = 1.0 / (1.0 + np.exp(-(6.0 * s - 4.0)))
    return s, (rng.random(n) < p).astype(float), p


@every_kind
def test_held_out_scores_are_calibrated_though_the_raw_ones_are_not(kind: str) -> None:
    s, y, _ = sigmoid_world(6_000)
    held_out, held_y, p = sigmoid_world(6_000, seed=1)
    calibrated = KINDS[kind].fit(s, y).predict(held_out)
    assert ece(calibrated, held_y) < 0.02
    assert ece(np.clip(held_out, 0, 1), held_y) > 0.1
    assert np.abs(calibrated - p).mean() < 0.03


@every_kind
def test_shuffled_losses_give_the_base_rate(kind: str) -> None:
    s, y, _ = sigmoid_world(4_000)
    shuffled = np.random.default_rng(2).permutation(y)
    assert_allclose(KINDS[kind].fit(s, shuffled).predict([0.2, 0.4, 0.6]), y.mean(), atol=0.06)


@every_kind
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=2, max_size=40))
@example([(0.0, 0.0), (2.2250738585e-313, 0.0)])
def test_every_map_is_a_non_decreasing_probability_everywhere(kind: str, rows: list[tuple[float, float]]) -> None:
    scores, losses = np.array(rows).T
    one = KINDS[kind].fit(scores, losses)
    at = np.concatenate([[-1e9, -50.0], np.linspace(-12, 12, 200), np.sort(scores), [50.0, 1e9]])
    p = one.predict(np.sort(at))
    assert p.min() >= 0.0
    assert p.max() <= 1.0
    assert np.diff(p).min() >= -1e-12


@every_kind
def test_weights_are_repetition_and_weight_zero_is_absence(kind: str) -> None:
    s, y, _ = sigmoid_world(60)
    w = np.random.default_rng(3).integers(0, 4, size=60)
    at = np.linspace(-1, 2, 50)
    weighted, repeated = KINDS[kind].fit(s, y, w), KINDS[kind].fit(np.repeat(s, w), np.repeat(y, w))
    assert_allclose(weighted.predict(at), repeated.predict(at), atol=1e-7)


@every_kind
def test_state_makes_the_same_map_again_to_the_last_bit(kind: str) -> None:
    s, y, _ = sigmoid_world(300)
    one = KINDS[kind].fit(s, y)
    again = from_state(kind, one.state())
    assert all(array.dtype == np.float64 for array in one.state().values())
    assert_array_equal(again.predict(s), one.predict(s))


@every_kind
def test_a_batch_says_the_same_as_its_rows_alone(kind: str) -> None:
    s, y, _ = sigmoid_world(500)
    one = KINDS[kind].fit(s, y)
    batch = one.predict(s[:70])
    assert_array_equal([float(one.predict(s[i])) for i in range(70)], batch)
    assert_array_equal(one.predict(s[:70].reshape(7, 10)), batch.reshape(7, 10))
    wide = np.concatenate([s, np.linspace(-30, 30, 2_001), [1e300, -1e300, 0.0, -0.0]])
    assert_array_equal([one.predict_one(score) for score in wide.tolist()], one.predict(wide))
    with pytest.raises(DataError, match="must be finite"):
        one.predict_one(float("nan"))


@every_kind
def test_soft_losses_are_calibrated_to_their_mean(kind: str) -> None:
    rng = np.random.default_rng(4)
    s = rng.random(4_000)
    soft = np.clip(s**2 + 0.1 * rng.normal(size=4_000), 0, 1)
    p = KINDS[kind].fit(s, soft).predict([0.3, 0.6, 0.9])
    assert_allclose(p, [0.1, 0.36, 0.81], atol=0.06)


@pytest.mark.parametrize("kind", ["isotonic", "sigmoid", "beta"])
def test_the_ranking_is_kept_without_ties(kind: str) -> None:
    s, y, _ = sigmoid_world(3_000)
    s = np.unique(s)[:2_900]
    y = y[: len(s)]
    y[np.argsort(s)] = np.sort(y * 0.8 + 0.1)
    inner = s[(s > np.quantile(s, 0.001)) & (s < np.quantile(s, 0.999))]
    assert len(np.unique(KINDS[kind].fit(s, y).predict(inner))) > 0.99 * len(inner)


@pytest.mark.parametrize("kind", ["sigmoid", "beta"])
def test_scores_that_rank_backwards_get_the_base_rate_not_a_falling_curve(kind: str) -> None:
    s, y, _ = sigmoid_world(2_000)
    p = KINDS[kind].fit(-s, y).predict([-1.0, 0.0, 1.0])
    assert np.diff(p).min() >= 0.0
    if kind == "sigmoid":
        assert_allclose(p, y.mean(), atol=1e-3)


def test_sigmoid_recovers_the_curve_that_made_the_data() -> None:
    s, y, _ = sigmoid_world(200_000)
    slope, centre, offset = Sigmoid.fit(s, y).parameters
    assert slope == pytest.approx(6.0, rel=0.02)
    assert offset - slope * centre == pytest.approx(-4.0, rel=0.02)


def test_separable_data_give_platts_finite_prior_instead_of_certainty() -> None:
    one = Sigmoid.fit([0.0] * 8 + [1.0] * 3, [0.0] * 8 + [1.0] * 3)
    assert_allclose(one.predict([0.0, 1.0]), [1 / 10, 4 / 5], rtol=1e-6)


def test_a_single_class_gives_platts_prior() -> None:
    one = Sigmoid.fit([0.1, 0.2, 0.3], [0.0, 0.0, 0.0])
    assert_allclose(one.predict([0.1, 0.2, 0.3]), 1 / 5, rtol=1e-3)


def test_beta_fits_a_map_that_no_sigmoid_can() -> None:
    rng = np.random.default_rng(5)
    s = rng.random(20_000)
    p = 0.05 + 0.9 * s**4
    y = (rng.random(20_000) < p).astype(float)
    error = {kind.kind: np.abs(kind.fit(s, y).predict(s) - p).mean() for kind in (Beta, Sigmoid)}
    assert error["beta"] < 0.5 * error["sigmoid"]


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(0.1, 5)), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_pools_are_those_of_scikit_learn(rows: list[tuple[float, float]]) -> None:
    y, w = np.array(rows).T
    starts = pool_starts(y, w)
    means = np.add.reduceat(w * y, starts) / np.add.reduceat(w, starts)
    fitted = np.repeat(means, np.diff(np.append(starts, len(y))))
    assert_allclose(fitted, IsotonicRegression().fit(np.arange(len(y)), y, w).predict(np.arange(len(y))), atol=1e-9)


def test_isotonic_passes_through_the_centres_and_goes_on_to_zero_and_one() -> None:
    one = Isotonic.fit([1.0, 2.0, 3.0, 4.0], [0.2, 0.6, 0.4, 0.9])
    assert_allclose(one.predict([1.0, 2.5, 4.0]), [0.2, 0.5, 0.9])
    assert_allclose(one.predict([1.75]), [0.35])
    assert_allclose(one.predict([-2.0, -0.5, 5.5, 7.0]), [0.0, 0.1, 0.95, 1.0])


@pytest.mark.parametrize("n", [2, 9, 40])
def test_venn_abers_equals_two_isotonic_regressions_with_the_point_added(n: int) -> None:
    rng = np.random.default_rng(n)
    s = np.round(rng.normal(size=n), 1)
    y = (rng.random(n) < 1 / (1 + np.exp(-2 * s))).astype(float)
    seen = np.unique(s)
    at = np.concatenate([seen, seen[:-1] + np.diff(seen) / 2, [seen[0] - 1.0, seen[-1] + 1.0]])
    low, high = VennAbers.fit(s, y).interval(at)
    for label, found in ((0.0, low), (1.0, high)):
        slow = [IsotonicRegression().fit(np.append(s, x), np.append(y, label)).predict([x])[0] for x in at]
        assert_allclose(found, slow, atol=1e-12)


def test_venn_abers_interval_holds_its_probability_and_narrows_with_data() -> None:
    widths = []
    for n in (100, 1_000, 10_000):
        s, y, _ = sigmoid_world(n)
        one = VennAbers.fit(s, y)
        low, high = one.interval(s)
        assert (low <= one.predict(s)).all()
        assert (one.predict(s) <= high).all()
        widths.append(float((high - low).mean()))
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


@every_kind
def test_no_row_calibrates_itself(kind: str) -> None:
    s, y, _ = sigmoid_world(300)
    scores, losses = np.column_stack([s, s]), np.column_stack([y, np.where(np.arange(300) % 7, y, np.nan)])
    fold = np.arange(300) % 3
    maps, calibrated = cross_calibrate(kind, scores, losses, fold)
    for k in range(3):
        alone = fit_calibrators(kind, scores[fold != k], losses[fold != k])
        for j in range(2):
            assert_array_equal(calibrated[fold == k, j], alone[j].predict(s[fold == k]))
    assert_array_equal(maps[0].predict(s), KINDS[kind].fit(s, y).predict(s))
    present = ~np.isnan(losses[:, 1])
    assert_array_equal(maps[1].predict(s), KINDS[kind].fit(s[present], y[present]).predict(s))


@every_kind
@pytest.mark.parametrize(
    ("scores", "losses", "message"),
    [
        ([0.1, np.nan], [0.0, 1.0], "scores must be finite; row 1"),
        ([0.1, 0.2], [0.0, 1.5], r"losses must lie in \[0, 1\]; row 1 has 1.5"),
        ([0.1, 0.2], [0.0], "one entry per row"),
        ([0.1], [0.0], "at least 2 rows"),
    ],
)
def test_unusable_rows_are_refused(kind: str, scores: list[float], losses: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        KINDS[kind].fit(scores, losses)


@every_kind
def test_nan_is_not_calibrated(kind: str) -> None:
    s, y, _ = sigmoid_world(50)
    with pytest.raises(DataError, match="scores must be finite"):
        KINDS[kind].fit(s, y).predict([0.1, np.nan])


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("cosine", {}, "must be one of"),
        ("sigmoid", {}, "exactly"),
        ("sigmoid", {"parameters": np.ones(2)}, "three parameters"),
        ("sigmoid", {"parameters": np.array([-1.0, 0.0, 0.0])}, "slope >= 0"),
        ("beta", {"parameters": np.array([1.0, 0.0, 1.0, 1.0, 0.0])}, "low < high"),
        ("beta", {"parameters": np.array([0.0, 1.0, -1.0, 1.0, 0.0])}, "a >= 0 and b >= 0"),
        ("beta", {"parameters": np.ones(4)}, "five parameters"),
        ("isotonic", {"knots": np.array([0.0, 0.0]), "values": np.array([0.0, 1.0])}, "ascending knots"),
        ("isotonic", {"knots": np.array([0.0, 1.0]), "values": np.array([0.9, 0.1])}, "non-decreasing"),
        ("isotonic", {"knots": np.array([0.0, 1.0]), "values": np.array([0.0, 2.0])}, r"in \[0, 1\]"),
        ("isotonic", {"knots": np.array([0.0, 1.0]), "values": np.array([0.5])}, "as many knots"),
        ("isotonic", {"knots": np.array([0.0, np.nan]), "values": np.array([0.0, 1.0])}, "finite"),
        (
            "venn_abers",
            {"thresholds": np.array([0.0]), "below": np.zeros(3), "at": np.zeros(2)},
            "tables of matching size",
        ),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(kind: str, state: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_state(kind, state)


@pytest.mark.parametrize("mean", [0.02, 0.3, 0.9])
def test_a_beta_map_moved_to_another_task_keeps_its_shape_and_meets_the_new_mean(mean: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random(500)
    old = Beta.fit(scores, (rng.random(500) < scores**2).astype(float))
    new_scores, losses = scores[:200] + 3.0, np.full(200, mean)
    moved = old.moved(3.0, new_scores, losses)
    assert moved.predict(new_scores).mean() == pytest.approx((200 * mean + 1) / 202)
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    apart = logit(moved.predict(new_scores)) - logit(old.predict(scores[:200]))
    np.testing.assert_allclose(apart, apart[0], atol=1e-8)


def test_a_beta_map_that_says_nothing_is_moved_to_the_mean() -> None:
    flat = Beta(np.array([0.0, 1.0, 0.0, 0.0, 0.5]))
    moved = flat.moved(0.0, np.linspace(0, 1, 8), np.array([0.0] * 6 + [1.0] * 2))
    np.testing.assert_allclose(moved.predict(np.linspace(-5, 5, 11)), 0.3)
