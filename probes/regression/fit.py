"""Fit every target in one call (`fit_ridge`), even if some (row, target) pairs are missing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, refuse_non_finite, weights
from probes.errors import DataError
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE, RidgeSolution, assemble, choose_alpha, penalty_grid
from probes.regression.spectrum import Batch, Spectrum


def fit_ridge(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
    *,
    alphas: npt.ArrayLike | None = None,
    per_target: bool = False,
    leverage_tolerance: float = LEVERAGE_TOLERANCE,
) -> RidgeSolution:
    """Fit every target on X (n, d), choosing the penalty by exact leave-one-out; NaN in Y (n, m) is a missing pair.

    Each target uses every row that has it. Targets that miss the same rows share one eigendecomposition, so there are
    at most m + 1 of them. A shared penalty minimises the mean error over all targets. The leverage is that of all
    rows, with or without targets. The other arguments and errors are those of `RidgeFitter.solve`; a target with fewer
    than two rows is a DataError too.
    """
    features, targets, w = ridge_rows(X, Y, sample_weight)
    grid = penalty_grid(alphas)
    loo_mse = np.empty((grid.shape[0], targets.shape[1]))
    variance = np.empty(targets.shape[1])
    parts: list[tuple[Array, Spectrum]] = []
    for columns, present in missing_patterns(targets):
        fitter, batch = _statistics(features, targets, w, columns, present)
        spectrum = fitter.spectrum()
        if columns.size:
            loo_mse[:, columns] = spectrum.leave_one_out(grid, [batch])
            variance[columns] = fitter.target_variance()
        parts.append((columns, spectrum))
    alpha = choose_alpha(grid, loo_mse, variance, per_target)
    return assemble(grid, loo_mse, "loo", alpha, parts, leverage_tolerance)


def ridge_rows(
    X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Array, Array, Float64 | None]:
    """Return features (n, d), targets (n, m) and weights (n,) or None; raise DataError if one of them is none."""
    features = matrix("X", X)
    n_rows = features.shape[0]
    return features, target_matrix(Y, n_rows), weights(sample_weight, n_rows)


def target_matrix(Y: npt.ArrayLike, n_rows: int) -> Array:
    """Return Y as a matrix (n_rows, m >= 1). NaN marks a missing pair; infinity raises DataError."""
    targets = np.asarray(Y)
    targets = matrix("Y", targets[:, None] if targets.ndim == 1 else targets)
    if targets.shape[0] != n_rows or targets.shape[1] < 1:
        raise DataError(f"Y must be (n, m) with n = {n_rows} rows, as X has, and m >= 1; got {targets.shape}.")
    refuse_non_finite("Y", np.where(np.isnan(targets), 0.0, targets))
    return targets


def missing_patterns(Y: Array) -> list[tuple[Array, Array]]:
    """Group the targets of Y (n, m) by the rows that have them: return (columns, present (n,) booleans) pairs.

    The last pair is always that of all rows; it has no columns if every target misses some row.
    """
    missing = np.isnan(Y)
    groups: dict[bytes, list[int]] = {}
    for column in range(Y.shape[1]):
        groups.setdefault(np.packbits(missing[:, column]).tobytes(), []).append(column)
    complete = groups.pop(np.packbits(np.zeros(Y.shape[0], dtype=bool)).tobytes(), [])
    pairs = [(np.array(columns), ~missing[:, columns[0]]) for columns in groups.values()]
    return [*pairs, (np.array(complete, dtype=np.int64), np.ones(Y.shape[0], dtype=bool))]


def _statistics(X: Array, Y: Array, w: Float64 | None, columns: Array, present: Array) -> tuple[RidgeFitter, Batch]:
    """Return the statistics of the rows that have these targets, and those rows."""
    if not present.all():
        X, Y, w = X[present], Y[present], None if w is None else w[present]
    if X.shape[0] < 2:
        raise DataError(
            f"every target needs at least 2 rows; target(s) {columns.tolist()} have {X.shape[0]}. Drop them."
        )
    batch = (X, Y[:, columns], w)
    return RidgeFitter(X.shape[1], len(columns)).update(*batch), batch
