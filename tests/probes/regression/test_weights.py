"""Weights of rows act as in scikit-learn's Ridge: in the fit, in the fits on folds, and in the sums kept as a prior."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge

from probes.errors import DataError
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from probes.regression.prior import Prior
from probes.regression.ridge import RidgeFitter

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture
def rows() -> Rows:
    """Return features (80, 7), targets (80, 3) of which some are missing, and weights (80,) of which some are 0."""
    rng = np.random.default_rng(4)
    X = rng.normal(size=(80, 7)) * rng.uniform(0.1, 5.0, size=7) + 3.0
    Y = X @ rng.normal(size=(7, 3)) + rng.normal(size=(80, 3))
    Y[rng.random(Y.shape) < 0.2] = np.nan
    w = rng.uniform(0.1, 8.0, size=80) * (rng.random(80) < 0.9)
    return X, Y, w


def scikit(X: np.ndarray, y: np.ndarray, w: np.ndarray, alpha: float) -> tuple[np.ndarray, float]:
    """Return the coefficients (d,) and the intercept of scikit-learn's weighted ridge on scaled features."""
    scale = np.sqrt(np.average((X - np.average(X, axis=0, weights=w)) ** 2, axis=0, weights=w))
    ridge = Ridge(alpha=alpha, solver="cholesky").fit(X / scale, y, sample_weight=w)
    return ridge.coef_ / scale, float(ridge.intercept_)


def test_fit_ridge_with_weights_equals_scikit_learn(rows: Rows) -> None:
    X, Y, w = rows
    found = fit_ridge(X, Y, w, alphas=[3.0])
    for j in range(3):
        has = ~np.isnan(Y[:, j])
        coef, intercept = scikit(X[has], Y[has, j], w[has], 3.0)
        assert_allclose(found.coef[j], coef, rtol=1e-9)
        assert_allclose(found.intercept[j], intercept, rtol=1e-9)


def test_out_of_fold_with_weights_equals_scikit_learn_on_the_folds_given(rows: Rows) -> None:
    X, Y, w = rows
    fold = np.repeat([7, 2, 5, -1], 20)  # any whole numbers will do
    found = out_of_fold(X, Y, fold, alpha=3.0, sample_weight=w)
    for number in np.unique(fold):
        for j in range(3):
            outside = (fold != number) & ~np.isnan(Y[:, j])
            coef, intercept = scikit(X[outside], Y[outside, j], w[outside], 3.0)
            assert_allclose(found.prediction[fold == number, j], X[fold == number] @ coef + intercept, rtol=1e-9)


def test_out_of_fold_chooses_its_penalty_by_the_weights(rows: Rows) -> None:
    X, Y, _ = rows
    whole = Y[:, 0] * 0 == 0
    X, y = X[whole], Y[whole, 0]
    noisy = np.arange(len(y)) % 2 == 1
    y = np.where(noisy, np.random.default_rng(0).normal(size=len(y)) * 100.0, y)
    fold = assign_folds(range(len(y)), 4)
    plain = out_of_fold(X, y, fold)
    weighted = out_of_fold(X, y, fold, sample_weight=np.where(noisy, 1e-6, 1.0))
    assert weighted.alpha.max() < plain.alpha.min()


def test_a_prior_of_weighted_rows_holds_the_sums_of_repeated_rows(rows: Rows) -> None:
    X, Y, w = rows
    times = np.rint(w).astype(int)
    weighted, repeated = Prior.of(X, Y, times), Prior.of(np.repeat(X, times, 0), np.repeat(Y, times, 0))
    assert_allclose(weighted.target_mean, repeated.target_mean, rtol=1e-12)
    for (columns, one), (same, other) in zip(weighted.parts, repeated.parts, strict=True):
        assert columns.tolist() == same.tolist()
        assert_allclose(one.gram, other.gram, rtol=1e-10, atol=1e-9)
        assert_allclose(one.cross, other.cross, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.full(80, -1.0), ">= 0; row 0"), (np.ones(3), "one entry per row"), ([np.nan] * 80, "finite; row 0")],
)
def test_unusable_weights_are_refused(rows: Rows, bad: np.ndarray, message: str) -> None:
    X, Y, _ = rows
    complete = np.nan_to_num(Y)
    for call in (
        lambda: fit_ridge(X, Y, bad),
        lambda: out_of_fold(X, Y, np.arange(80) % 2, sample_weight=bad),
        lambda: Prior.of(X, Y, bad),
        lambda: RidgeFitter(7, 3).update(X, complete, bad),
    ):
        with pytest.raises(DataError, match=message):
            call()
