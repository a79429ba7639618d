"""A new model by the difficulty that others share: exact left-out predictions, and what is chosen for which labels."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError, DimensionError
from probes.regression.linear import LinearProbe
from probes.regression.shared import NO_RIDGE, SLOPE_DEVIATION, USUAL_FACTOR, WAYS, fit_by_shared

D = 40
ONES = np.ones(D)


ALPHA = 300.0


def old_probe(alpha: float = ALPHA, seed: int = 0) -> LinearProbe:
    """Return a probe of three models whose losses follow one direction, each with a slope of its own."""
    direction = np.random.default_rng(seed).normal(size=D) / D**0.5
    coef = np.outer([0.6, 1.0, 1.4], direction) * 0.25
    return LinearProbe(coef.astype(np.float32), np.array([0.3, 0.5, 0.6], np.float32), np.full(3, alpha))


def drawn(n: int, slope: float, own: float = 0.0, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, labels 0 and 1, and the true losses of a model with this slope and a direction of its own."""
    rng, probe = np.random.default_rng(seed), old_probe()
    X = rng.normal(size=(n, D)).astype(np.float32)
    other = np.random.default_rng(99).normal(size=D) / D**0.5
    truth = np.clip(0.5 + slope * (probe.predict(X).mean(axis=1) - 0.467) + own * (X @ other), 0.02, 0.98)
    return X, (rng.random(n) < truth).astype(float), truth


SHARED = old_probe().coef.astype(float).mean(axis=0)


def design(X: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the shared difficulty and the features, centred by the rows inside, (n, 1 + D)."""
    centred = X.astype(float) - X[inside].astype(float).mean(axis=0)
    return np.column_stack([centred @ SHARED, centred])


def posterior(Z: np.ndarray, y: np.ndarray, penalty: float, noise: float | None = None) -> np.ndarray:
    """Return the coefficients of least penalised squares around a slope of 1, by the normal equations."""
    noise = float(np.var([*y, 0.0, 1.0])) if noise is None else noise
    precision = np.array([noise / SLOPE_DEVIATION**2, *[penalty] * D])
    expected = np.array([1.0, *[0.0] * D])
    return np.linalg.solve(Z.T @ Z + np.diag(precision), Z.T @ (y - y.mean()) + precision * expected)


def test_few_labels_give_the_slope_of_the_others_and_not_a_noisy_one() -> None:
    fits = [fit_by_shared(old_probe(), ONES, *drawn(20, 1.0, seed=seed)[:2]) for seed in range(20)]
    usual = [one for one in fits if (one.way, one.penalty) == ("shared and own", USUAL_FACTOR * ALPHA)]
    assert len(usual) >= 16
    for found in usual:
        assert found.slope == pytest.approx(1.0, abs=0.7)
        shared = old_probe().coef.mean(axis=0)
        assert np.corrcoef(found.probe.coef[0], shared)[0, 1] > 0.95


def test_the_fit_is_the_posterior_mean_of_a_normal_model() -> None:
    X, y, _ = drawn(30, 0.8, own=0.3)
    found = fit_by_shared(old_probe(), ONES, X, y)
    assert found.way == "shared and own"
    Z = design(X, np.ones(30, dtype=bool))
    b = posterior(Z, y, found.penalty)
    assert found.slope == pytest.approx(b[0])
    np.testing.assert_allclose(found.probe.coef[0], b[0] * SHARED + b[1:], atol=1e-6)
    assert float(found.probe.predict(X).mean()) == pytest.approx(y.mean(), abs=1e-6)


def test_many_labels_give_the_models_own_slope() -> None:
    X, y, _ = drawn(4000, 0.2)
    coef = fit_by_shared(old_probe(), ONES, X, y).probe.coef[0].astype(float)
    assert coef @ SHARED / (SHARED @ SHARED) == pytest.approx(0.2, abs=0.15)


def test_a_ridge_of_its_own_comes_in_as_the_labels_allow() -> None:
    X, _, truth = drawn(2000, 1.0, own=0.3, seed=7)
    error = {}
    for n in (15, 2000):
        found = fit_by_shared(old_probe(), ONES, *drawn(n, 1.0, own=0.3)[:2])
        assert found.way == "shared and own"
        error[n] = float(((found.probe.predict(X)[:, 0] - truth) ** 2).mean())
        shared = X @ SHARED
        error["shared"] = float(((shared - shared.mean() + truth.mean() - truth) ** 2).mean())
    assert error[2000] < 0.5 * error["shared"]
    assert error[15] < 2.0 * error["shared"]


def test_a_model_unlike_the_others_gets_its_own_ridge_or_its_mean() -> None:
    X, y, _ = drawn(3000, -1.0, own=0.4)
    opposite = fit_by_shared(old_probe(), ONES, X, y)
    assert opposite.errors[opposite.way] <= min(opposite.errors["shared"], opposite.errors["own"]) + 1e-3
    perfect = fit_by_shared(old_probe(), ONES, X[:50], np.zeros(50))
    assert (perfect.way, perfect.slope, perfect.penalty) == ("mean", 0.0, NO_RIDGE)
    assert not perfect.probe.coef.any()
    assert set(perfect.errors) == set(WAYS)


def test_left_out_predictions_are_those_of_fits_without_the_group() -> None:
    X, y, _ = drawn(60, 1.0, own=0.3)
    groups = np.arange(60) // 2
    found = fit_by_shared(old_probe(), ONES, X, y, groups)
    assert found.way == "shared and own"
    for group in (0, 7):
        rest = groups != group
        Z = design(X, rest)
        b = posterior(Z[rest], y[rest], found.penalty, noise=np.var([*y, 0.0, 1.0]))
        np.testing.assert_allclose(found.left_out[~rest], y[rest].mean() + Z[~rest] @ b, atol=1e-9)


def test_a_feature_that_never_varied_is_ignored() -> None:
    X, y, _ = drawn(2000, 1.0, own=0.3)
    scale = ONES.copy()
    scale[3] = 0.0
    blind = LinearProbe(np.where(np.arange(D) == 3, 0.0, old_probe().coef), old_probe().intercept, np.full(3, 300.0))
    found = fit_by_shared(blind, scale, X, y)
    assert found.way == "shared and own"
    assert found.probe.coef[0, 3] == 0.0


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"X": np.full((4, D), np.nan)}, DataError, "finite|NaN"),
        ({"y": np.array([0.0, 1.0, np.nan, 0.0])}, DataError, "y"),
        ({"y": np.array([0.0, 1.0, 7.0, 0.0])}, DataError, "y"),
        ({"y": np.zeros(3)}, DataError, "y"),
        ({"X": np.zeros((4, D + 1))}, DimensionError, "columns"),
        ({"groups": [1, 1, 1, 1]}, DataError, "2 groups"),
        ({"groups": [1, 2]}, DataError, "groups"),
    ],
)
def test_wrong_input_is_refused(change: dict[str, object], error: type[Exception], said: str) -> None:
    X, y, _ = drawn(4, 1.0)
    values: dict[str, object] = {"X": X, "y": y, "groups": None} | change
    with pytest.raises(error, match=said):
        fit_by_shared(old_probe(), ONES, **values)  # type: ignore[arg-type]
