"""Theorems of the ridge: merging, weights, removal, limits, duality, leave-one-out, known truth."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probes.errors import DataError, DimensionError
from probes.regression.fit import fit_ridge
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import DEFAULT_ALPHAS

STATISTICS = ("weight", "mean", "target_mean", "gram", "cross", "target_scatter")


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Return rows far from the origin and of unequal scales, where careless sums lose their digits."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 12)) * np.geomspace(0.01, 100.0, 12) + 1_000.0
    Y = (X - 1_000.0) @ rng.normal(size=(12, 3)) + rng.normal(size=(400, 3)) + 50.0
    return X, Y


def fitter(X: np.ndarray, Y: np.ndarray, w: np.ndarray | None = None) -> RidgeFitter:
    return RidgeFitter(X.shape[1], Y.shape[1]).update(X, Y, w)


def assert_same(a: RidgeFitter, b: RidgeFitter, rtol: float = 1e-10) -> None:
    assert a.n_rows == b.n_rows
    for name in STATISTICS:
        expected = np.asarray(getattr(b, name))
        assert_allclose(getattr(a, name), expected, rtol=rtol, atol=rtol * np.abs(expected).max(), err_msg=name)


def brute_force_loo(
    X: np.ndarray, Y: np.ndarray, w: np.ndarray, alpha: float, scale: np.ndarray, rows: range | None = None
) -> np.ndarray:
    """Refit without each row by the normal equations, the scales held, and average the squared errors."""
    errors, used = [], rows or range(len(X))
    for i in used:
        keep = np.arange(len(X)) != i
        mean, target_mean = np.average(X[keep], 0, w[keep]), np.average(Y[keep], 0, w[keep])
        Z = (X[keep] - mean) / scale
        gram = (Z * w[keep, None]).T @ Z + alpha * np.eye(X.shape[1])
        coef = np.linalg.solve(gram, (Z * w[keep, None]).T @ (Y[keep] - target_mean))
        errors.append((Y[i] - target_mean - (X[i] - mean) / scale @ coef) ** 2)
    return np.average(errors, 0, w[list(used)])


def test_ten_parts_merged_in_any_order_equal_the_whole(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    parts = [fitter(x, y) for x, y in zip(np.array_split(X, 10), np.array_split(Y, 10), strict=True)]
    assert_same(reduce(add, parts), fitter(X, Y))
    assert_same(reduce(add, parts[::-1]), fitter(X, Y))


def test_merging_changes_neither_operand(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    a, b = fitter(X[:100], Y[:100]), fitter(X[100:], Y[100:])
    before = a.copy(), b.copy()
    a + b
    assert_same(a, before[0], rtol=0)
    assert_same(b, before[1], rtol=0)


def test_streaming_row_by_row_equals_one_batch(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    stream = RidgeFitter(12, 3)
    for x, y in zip(X, Y, strict=True):
        stream.update(x[None], y[None])
    stream.update(np.empty((0, 12)), np.empty((0, 3)))
    assert_same(stream, fitter(X, Y))


def test_float32_rows_beyond_one_chunk_are_summed_in_float64() -> None:
    rng = np.random.default_rng(1)
    X = (rng.normal(size=(9_000, 3)) + 300.0).astype(np.float32)
    Y = rng.normal(size=(9_000, 1)).astype(np.float32)
    centred = X.astype(np.float64) - X.astype(np.float64).mean(0)
    assert_allclose(fitter(X, Y).gram, centred.T @ centred, rtol=1e-12, atol=1e-8)


def test_integer_weights_equal_repeated_rows(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    w = np.random.default_rng(2).integers(0, 4, size=len(X))
    weighted, repeated = fitter(X, Y, w), fitter(np.repeat(X, w, 0), np.repeat(Y, w, 0))
    for name in STATISTICS:
        expected = np.asarray(getattr(repeated, name))
        assert_allclose(getattr(weighted, name), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    a, b = weighted.solve([3.0]), repeated.solve([3.0])
    assert_allclose(a.coef, b.coef, rtol=1e-9)


def test_downdate_equals_refitting_without_the_rows(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    w = np.random.default_rng(3).uniform(0.5, 2.0, size=len(X))
    taken = fitter(X, Y, w).downdate(X[:150], Y[:150], w[:150])
    assert_same(taken, fitter(X[150:], Y[150:], w[150:]))


def test_downdating_everything_leaves_an_empty_fitter(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    empty = fitter(X, Y).downdate(X, Y)
    assert (empty.n_rows, empty.weight) == (0, 0.0)
    assert_same(empty.update(X, Y), fitter(X, Y))


def test_rows_never_added_cannot_be_taken_out(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    held = fitter(X, Y)
    with pytest.raises(DataError, match="must have been put in"):
        held.downdate(np.tile(X, (2, 1)), np.tile(Y, (2, 1)))
    with pytest.raises(DataError, match="variance of feature"):
        held.downdate(X * 10.0, Y)
    assert_same(held, fitter(X, Y), rtol=0)


def test_a_feature_constant_after_a_downdate_is_not_blown_up() -> None:
    rng = np.random.default_rng(4)
    X = rng.normal(size=(60, 2))
    X[:40, 0] = 7.0
    y = X[:, 1:] + 0.1 * rng.normal(size=(60, 1))
    solution = fitter(X, y).downdate(X[40:], y[40:]).solve([1.0])
    assert solution.n_active == 1
    assert solution.coef[0, 0] == 0.0


def test_decay_multiplies_the_weight_of_the_past(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    decayed = fitter(X[:200], Y[:200]).decay(0.25).update(X[200:], Y[200:])
    assert_same(decayed, fitter(X, Y, np.repeat([0.25, 1.0], 200)))
    with pytest.raises(DataError, match="factor must lie in"):
        decayed.decay(0.0)


def test_alpha_to_zero_is_least_squares(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    design = np.column_stack([X - X.mean(0), np.ones(len(X))])
    expected = np.linalg.lstsq(design, Y, rcond=None)[0][:-1].T
    assert_allclose(fitter(X, Y).solve([1e-10]).coef, expected, rtol=1e-7)


def test_alpha_to_infinity_predicts_the_mean(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    solution = fitter(X, Y).solve([1e15])
    assert_allclose(X @ solution.coef.T + solution.intercept, np.broadcast_to(Y.mean(0), Y.shape), rtol=1e-9)


@pytest.mark.parametrize("n", [10, 200])
def test_primal_equals_dual(n: int) -> None:
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(n, 40)), rng.normal(size=(n, 1))
    Z, centred = X - X.mean(0), y - y.mean()
    dual = Z.T @ np.linalg.solve(Z @ Z.T + 2.5 * np.eye(n), centred)
    assert_allclose(fitter(X, y).solve([2.5], standardize=False).coef[0], dual[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("standardize", [True, False])
def test_leave_one_out_equals_brute_force(standardize: bool) -> None:
    rng = np.random.default_rng(6)
    X = rng.normal(size=(50, 8)) * np.geomspace(0.1, 10.0, 8) + 5.0
    Y = X @ rng.normal(size=(8, 2)) + rng.normal(size=(50, 2))
    w = rng.uniform(0.2, 3.0, size=50)
    alphas = [0.01, 1.0, 100.0]
    held = fitter(X, Y, w)
    loo = held.solve(alphas, rows=[(X, Y, w)], standardize=standardize).loo_mse
    scale = np.sqrt(np.diag(held.gram) / held.weight) if standardize else np.ones(8)
    assert_allclose(loo, [brute_force_loo(X, Y, w, a, scale) for a in alphas], rtol=1e-10)


def test_leave_one_out_holds_with_fewer_rows_than_features() -> None:
    rng = np.random.default_rng(7)
    X, Y = rng.normal(size=(12, 30)), rng.normal(size=(12, 1))
    loo = fitter(X, Y).solve([0.5], rows=[(X, Y)]).loo_mse
    assert_allclose(loo[0], brute_force_loo(X, Y, np.ones(12), 0.5, X.std(0)), rtol=1e-10)


def test_leave_one_out_over_new_rows_judges_a_merge_with_a_prior(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    new = range(350, 400)
    w = np.repeat([0.1, 1.0], [350, 50])
    held = fitter(X[:350], Y[:350]).decay(0.1) + fitter(X[350:], Y[350:])
    loo = held.solve([2.0], rows=[(X[350:370], Y[350:370]), (X[370:], Y[370:], np.ones(30))]).loo_mse
    scale = np.sqrt(np.diag(held.gram) / held.weight)
    assert_allclose(loo[0], brute_force_loo(X, Y, w, 2.0, scale, new), rtol=1e-9)


def test_gcv_is_leave_one_out_with_the_mean_hat_value(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    solution = fitter(X, Y).solve([5.0])
    Z = (X - X.mean(0)) / X.std(0)
    hat = Z @ np.linalg.solve(Z.T @ Z + 5.0 * np.eye(12), Z.T) + 1.0 / len(X)
    residual = Y - hat @ Y
    expected = (residual**2).mean(0) / (1.0 - np.trace(hat) / len(X)) ** 2
    assert solution.criterion == "gcv"
    assert_allclose(solution.loo_mse[0], expected, rtol=1e-8)


def test_truth_made_by_an_svd_is_recovered_shrunk_as_the_formula_says() -> None:
    rng = np.random.default_rng(8)
    U = np.linalg.qr(np.column_stack([np.ones(80), rng.normal(size=(80, 6))]))[0][:, 1:]
    V = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    s = np.array([9.0, 5.0, 3.0, 1.0, 0.5, 0.1])
    truth = rng.normal(size=6)
    X = (U * s) @ V.T + rng.normal(size=6)
    y = (U @ truth + 2.0)[:, None]
    solution = fitter(X, y).solve([0.7], standardize=False)
    assert_allclose(solution.coef[0], V @ (truth * s / (s**2 + 0.7)), rtol=1e-9)
    exact = fitter(X, y).solve([1e-12], standardize=False)
    assert_allclose(exact.coef[0], V @ (truth / s), rtol=1e-6)


def test_noise_asks_for_the_largest_penalty_and_signal_for_a_small_one() -> None:
    rng = np.random.default_rng(9)
    X = rng.normal(size=(500, 30))
    noise, signal = rng.normal(size=(500, 1)), X @ rng.normal(size=(30, 1))
    assert fit_ridge(X, noise).alpha[0] > 1e3
    assert fit_ridge(X, signal).alpha[0] == DEFAULT_ALPHAS[0]


def test_per_target_penalties_equal_separate_fits(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    Y = np.column_stack([Y[:, 0], np.random.default_rng(10).normal(size=len(Y))])
    together = fit_ridge(X, Y, per_target=True)
    for j in range(2):
        alone = fit_ridge(X, Y[:, j])
        assert together.alpha[j] == alone.alpha[0]
        assert_allclose(together.coef[j], alone.coef[0], rtol=1e-10)
    shared = fit_ridge(X, Y)
    assert shared.alpha[0] == shared.alpha[1]


def test_a_missing_target_uses_the_rows_it_has(data: tuple[np.ndarray, np.ndarray]) -> None:
    X, Y = data
    Y = Y.copy()
    Y[::5, 1] = np.nan
    Y[::5, 2] = np.nan
    together = fit_ridge(X, Y, per_target=True)
    for j, rows in ((0, slice(None)), (1, ~np.isnan(Y[:, 1])), (2, ~np.isnan(Y[:, 2]))):
        alone = fit_ridge(X[rows], Y[rows, j])
        assert together.alpha[j] == alone.alpha[0]
        assert_allclose(together.coef[j], alone.coef[0], rtol=1e-9)
    assert together.leverage.floor == 1.0 / len(X)


def test_leverage_is_that_of_all_rows_even_when_every_target_misses_some(
    data: tuple[np.ndarray, np.ndarray],
) -> None:
    X, Y = data
    holed = np.where(np.eye(len(X), 3, dtype=bool), np.nan, Y)
    whole, missing = (fit_ridge(X, y, alphas=[4.0]).leverage for y in (Y, holed))
    assert_allclose(missing.score(X[:9]), whole.score(X[:9]), rtol=1e-6)


def test_constant_targets_and_features_are_predicted_without_fuss() -> None:
    rng = np.random.default_rng(11)
    X = np.column_stack([rng.normal(size=50), np.full(50, 3.3), 1e-33 * rng.normal(size=50)])
    Y = np.column_stack([X[:, 0], np.full(50, 0.1)])
    solution = fit_ridge(X, Y)
    assert solution.n_active == 1
    assert_allclose(solution.coef[1], 0.0, atol=1e-15)
    assert_allclose(solution.probe.predict(X.astype(np.float32))[:, 1], 0.1, rtol=1e-6)
    constant = fit_ridge(np.ones((4, 2)), np.arange(4.0))
    assert_allclose(constant.probe.predict(np.zeros(2, np.float32)), [1.5])


@pytest.mark.parametrize(
    ("X", "Y", "w", "error", "message"),
    [
        ([[1.0, np.nan], [0.0, 1.0]], [[1.0], [2.0]], None, DataError, "row 0, column 1 holds nan"),
        ([[1.0, 2.0], [0.0, 1.0]], [[1.0], [np.inf]], None, DataError, "row 1, column 0 holds inf"),
        ([[1.0, 2.0, 3.0]], [[1.0]], None, DimensionError, "X must have 2 columns; got 3"),
        ([[1.0, 2.0]], [[1.0, 2.0]], None, DimensionError, "Y must have 1 columns; got 2"),
        ([[1.0, 2.0]], [[1.0], [2.0]], None, DataError, "as many rows; got 1 and 2"),
        ([[1.0, 2.0]], [[1.0]], [-1.0], DataError, "row 0 has -1.0"),
        ([1.0, 2.0], [[1.0]], None, DataError, "X must be a matrix"),
        ([["a", "b"]], [[1.0]], None, DataError, "must hold real numbers"),
    ],
)
def test_unusable_rows_are_refused_and_nothing_is_added(
    X: list[object], Y: list[object], w: list[float] | None, error: type[Exception], message: str
) -> None:
    held = RidgeFitter(2, 1)
    with pytest.raises(error, match=message):
        held.update(X, Y, w)
    assert held.n_rows == 0


def test_too_few_rows_and_bad_grids_are_refused() -> None:
    held = RidgeFitter(2).update([[1.0, 2.0]], [1.0])
    with pytest.raises(DataError, match="at least 2 rows"):
        held.solve()
    held.update([[2.0, 2.0]], [1.0])
    for grid in ([], [0.0], [-1.0], [np.inf]):
        with pytest.raises(DataError, match="alphas"):
            held.solve(grid)
    with pytest.raises(DimensionError, match="to be merged"):
        held + RidgeFitter(3)
    with pytest.raises(DataError, match=r"target\(s\) \[1\] have 1"):
        fit_ridge([[1.0], [2.0]], [[1.0, np.nan], [2.0, 3.0]])
