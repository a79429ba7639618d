"""Assign rows to folds by group, and predict every row from a fit on the other folds (cross-fitting)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from operator import add

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, vector
from probes.errors import DataError
from probes.regression.fit import missing_patterns, ridge_rows
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE, choose_alpha, penalty_grid
from probes.regression.spectrum import Spectrum

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """Holds predictions and leverages of n rows, each from a fit on the folds that the row is not in.

    prediction: (n, m) float64, also for missing targets. leverage: (n,) float64, of each row against the other folds.
    alpha: (k, m), the penalties used for each of the k folds left out.
    """

    prediction: Float64
    leverage: Float64
    alpha: Float64


def assign_folds(groups: Sequence[Hashable] | Array, n_folds: int = 5, seed: int = 0) -> IntArray:
    """Return a fold number in 0..n_folds-1 for each row; rows of one group (for example, of one text) share it.

    Groups are assigned one after another, the largest first, each to the fold with the fewest rows; so fold sizes
    differ by at most the size of one group. Groups of equal size are ordered by a hash of (seed, label). The result
    depends on the labels and the seed only, not on the order of rows, the process or the machine.

    Raises DataError if there are fewer groups than folds.
    """
    if n_folds < 2:
        raise DataError(f"n_folds must be >= 2; got {n_folds}. One fold leaves nothing to learn from.")
    labels = groups.tolist() if isinstance(groups, np.ndarray) else list(groups)
    sizes = Counter(labels)
    if len(sizes) < n_folds:
        raise DataError(
            f"there must be at least as many groups as folds; got {len(sizes)} groups for {n_folds} folds. "
            "Use fewer folds or a finer group."
        )
    load = [0] * n_folds
    home: dict[Hashable, int] = {}
    for label in sorted(sizes, key=lambda label: (-sizes[label], _digest(seed, label))):
        home[label] = load.index(min(load))
        load[home[label]] += sizes[label]
    return np.array([home[label] for label in labels], dtype=np.int64)


def out_of_fold(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    fold: npt.ArrayLike,
    *,
    alpha: npt.ArrayLike | None = None,
    alphas: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
) -> OutOfFold:
    """Predict every row of X (n, d) by a ridge on the other folds; NaN in Y (n, m) is a missing pair.

    fold: (n,) integers, from `assign_folds`. alpha: the penalty for all folds, one or (m,), such as
    `fit_ridge(...).alpha`. If it is None, each training set chooses per target from `alphas` by generalised
    cross-validation, so that the rows left out have no influence at all. sample_weight: (n,) as in `fit_ridge`.

    Raises DataError if a target has fewer than two rows outside some fold.
    """
    features, targets, w = ridge_rows(X, Y, sample_weight)
    folds = fold_numbers(fold, features.shape[0])
    grid = penalty_grid(alphas)
    numbers = np.unique(folds)
    prediction, leverage = np.empty(targets.shape), np.empty(features.shape[0])
    used = np.tile(_fixed_penalties(alpha, targets.shape[1]), (numbers.size, 1))
    for columns, present in missing_patterns(targets):
        # The training set of a fold is the sum of the other folds' statistics: one pass serves all k folds.
        parts = _statistics_by_fold(features, targets[:, columns], w, folds, present)
        for k, number in enumerate(numbers):
            fitter = reduce(add, [part for other, part in parts.items() if other != number])
            spectrum = _spectrum(fitter, columns)
            if alpha is None and columns.size:
                used[k, columns] = choose_alpha(grid, spectrum.gcv(grid), fitter.target_variance(), True)
            held_out = np.flatnonzero(folds == number)
            coef, intercept = spectrum.coefficients(used[k, columns])
            prediction[np.ix_(held_out, columns)] = features[held_out] @ coef.T + intercept
            if present.all():  # this is the last pattern, so every penalty is known
                of_others = spectrum.leverage(float(used[k].min()), LEVERAGE_TOLERANCE)
                leverage[held_out] = of_others.score(features[held_out])
    return OutOfFold(prediction, leverage, used)


def fold_errors(
    X: npt.ArrayLike,
    Y: npt.ArrayLike,
    fold: npt.ArrayLike,
    *,
    alphas: npt.ArrayLike | None = None,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[Float64, Float64]:
    """Return the penalties tried (A,), and the mean squared error (A, m) of rows left out by fold, for each of them.

    It is what a penalty is chosen by if rows of one group are alike, because leaving out single rows then chooses one
    that is far too small for a group never seen. The arguments and errors are those of `out_of_fold`.
    """
    features, targets, w = ridge_rows(X, Y, sample_weight)
    folds = fold_numbers(fold, features.shape[0])
    grid = penalty_grid(alphas)
    error, weight = np.zeros((grid.size, targets.shape[1])), np.zeros(targets.shape[1])
    for columns, present in missing_patterns(targets):
        if not columns.size:
            continue
        parts = _statistics_by_fold(features, targets[:, columns], w, folds, present)
        for number in parts:
            spectrum = _spectrum(reduce(add, [part for other, part in parts.items() if other != number]), columns)
            rows = np.flatnonzero((folds == number) & present)
            own = np.ones(rows.size) if w is None else w[rows]
            weight[columns] += own.sum()
            for index, alpha in enumerate(grid):
                coef, intercept = spectrum.coefficients(np.full(columns.size, alpha))
                left_out = targets[np.ix_(rows, columns)] - features[rows] @ coef.T - intercept
                error[index, columns] += own @ left_out**2
    return grid, error / weight


def _fixed_penalties(alpha: npt.ArrayLike | None, n_targets: int) -> Float64:
    """Return the penalties asked for, one per target; ones if alpha is None, which each fold's choice then replaces."""
    fixed = penalty_grid([1.0] if alpha is None else alpha)
    if fixed.shape[0] not in (1, n_targets):
        raise DataError(f"alpha must be one penalty, or one per target ({n_targets}); got {fixed.shape[0]}.")
    return np.broadcast_to(fixed, n_targets)


def fold_numbers(fold: npt.ArrayLike, n_rows: int) -> IntArray:
    """Return `fold` as integers (n_rows,); raise DataError unless they are whole numbers, at least two different."""
    values = vector("fold", fold, n_rows)
    numbers = values.astype(np.int64)
    if (numbers != values).any():
        raise DataError("fold must hold whole numbers. Use assign_folds().")
    if np.unique(numbers).size < 2:
        raise DataError("fold must hold at least two different numbers: with one, nothing is left to learn.")
    return numbers


def _digest(seed: int, label: Hashable) -> bytes:
    return blake2b(f"{seed}\0{type(label).__name__}\0{label}".encode(errors="surrogatepass")).digest()


def _statistics_by_fold(
    X: Array, Y: Array, w: Float64 | None, folds: IntArray, present: Array
) -> dict[int, RidgeFitter]:
    parts = {}
    for number in np.unique(folds):
        rows = np.flatnonzero((folds == number) & present)
        part = RidgeFitter(X.shape[1], Y.shape[1])
        parts[int(number)] = part.update(X[rows], Y[rows], None if w is None else w[rows])
    return parts


def _spectrum(fitter: RidgeFitter, columns: Array) -> Spectrum:
    if fitter.n_rows < 2:
        raise DataError(
            f"every target needs at least 2 rows outside each fold; target(s) {columns.tolist()} have "
            f"{fitter.n_rows}. Use more labels or other folds."
        )
    return fitter.spectrum()
