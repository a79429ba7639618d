"""`LinearProbe` predicts without copies, and `Leverage` stays within its error bound."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probes.errors import DataError, DimensionError
from probes.regression.fit import fit_ridge
from probes.regression.linear import Leverage, LinearProbe


def correlated(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    X = (rng.normal(size=(n, d)) * np.geomspace(3.0, 0.03, d)) @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (X + rng.normal(size=d)).astype(np.float32)


def exact_leverage(train: np.ndarray, X: np.ndarray, alpha: float) -> np.ndarray:
    mean, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    Z, z = (train - mean) / scale, (X - mean) / scale
    inverse = np.linalg.inv(Z.T @ Z + alpha * np.eye(Z.shape[1]))
    return np.einsum("ij,jk,ik->i", z, inverse, z) + 1.0 / len(train)


def test_one_sample_and_a_batch_agree_with_the_float64_fit() -> None:
    X = correlated(300, 40)
    solution = fit_ridge(X, np.column_stack([X[:, 0], X[:, 1] ** 2]))
    expected = X @ solution.coef.T + solution.intercept
    assert_allclose(solution.probe.predict(X), expected, atol=1e-4)
    assert_allclose(solution.probe.predict(X[7]), expected[7], atol=1e-4)
    assert solution.probe.predict(X).dtype == np.float32
    assert solution.probe.predict(X[7]).shape == (2,)


def test_predicting_copies_nothing_of_the_size_of_the_features() -> None:
    X = correlated(4_000, 64)
    probe = fit_ridge(X, X[:, 0]).probe
    tracemalloc.start()
    probe.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes / 4


def test_a_probe_cannot_be_changed() -> None:
    probe = LinearProbe(np.ones((1, 3)), np.zeros(1), np.ones(1))
    with pytest.raises(dataclasses.FrozenInstanceError):
        probe.coef = np.zeros((1, 3))  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        probe.coef[0, 0] = 5.0


@pytest.mark.parametrize("X", [np.ones(4), np.ones((2, 4)), np.ones((2, 3, 3)), [1.0, 2.0, 3.0], np.float32(1.0)])
def test_features_of_another_shape_are_refused(X: object) -> None:
    probe = LinearProbe(np.ones((2, 3)), np.zeros(2), np.ones(2))
    with pytest.raises(DataError, match="features must"):
        probe.predict(X)  # type: ignore[arg-type]


def test_another_number_of_features_is_a_dimension_error() -> None:
    probe = LinearProbe(np.ones((2, 3)), np.zeros(2), np.ones(2))
    with pytest.raises(DimensionError, match="3 columns"):
        probe.predict(np.ones((5, 4), np.float32))
    leverage = Leverage(np.zeros(3), np.ones(3), np.zeros((0, 3)), 1.0, 0.1, 0.0)
    with pytest.raises(DimensionError, match=r"\(3,\)"):
        leverage.score(np.ones(4, np.float32))


@pytest.mark.parametrize("field", ["coef", "intercept", "alpha"])
def test_a_probe_with_nan_cannot_be_made(field: str) -> None:
    arrays = {"coef": np.ones((1, 2)), "intercept": np.ones(1), "alpha": np.ones(1)}
    arrays[field] = arrays[field] * np.nan
    with pytest.raises(DataError, match=f"{field} must be finite"):
        LinearProbe(**arrays)


def test_shapes_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(DimensionError, match="number of targets"):
        LinearProbe(np.ones((2, 3)), np.ones(1), np.ones(2))
    with pytest.raises(DimensionError, match="number of features"):
        Leverage(np.zeros(3), np.ones(2), np.zeros((1, 3)), 1.0, 0.1, 0.0)
    with pytest.raises(DataError, match="tail of a leverage"):
        Leverage(np.zeros(3), np.ones(3), np.zeros((1, 3)), -1.0, 0.1, 0.0)


def test_untruncated_leverage_is_exact() -> None:
    train, new = correlated(500, 30), 4.0 * correlated(50, 30, seed=1)
    leverage = fit_ridge(train, train[:, 0], alphas=[10.0], leverage_tolerance=0.0).leverage
    assert leverage.error_bound < 1e-9
    assert_allclose(leverage.score(new), exact_leverage(train, new, 10.0), rtol=1e-4)


def test_truncated_leverage_keeps_its_bound_for_any_input_and_is_close_on_the_data() -> None:
    train = correlated(500, 60)
    leverage = fit_ridge(train, train[:, 0], alphas=[100.0], leverage_tolerance=0.4).leverage
    assert leverage.factor.shape[0] < 30
    assert 0.0 < leverage.error_bound <= 0.4
    anywhere = np.random.default_rng(2).normal(size=(2_000, 60)).astype(np.float32) * 50.0
    for X, most in ((anywhere, leverage.error_bound), (train, 0.1)):
        exact = exact_leverage(train, X, 100.0) - leverage.floor
        error = (leverage.score(X) - leverage.floor) / exact - 1.0
        assert np.abs(error).max() <= most + 1e-3
    mean_error = leverage.score(train).mean() / exact_leverage(train, train, 100.0).mean() - 1.0
    assert abs(mean_error) < 1e-4


def test_leverage_grows_away_from_the_data_and_one_row_equals_a_batch() -> None:
    train = correlated(400, 20)
    leverage = fit_ridge(train, train[:, 0]).leverage
    near, far = leverage.score(train), leverage.score(train + 30.0)
    assert far.min() > near.max()
    # A difference of two large float32 sums, which BLAS adds in another order for one row than for many.
    assert_allclose(leverage.score(train[3]), near[3], rtol=1e-3)
    assert leverage.score(train[3]).shape == ()
