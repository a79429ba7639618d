"""Statistics of a fit take rows in and give rows back exactly, also where targets miss rows."""

from __future__ import annotations

import numpy as np
import pytest

from probes.errors import DataError, DimensionError
from probes.regression.fit import fit_ridge
from probes.regression.prior import Prior

D, M = 6, 3


def rows(n: int, seed: int, missing: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, D)) * 3 + 5).astype(np.float32)
    Y = (rng.random((n, M)) < 0.3 + 0.1 * (X[:, :1] > 5)).astype(float)
    Y[rng.random(Y.shape) < missing] = np.nan
    Y[np.isnan(Y).all(axis=1), 0] = 1.0
    return X, Y


def require_equal(one: Prior, other: Prior) -> None:
    """Check that both hold the same sums for every target and for all rows, however the targets share parts."""

    def by_target(prior: Prior) -> list[tuple[np.ndarray, ...]]:
        found = {int(c): fitter.of_targets([k]) for columns, fitter in prior.parts for k, c in enumerate(columns)}
        fitters = [found[c] for c in range(M)] + [prior.everything.without_targets()]
        return [(f.mean, f.gram, f.cross, f.target_mean, f.target_scatter, np.array([f.n_rows])) for f in fitters]

    for mine, theirs in zip(by_target(one), by_target(other), strict=True):
        for a, b in zip(mine, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("missing", [(0.0, 0.0), (0.0, 0.4), (0.4, 0.0), (0.4, 0.4)])
def test_merging_is_a_fit_of_all_rows_and_removing_is_its_inverse(missing: tuple[float, float]) -> None:
    (X, Y), (new_x, new_y) = rows(80, 0, missing[0]), rows(30, 1, missing[1])
    old = Prior.of(X, Y)
    merged = old.merged(new_x, new_y)
    both = np.concatenate([X, new_x]), np.concatenate([Y, new_y])
    require_equal(merged, Prior.of(*both))
    assert merged.n_labels.tolist() == np.isfinite(both[1]).sum(axis=0).tolist()
    require_equal(merged.without(new_x, new_y), old)
    require_equal(
        merged.without(X[5:50], Y[5:50]),
        Prior.of(np.delete(both[0], np.s_[5:50], 0), np.delete(both[1], np.s_[5:50], 0)),
    )
    np.testing.assert_array_equal(old.everything.mean, Prior.of(X, Y).everything.mean)


def test_the_solution_is_that_of_a_fit_on_the_rows() -> None:
    X, Y = rows(90, 2, 0.3)
    expected = fit_ridge(X, Y, alphas=[3.0])
    found = Prior.of(X, Y).solve(3.0)
    np.testing.assert_allclose(found.coef, expected.coef, rtol=1e-9)
    np.testing.assert_allclose(found.probe.intercept, expected.probe.intercept, rtol=1e-6)
    assert found.criterion == "gcv"
    each = Prior.of(X, Y).solve([1.0, 3.0, 30.0])
    np.testing.assert_allclose(each.coef[1], expected.coef[1], rtol=1e-9)
    assert each.alpha.tolist() == [1.0, 3.0, 30.0]


def test_rows_of_no_target_that_a_part_has_change_only_the_others() -> None:
    X, Y = rows(40, 3)
    new_x, new_y = rows(10, 4)
    new_y[:, 1] = np.nan
    merged = Prior.of(X, Y).merged(new_x, new_y)
    assert merged.n_labels.tolist() == [50, 40, 50]
    require_equal(merged.without(new_x, new_y), Prior.of(X, Y))


def test_what_cannot_be_taken_in_or_out_is_refused() -> None:
    X, Y = rows(40, 5)
    prior = Prior.of(X, Y)
    with pytest.raises(DimensionError, match="3 targets"):
        prior.merged(X, Y[:, :2])
    with pytest.raises(DataError, match="must have been put in"):
        prior.without(X + 1000, Y)
    with pytest.raises(DataError, match="2 rows or more"):
        prior.without(X[1:], Y[1:])
