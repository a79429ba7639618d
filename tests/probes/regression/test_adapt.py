"""Adapting to a new task: both ends of the weight are known fits, leaving out is exact, few labels are enough."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from probes.errors import DataError, DimensionError
from probes.regression.adapt import USUAL_WEIGHT, WEIGHTS, adapt, choose_weight
from probes.regression.prior import Prior
from probes.regression.ridge import RidgeFitter

D = 6
ALPHA = 3.0


def make_rows(n: int, seed: int, slope: float = 1.0, level: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, 6) of unequal scales, and two targets along the first two of them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, D)) * np.arange(1, D + 1) + level
    signal = slope * (X[:, :2] - level) / np.arange(1, 3)
    return X, level + signal + rng.standard_normal((n, 2))


def slow_fit(
    old: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, np.ndarray], weight: float
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (m, d) and intercept (m,) by least squares on augmented rows, each data set about its own mean."""
    scale = old[0].std(axis=0)
    A, Z = ((part[0] - part[0].mean(axis=0)) / scale for part in (old, new))
    a, y = (part[1] - part[1].mean(axis=0) for part in (old, new))
    rows = np.vstack([Z, np.sqrt(weight) * A, np.sqrt(ALPHA) * np.eye(D)])
    targets = np.vstack([y, np.sqrt(weight) * a, np.zeros((D, 2))])
    coef = np.linalg.lstsq(rows, targets, rcond=None)[0].T / scale
    return coef, new[1].mean(axis=0) - coef @ new[0].mean(axis=0)


@pytest.mark.parametrize("weight", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("n", [4, 40])
def test_it_is_weighted_least_squares_with_more_and_with_fewer_rows_than_features(n: int, weight: float) -> None:
    old, new = make_rows(200, 0), make_rows(n, 1, level=2.0)
    found = adapt(Prior.of(*old), ALPHA, *new, weights=[weight])
    coef, intercept = slow_fit(old, new, weight)
    assert_allclose(found.probe.coef, coef, rtol=1e-4, atol=1e-6)
    assert_allclose(found.probe.intercept, intercept, rtol=1e-4, atol=1e-5)


def test_no_weight_is_the_new_labels_alone() -> None:
    (X, Y), new = make_rows(300, 0), make_rows(40, 1, level=2.0)
    # Of equal scale, as a fit alone would standardise by its own deviations.
    scale = X.std(axis=0) / new[0].std(axis=0)
    found = adapt(Prior.of(X, Y), ALPHA, new[0] * scale, new[1], weights=[0.0])
    alone = RidgeFitter(D, 2).update(new[0] * scale * (X.std(axis=0) ** -1), new[1])
    solved = alone.solve([ALPHA], standardize=False)
    assert_allclose(found.probe.coef, solved.coef / X.std(axis=0), rtol=1e-5)


def test_full_weight_and_equal_means_are_the_fit_of_both_data_sets() -> None:
    old, new = make_rows(300, 0), make_rows(50, 1)
    new = (new[0] + (old[0].mean(axis=0) - new[0].mean(axis=0)), new[1] + (old[1].mean(axis=0) - new[1].mean(axis=0)))
    found = adapt(Prior.of(*old), ALPHA, *new, weights=[1.0])
    scale = old[0].std(axis=0)
    pooled = RidgeFitter(D, 2).update(old[0] / scale, old[1]).update(new[0] / scale, new[1])
    solved = pooled.solve([ALPHA], standardize=False)
    assert_allclose(found.probe.coef, solved.coef / scale, rtol=1e-5)
    assert_allclose(found.probe.intercept, solved.intercept, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3])
@pytest.mark.parametrize("n", [5, 12])
def test_leaving_out_is_exact_row_by_row_and_text_by_text(n: int, weight: float) -> None:
    prior, (X, Y) = Prior.of(*make_rows(100, 0)), make_rows(n, 1)
    groups = np.array([0, 0, 1, 2, 1, *range(3, n - 2)])
    for labels in (None, groups.tolist(), groups):
        numbers = np.arange(n) if labels is None else groups
        found = adapt(prior, ALPHA, X, Y, labels, weights=[weight])
        for group in np.unique(numbers):
            rest = adapt(prior, ALPHA, X[numbers != group], Y[numbers != group], weights=[weight])
            expected = X[numbers == group] @ rest.probe.coef.T + rest.probe.intercept
            assert_allclose(found.left_out[numbers == group], expected, rtol=1e-3, atol=1e-4)


def test_targets_with_gaps_in_old_and_new_data_are_fitted_as_if_each_were_alone() -> None:
    (A, a), (X, Y) = make_rows(120, 0), make_rows(30, 1)
    a[:20, 0], Y[::3, 1] = np.nan, np.nan
    found = adapt(Prior.of(A, a), [ALPHA, 2 * ALPHA], X, Y, weights=[0.3])
    for j, alpha in enumerate((ALPHA, 2 * ALPHA)):
        was, has = ~np.isnan(a[:, j]), ~np.isnan(Y[:, j])
        alone = adapt(Prior.of(A[was], a[was, j]), alpha, X[has], Y[has, j], weights=[0.3])
        assert_allclose(found.probe.coef[j], alone.probe.coef[0], rtol=1e-6)
        assert_allclose(found.left_out[has, j], alone.left_out[:, 0], rtol=1e-9)
    assert_allclose(found.left_out[::3, 1], X[::3] @ found.probe.coef[1] + found.probe.intercept[1], rtol=1e-5)


