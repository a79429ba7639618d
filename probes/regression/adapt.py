"""Fit a ridge on few labels of a new task, with the statistics of an old fit as its prior.

Old rows A, a and new rows Z, y, each centred by its own mean and scaled by the old standard deviations:

    minimise |y - Z b|^2 + w |a - A b|^2 + alpha |b|^2,   so   (Z'Z + w A'A + alpha I) b = Z'y + w A'a

An old label counts w times a new one: w = 0 uses the new labels alone, w = 1 pools both data sets. The means (what a
model loses on average) are always those of the new task. alpha remains what the old fit chose, because a penalty is a
ratio of noise to signal and does not depend on the number of rows. A feature that did not vary in the old data is
ignored.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, refuse_non_finite, vector
from probes.errors import DataError, DimensionError
from probes.grouping import group_numbers
from probes.regression.fit import missing_patterns, target_matrix
from probes.regression.linear import LinearProbe
from probes.regression.prior import Columns, Prior
from probes.regression.solution import penalty_grid
from probes.regression.spectrum import Spectrum

WEIGHTS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
"""The weights tried for one old label, in labels of the new task."""

USUAL_WEIGHT = 0.1
"""The weight kept unless the new labels speak against it (docs/decisions/0002-features.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class Adaptation:
    """Holds the result of fitting m targets on n new rows with a prior, after trying W weights for it.

    probe: the fitted probe. weight: the one chosen. left_out: (n, m) float64, the exact prediction for each row by the
    fit without that row's group, at this weight; also for missing targets. errors, standard_errors: (W,), the mean
    squared left-out error in units of the targets' variance, and its standard error over groups.
    """

    probe: LinearProbe
    weight: float
    left_out: Float64
    errors: Float64
    standard_errors: Float64


def adapt(
    prior: Prior,
    alpha: npt.ArrayLike,
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    groups: Sequence[Hashable] | Array | None = None,
    *,
    weights: Sequence[float] = WEIGHTS,
) -> Adaptation:
    """Fit new rows X (n, d) and targets Y (n, m), NaN for a missing pair, on top of `prior`.

    alpha: the old fit's penalty, one or (m,). groups: (n,) labels; rows of one group (for example, of one text) are
    left out together; None leaves out row by row. weights: those to try; one is chosen for all targets. The cost is
    one eigendecomposition of the old statistics, and one of a square matrix of min(n, d) rows per weight, for each
    pattern of missing pairs.

    Raises DimensionError if the number of features or targets is not the prior's. Raises DataError for a target with
    fewer than two rows or groups, for NaN or infinity among the features, and for penalties or weights out of range.
    """
    features = matrix("X", X, prior.n_features)
    refuse_non_finite("X", features)
    targets = target_matrix(Y, features.shape[0])
    if targets.shape[1] != prior.n_targets:
        raise DimensionError(f"Y must have the prior's {prior.n_targets} targets; got {targets.shape[1]}.")
    penalty = _penalties(alpha, prior.n_targets)
    grid = vector("weights", np.asarray(weights, dtype=np.float64))
    if not grid.size or grid.min() < 0.0:
        raise DataError(f"weights must hold at least one number, each >= 0; got {grid.tolist()}.")
    numbers = rows_left_out_together(groups, features.shape[0])
    fits = _fits(prior, penalty, features, targets, numbers, grid)
    errors, standard_errors = _left_out_errors(fits.left_out, targets, numbers)
    best = choose_weight(grid, errors, standard_errors)
    coef = fits.coef[best].astype(np.float32)
    intercept = fits.target_mean - np.einsum("md,md->m", coef.astype(np.float64), fits.mean)
    probe = LinearProbe(coef, intercept.astype(np.float32), penalty)
    return Adaptation(probe, float(grid[best]), fits.left_out[best], errors, standard_errors)


def choose_weight(weights: Float64, errors: Float64, standard_errors: Float64) -> int:
    """Return the index of the weight nearest to `USUAL_WEIGHT` on a log scale among those as good as the best.

    A weight is as good if its error is within one standard error of the least error (Breiman et al. 1984). To take the
    best itself is too noisy with 50 or 100 labels: the result is then worse than the transferred probe.
    """
    best = int(np.argmin(errors))
    good = np.flatnonzero(errors <= errors[best] + standard_errors[best])
    with np.errstate(divide="ignore"):  # a weight of 0 is infinitely far
        away = np.abs(np.log(weights[good] / USUAL_WEIGHT))
    return int(good[np.argmin(away)])


@dataclass(frozen=True, slots=True, eq=False)
class _Fits:
    """Holds the fits for all weights: coef (W, m, d), left_out (W, n, m); mean (m, d), target_mean (m,)."""

    coef: Float64
    left_out: Float64
    mean: Float64
    target_mean: Float64


def _fits(prior: Prior, penalty: Float64, X: Array, Y: Array, groups: Array, weights: Float64) -> _Fits:
    (n, d), m, tried = X.shape, Y.shape[1], weights.size
    fits = _Fits(np.zeros((tried, m, d)), np.empty((tried, n, m)), np.empty((m, d)), np.empty(m))
    for columns, spectrum, alpha, present in _patterns(prior, penalty, Y):
        rows = np.flatnonzero(present)
        if np.unique(groups[rows]).size < 2:
            raise DataError(
                f"every target needs new rows of at least 2 groups; target(s) {columns.tolist()} have "
                f"{rows.size} row(s). Add labels."
            )
        scaled_basis = spectrum.basis * spectrum.inverse_scale[spectrum.active, None]
        mean, target_mean = X[rows].mean(axis=0, dtype=np.float64), Y[np.ix_(rows, columns)].mean(axis=0)
        Q = (X[:, spectrum.active] - mean[spectrum.active]) @ scaled_basis
        fits.mean[columns], fits.target_mean[columns] = mean, target_mean
        known = Y[np.ix_(rows, columns)]
        for weight, coef, left_out in zip(weights, fits.coef, fits.left_out, strict=True):
            precision = weight * spectrum.eigenvalues + alpha
            expected = weight * spectrum.projected / precision[:, None]
            b, residual = ridge_on_prior(Q[rows], known - target_mean, precision, expected, groups[rows])
            coef[np.ix_(columns, spectrum.active)] = (scaled_basis @ b).T
            left_out[:, columns] = target_mean + Q @ b
            left_out[np.ix_(rows, columns)] = known - residual
    return fits


def _patterns(prior: Prior, penalty: Float64, Y: Array) -> Iterator[tuple[Columns, Spectrum, float, Array]]:
    """Yield (columns, old statistics, alpha, present (n,)) for each set of targets that share all three."""
    for own, spectrum in prior.spectra:
        for alpha in np.unique(penalty[own]):
            same = np.flatnonzero(penalty[own] == alpha)
            for within, present in missing_patterns(Y[:, own[same]]):
                chosen = same[within]
                if chosen.size:
                    yield own[chosen], spectrum.of_targets(chosen), float(alpha), present


def ridge_on_prior(
    Q: Float64, y: Float64, precision: Float64, expected: Float64, groups: Array
) -> tuple[Float64, Float64]:
    """Return b (p, m) for the columns of Q, and the residual (n, m) of each row fitted without its group.

    Q: (n, p) centred new rows. y: (n, m) centred targets. precision: (p,) > 0 of the prior in units of the noise, in
    `adapt` w l + alpha for the columns of the old eigenbasis. expected: (p, m) the coefficients of the prior alone.
    groups: (n,) numbers of the groups. The residual of the fit is M (y - Q expected) with M = I - V V' and V from
    `_smoother`. The mean is fitted too, so the residuals of rows g left out together are
    (M_gg - 1/n)^-1 (fitted residuals)_g.
    """
    U = Q / np.sqrt(precision)
    V = _smoother(U)
    unexplained = y - Q @ expected
    fitted = unexplained - V @ (V.T @ unexplained)
    b = expected + (U.T @ fitted) / np.sqrt(precision)[:, None]
    alone = 1.0 - np.einsum("ij,ij->i", V, V) - 1.0 / y.shape[0]
    left_out = fitted / np.maximum(alone, np.finfo(np.float64).eps)[:, None]
    for rows in _repeated(groups):
        block = np.eye(rows.size) - V[rows] @ V[rows].T - 1.0 / y.shape[0]
        left_out[rows] = np.linalg.solve(block, fitted[rows])
    return b, left_out


def _smoother(U: Float64) -> Float64:
    """Return V (n, min(n, p)) with V V' = U (U'U + I)^-1 U', from the smaller of the two Gram matrices."""
    n, p = U.shape
    if n > p:
        return np.ascontiguousarray(np.linalg.solve(np.linalg.cholesky(U.T @ U + np.eye(p)), U.T).T)
    values, vectors = np.linalg.eigh(U @ U.T)
    values = np.maximum(values, 0.0)
    return np.asarray(vectors * np.sqrt(values / (values + 1.0)))


def _left_out_errors(left_out: Float64, Y: Array, groups: Array) -> tuple[Float64, Float64]:
    """Return (errors, standard_errors) of `Adaptation`; a target that does not vary is left out of them."""
    known = ~np.isnan(Y)
    variance = np.nanvar(Y, axis=0)
    per_row = np.divide(1.0, variance * known.sum(axis=0), out=np.zeros_like(variance), where=variance > 0)
    shares = np.where(known, (left_out - Y) ** 2 * (per_row / Y.shape[1]), 0.0).sum(axis=2)
    by_group = np.stack([np.bincount(groups, weights=one) for one in shares])
    return by_group.sum(axis=1), np.sqrt(by_group.shape[1]) * by_group.std(axis=1, ddof=1)


def _penalties(alpha: npt.ArrayLike, n_targets: int) -> Float64:
    given = penalty_grid(alpha)
    if given.shape[0] not in (1, n_targets):
        raise DataError(f"alpha must be one penalty, or one per target ({n_targets}); got {given.shape[0]}.")
    return np.broadcast_to(given, n_targets).copy()


def rows_left_out_together(groups: Sequence[Hashable] | Array | None, n_rows: int) -> npt.NDArray[np.int64]:
    """Return a group number 0, 1, ... for each row, (n,); None makes each row one. Raise DataError for another n."""
    labels = range(n_rows) if groups is None else groups.tolist() if isinstance(groups, np.ndarray) else groups
    if len(labels) != n_rows:
        raise DataError(f"groups must have one label for each of {n_rows} rows; got {len(labels)}.")
    return group_numbers(labels)


def _repeated(groups: Array) -> Iterator[Array]:
    """Yield the row numbers of each group that has more than one row."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    yield from (rows for rows in np.split(order, starts) if rows.size > 1)
