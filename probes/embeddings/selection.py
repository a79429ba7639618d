"""Choose samples by predicted loss, for curation, quality control, labelling, and finding what has changed.

Pure functions of arrays. A *mask* is (n,) bool, True for a sample that is kept or flagged; *indices* are int64,
in the order in which the samples were chosen. No function uses a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probes._checks import Indices
from probes.errors import DataError, DimensionError

Mask = NDArray[np.bool_]
# 1.4826 median absolute deviations are one standard deviation of a normal distribution.
_MAD_TO_SD = 1.4826


def keep_between(loss: ArrayLike, *, drop_easiest: float = 0.0, drop_hardest: float = 0.0) -> Mask:
    """Keep all but the easiest and the hardest shares of the samples. Return (n,) booleans for losses (n,).

    The shares lie in [0, 1) and add up to less than 1. Exactly floor(share x n) samples are dropped at each end; of
    equal losses the earlier one counts as easier.
    """
    losses = _vector(loss, "loss")
    for name, share in (("drop_easiest", drop_easiest), ("drop_hardest", drop_hardest)):
        if not 0.0 <= share < 1.0:
            raise DataError(f"{name} must be a share in [0, 1), got {share}")
    if drop_easiest + drop_hardest >= 1.0:
        raise DataError(f"drop_easiest and drop_hardest must leave something, got {drop_easiest} and {drop_hardest}")
    order = np.argsort(losses, kind="stable")
    keep = np.ones(losses.size, dtype=bool)
    # The small addition undoes binary rounding: 0.29 x 100 is 28.999...
    keep[order[: int(drop_easiest * losses.size + 1e-9)]] = False
    keep[order[losses.size - int(drop_hardest * losses.size + 1e-9) :]] = False
    return keep


def stratified(loss: ArrayLike, n_select: int, *, strata: int = 10, seed: int = 0) -> Indices:
    """Divide the samples into `strata` classes of equal size by difficulty, and draw equally many from each.

    The indices of the easiest class come first.

    The classes cut the ranked losses (n,) into equal parts. If `n_select` does not divide evenly, the
    remainder goes to random classes; if a class has too few samples, others are drawn in their place.
    """
    losses = _vector(loss, "loss")
    _require_count(n_select, losses.size)
    if not 1 <= strata <= losses.size:
        raise DataError(f"strata must lie between 1 and the {losses.size} samples, got {strata}")
    rng = np.random.default_rng(seed)
    classes = np.array_split(np.argsort(losses, kind="stable"), strata)
    quota = np.full(strata, n_select // strata)
    quota[rng.permutation(strata)[: n_select % strata]] += 1
    chosen = [rng.permutation(members)[:wanted] for members, wanted in zip(classes, quota, strict=True)]
    picked = np.concatenate(chosen)
    rest = rng.permutation(np.setdiff1d(np.arange(losses.size), picked))
    return np.concatenate([picked, rest[: n_select - picked.size]]).astype(np.int64)


def suspicious(loss: ArrayLike, *, deviations: float | None = None, share: float | None = None) -> Mask:
    """Return (n,) booleans for losses (n,): True if the predicted loss is unusually high, as of a corrupt file.

    Give one of: `deviations`, robust standard deviations above the median (median absolute deviation x
    1.4826; 3.5 is customary), or `share`, the share of samples to flag.
    """
    losses = _vector(loss, "loss")
    if (deviations is None) == (share is None):
        raise DataError("give either deviations or share, and not both")
    if share is not None:
        if not 0.0 <= share < 1.0:
            raise DataError(f"share must be a share in [0, 1), got {share}")
        return ~keep_between(losses, drop_hardest=share)
    if deviations is None or not deviations > 0:
        raise DataError(f"deviations must be above 0, got {deviations}")
    return _robust_z(losses) > deviations


def _robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - np.median(values)
    spread = _MAD_TO_SD * float(np.median(np.abs(centred)))
    if spread == 0.0:
        raise DataError(
            "more than half of the values are the same: there is no usual spread to measure deviations by; "
            "choose by a share or a threshold of your own"
        )
    z: NDArray[np.float64] = centred / spread
    return z


def next_to_label(
    features: ArrayLike,
    n_select: int,
    *,
    gain: ArrayLike | None = None,
    labelled: ArrayLike | None = None,
    alpha: float = 1.0,
) -> Indices:
    """Return the `n_select` most informative samples for a ridge by D-optimal design, the best first.

    That is the theory. On real routing outcomes a probe learned less from such samples than from as many random ones
    (docs/label-selection.md). Use it if rare kinds of samples matter more than their share.

    It is greedy: each step takes the sample with the largest gain_i x log(1 + h_i), where h_i = z_i'(A + alpha
    I)^-1 z_i is its leverage given everything labelled *and chosen so far*, and log(1 + h_i) is the
    information its label adds to a ridge (D-optimal design). Because a chosen sample lowers the
    leverage of similar ones, the choice is diverse without a separate distance.

    features: (n, d), standardised here by their own mean and spread. gain: (n,) >= 0, what a better
    prediction for the sample is worth, for example the expected quality of the strong model minus the weak, or the
    predicted loss; all one by default. labelled: (l, d) features that have labels already. The cost is n d per
    chosen sample.
    """
    X = _matrix(features, "features")
    _require_count(n_select, len(X))
    if not alpha > 0:
        raise DataError(f"alpha must be above 0, got {alpha}")
    worth = np.ones(len(X)) if gain is None else _vector(gain, "gain", len(X))
    if (worth < 0).any():
        raise DataError(f"gain must be at least 0, got {worth.min()} for sample {int(np.argmin(worth))}")
    mean, scale = X.mean(axis=0), X.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    known = np.empty((0, X.shape[1])) if labelled is None else _matrix(labelled, "labelled", X.shape[1])
    known = (known - mean) / scale
    cholesky = np.linalg.cholesky(known.T @ known + alpha * np.eye(X.shape[1]))
    # In these coordinates the leverage of a sample is the square of its length.
    whitened = np.linalg.solve(cholesky, ((X - mean) / scale).T).T
    return _greedy(whitened, worth, n_select)


def _greedy(whitened: NDArray[np.float64], worth: NDArray[np.float64], n_select: int) -> Indices:
    leverage = np.einsum("ij,ij->i", whitened, whitened)
    # Directions of the inverse's rank-one corrections so far: inverse = I - sum of their outer products.
    corrections = np.empty((n_select, whitened.shape[1]))
    available = np.ones(len(whitened), dtype=bool)
    chosen = np.empty(n_select, dtype=np.int64)
    for step in range(n_select):
        best = int(np.argmax(np.where(available, worth * np.log1p(leverage), -np.inf)))
        chosen[step], available[best] = best, False
        z = whitened[best]
        reduced = z - corrections[:step].T @ (corrections[:step] @ z)
        # Sherman-Morrison: adding z z' takes u u' / (1 + h) from the inverse, u = inverse z.
        corrections[step] = reduced / np.sqrt(1.0 + leverage[best])
        leverage = np.maximum(leverage - (whitened @ corrections[step]) ** 2, 0.0)
    return chosen


@dataclass(frozen=True)
class Change:
    """Holds the change of predicted loss between two dates: `delta` (n,) = after - before, robust z, and flags."""

    delta: NDArray[np.float64]
    z: NDArray[np.float64]
    flagged: Mask


def change(before: ArrayLike, after: ArrayLike, *, deviations: float = 3.5, either_way: bool = False) -> Change:
    """Find samples whose predicted loss rose between two dates more than is usual, as after damage or drift.

    before, after: (n,) predicted losses of the same places, in the same order. A place is flagged if its
    delta lies more than `deviations` robust standard deviations above the median delta, so that a shift
    common to all (season, sensor, probe) is no change; `either_way` flags falls as well.
    """
    first = _vector(before, "before")
    delta = _vector(after, "after", first.size) - first
    if not deviations > 0:
        raise DataError(f"deviations must be above 0, got {deviations}")
    z = _robust_z(delta)
    return Change(delta, z, (np.abs(z) if either_way else z) > deviations)


def _vector(values: ArrayLike, name: str, length: int | None = None) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise DimensionError(f"{name} must have shape (n,), n at least 1, got {array.shape}")
    if length is not None and array.size != length:
        raise DimensionError(f"{name} must have one value for each of the {length} samples, got {array.size}")
    _require_finite(array, name)
    return array


def _matrix(values: ArrayLike, name: str, width: int | None = None) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not array.size or (width is not None and array.shape[1] != width):
        raise DimensionError(f"{name} must have shape (n, {'d' if width is None else width}), got {array.shape}")
    _require_finite(array, name)
    return array


def _require_finite(array: NDArray[Any], name: str) -> None:
    finite = np.isfinite(array) if array.ndim == 1 else np.isfinite(array).all(axis=1)
    if not finite.all():
        raise DataError(f"{name} must be finite, sample {int(np.argmin(finite))} holds NaN or infinity")


def _require_count(n_select: int, available: int) -> None:
    if not 1 <= n_select <= available:
        raise DataError(f"n_select must lie between 1 and the {available} samples there are, got {n_select}")