def test_the_errors_are_those_of_the_rows_left_out_and_their_spread_over_groups() -> None:
    prior, (X, Y) = Prior.of(*make_rows(100, 0)), make_rows(30, 1)
    found = adapt(prior, ALPHA, X, Y)
    place = list(WEIGHTS).index(found.weight)
    relative = ((found.left_out - Y) ** 2 / Y.var(axis=0)).mean(axis=1)
    assert_allclose(found.errors[place], relative.mean())
    assert_allclose(found.standard_errors[place], relative.std(ddof=1) / np.sqrt(30))


def test_the_usual_weight_is_left_only_for_one_clearly_better() -> None:
    weights, even = np.array(WEIGHTS), np.full(len(WEIGHTS), 0.1)
    assert weights[choose_weight(weights, 1.0 - 0.01 * np.arange(len(weights)), even)] == USUAL_WEIGHT
    only_none = np.where(weights == 0.0, 1.0, 1.2)
    assert weights[choose_weight(weights, only_none, even)] == 0.0
    small = np.where(weights <= 0.03, 1.0, 1.2)
    assert weights[choose_weight(weights, small, even)] == 0.03


def test_twenty_labels_on_a_good_prior_beat_twenty_labels_alone_and_a_bad_prior_is_given_up() -> None:
    old, test = make_rows(500, 0), make_rows(2000, 9, level=1.0)

    def error(prior_rows: tuple[np.ndarray, np.ndarray], n: int, weights: tuple[float, ...] = WEIGHTS) -> float:
        found = adapt(Prior.of(*prior_rows), ALPHA, *make_rows(n, 1, level=1.0), weights=weights)
        return float(((test[0] @ found.probe.coef.T + found.probe.intercept - test[1]) ** 2).mean())

    assert error(old, 20) < error(old, 20, (0.0,))
    backwards = make_rows(500, 0, slope=-3.0)
    assert adapt(Prior.of(*backwards), ALPHA, *make_rows(100, 1, level=1.0)).weight <= 0.01
    assert error(backwards, 100) < 1.1 * error(old, 100)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"X": np.zeros((30, D + 1))}, DimensionError, "features"),
        ({"Y": np.zeros((30, 3))}, DimensionError, "prior's 2 targets; got 3"),
        ({"X": np.full((30, D), np.nan)}, DataError, "X must be finite"),
        ({"Y": np.full((30, 2), np.inf)}, DataError, "Y must be finite"),
        ({"alpha": 0.0}, DataError, "alphas"),
        ({"alpha": [1.0, 2.0, 3.0]}, DataError, "one per target"),
        ({"weights": [-1.0]}, DataError, "each >= 0"),
        ({"weights": []}, DataError, "at least one number"),
        ({"groups": [1, 2]}, DataError, "one label for each of 30 rows; got 2"),
        ({"groups": [7] * 30}, DataError, "at least 2 groups"),
        ({"Y": np.column_stack([np.zeros(30), [1.0] + [np.nan] * 29])}, DataError, "at least 2 groups"),
    ],
)
def test_what_cannot_be_adapted_to_is_refused(change: dict[str, object], error: type[Exception], message: str) -> None:
    X, Y = make_rows(30, 1)
    with pytest.raises(error, match=message):
        adapt(Prior.of(*make_rows(100, 0)), **({"alpha": ALPHA, "X": X, "Y": Y} | change))  # type: ignore[arg-type]


def test_a_prior_comes_back_from_its_tensors_to_the_last_bit() -> None:
    X, Y = make_rows(50, 0)
    Y[:10, 1] = np.nan
    prior = Prior.of(X, Y)
    again = Prior.from_tensors(prior.tensors())
    assert (again.n_features, again.n_targets, again.everything.n_rows) == (D, 2, 50)
    for name, array in prior.tensors().items():
        assert_array_equal(again.tensors()[name], array)
    assert_array_equal(again.everything.gram, prior.everything.gram)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("0.gram"), "must hold"),
        (lambda t: t.update({"0.extra": np.zeros(1)}), "must hold"),
        (lambda t: t.update({"2.columns": np.zeros(1, np.int64)}), "numbered from 0"),
        (lambda t: t.update({"0.columns": np.zeros(2)}), "vector of int64"),
        (lambda t: t.update({"0.columns": np.array([0, 0])}), "each target once"),
        (lambda t: t.update({"0.columns": np.array([0])}), "each target once|as many targets"),
        (lambda t: t["0.gram"].__setitem__(0, np.nan), "gram of saved statistics must be finite"),
        (lambda t: t["0.gram"].fill(-1.0), "negative variance"),
        (lambda t: t.update({"0.mean": np.zeros(2)}), "mean of saved statistics"),
        (lambda t: t["0.counts"].__setitem__(2, 1.0), "from 2 rows or more"),
        (lambda t: t["0.counts"].__setitem__(2, 1.5), "four finite numbers"),
        # Sizes that would be allocated before anything else is compared.
        (lambda t: t["0.counts"].__setitem__(0, 1e9), "must be of 1000000000 features"),
        (lambda t: t["0.counts"].__setitem__(1, 1e12), "and 1000000000000 targets"),
        (lambda t: t.clear(), "each target once"),
    ],
)
def test_forged_statistics_are_refused(change: object, message: str) -> None:
    tensors = {name: array.copy() for name, array in Prior.of(*make_rows(50, 0)).tensors().items()}
    change(tensors)  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        Prior.from_tensors(tensors)
