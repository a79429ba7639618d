"""Learn kinds of request from rows of features with names of kinds (`fit_kinds`)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.linalg import cholesky, inv, svd

from probes._checks import Array, Float64, Indices, matrix, refuse_non_finite
from probes.errors import DataError
from probes.grouping import rows_by_label
from probes.kinds.known_kinds import MAX_KINDS, KnownKinds, kind_name_fault, posterior_shares
from probes.regression.crossfit import assign_folds

#: A kind of fewer rows has no mean worth the name, and of more rows these are used, spread evenly.
MIN_ROWS, MAX_ROWS = 10, 200

#: The share of left-out rows of known kinds that count as being of a known kind.
KNOWN_QUANTILE = 0.95

#: The least weight of the identity in the shrunken spread, so that it can be inverted.
_LEAST_SHRINKAGE = 1e-4

#: The temperatures that are compared.
_TEMPERATURES = np.geomspace(0.5, 64.0, 57)

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class KindRows:
    """Holds n rows that kinds are learned from.

    Attributes:
        features: (n, d), finite. kinds: (n,) the name of each row's kind; an empty text is of no kind.
        units: (n,) rows of one unit, such as one text or one language, are left out together.
    """

    features: npt.NDArray[np.float32]
    kinds: Sequence[str]
    units: Sequence[Hashable]

    def usable(self) -> tuple[list[str], Indices, Indices]:
        """Return the names of the kinds that can be learned, the rows to learn from, and the kind of each of these."""
        rows = rows_by_label(self.kinds)
        can = [name for name, own in rows.items() if self._can_be_learned(name, own)]
        names = sorted(sorted(can, key=lambda name: (-len(rows[name]), name))[:MAX_KINDS])
        picked = [np.array(rows[name])[_spread(len(rows[name]))] for name in names]
        number = [np.full(len(own), k) for k, own in enumerate(picked)]
        none = np.zeros(0, dtype=np.int64)
        return names, np.concatenate([none, *picked]), np.concatenate([none, *number])

    def _can_be_learned(self, name: str, own: Sequence[int]) -> bool:
        enough = len(own) >= MIN_ROWS and len({self.units[row] for row in own}) >= 2
        return enough and kind_name_fault(name) is None


def _spread(count: int) -> Indices:
    """Return at most MAX_ROWS of the numbers 0 to count - 1, spread evenly."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_ROWS)).astype(np.int64))


@dataclass(frozen=True, eq=False)
class LeftOutKinds:
    """Holds the distances of n rows to the kinds, each measured by kinds that were learned without the row.

    Attributes:
        names: (k,) of all kinds. kind: (n,) the number of each row's kind.
        distances: (n, k) squared distances; infinite for a kind that was left out as a whole.
        novelty: (n,) the distance to the nearest kind less the distance to the broad Gaussian around all kinds.
    """

    names: tuple[str, ...]
    kind: Indices
    distances: Float64
    novelty: Float64

    @property
    def judged(self) -> npt.NDArray[np.bool_]:
        """Return which rows (n,) can be judged: the other folds have rows of the same kind."""
        return np.isfinite(self.distances[np.arange(len(self.kind)), self.kind])

    def shares(self, temperature: float) -> Float64:
        """Return the posterior shares (n, k)."""
        return posterior_shares(self.distances, temperature)

    def log_loss(self, temperature: float) -> float:
        """Return the mean of -log of the share of the right kind over the judged rows, each kind counted once."""
        rows = np.flatnonzero(self.judged)
        share = self.shares(temperature)[rows, self.kind[rows]]
        _, number, count = np.unique(self.kind[rows], return_inverse=True, return_counts=True)
        return float(np.average(-np.log(np.maximum(share, 1e-12)), weights=1.0 / count[number]))


def fit_kinds(rows: KindRows, assumed: Mapping[str, bool] | None = None) -> KnownKinds | None:
    """Return the kinds of these rows, or None if fewer than two kinds have MIN_ROWS rows of two units or more.

    Temperature and limit follow from rows that were left out (`leave_out`): the temperature with the least log loss,
    and as limit the KNOWN_QUANTILE of the novelty.

    assumed: for names of kinds, whether their rows are assumptions; a kind that is not named has none.

    Raises DataError for features that are not finite.
    """
    names, used, kind = rows.usable()
    if len(names) < 2:
        return None
    features = matrix("features", rows.features)[used]
    refuse_non_finite("features", features)
    left_out = leave_out(features, kind, tuple(names), [rows.units[row] for row in used])
    if not left_out.judged.any():
        return None
    temperature = min(_TEMPERATURES.tolist(), key=left_out.log_loss)
    limit = float(np.quantile(left_out.novelty[left_out.judged], KNOWN_QUANTILE))
    means, projection = discriminants(features, kind)
    flags = tuple((assumed or {}).get(name, False) for name in names)
    return KnownKinds(tuple(names), flags, means, projection, temperature, limit)


def leave_out(features: Array, kind: Indices, names: tuple[str, ...], units: Sequence[Hashable]) -> LeftOutKinds:
    """Return the distances of each row to kinds that were learned from the other folds; a fold keeps units whole."""
    n_folds = min(_FOLDS, len(set(units)))
    folds = assign_folds(units, n_folds)
    distances, novelty = np.full((len(kind), len(names)), np.inf), np.full(len(kind), np.nan)
    for fold in range(n_folds):
        rows = np.flatnonzero(folds != fold)
        present, number = np.unique(kind[rows], return_inverse=True)
        if len(present) < 2:
            continue
        means, projection = discriminants(features[rows], number)
        known = KnownKinds(tuple(names[k] for k in present), (False,) * len(present), means, projection, 1.0, 0.0)
        for row in np.flatnonzero(folds == fold):
            own, broad = known.distances(features[row])
            distances[row, present], novelty[row] = own, own.min() - broad
    return LeftOutKinds(names, kind, distances, novelty)


def discriminants(features: Array, kind: Indices) -> tuple[Array, Array]:
    """Return the mean (k, d) of each kind, and the projection (r, d) that makes the spread within kinds the identity.

    The spread within kinds is one covariance matrix for all, of standardised features, shrunken towards a multiple of
    the identity as far as Ledoit and Wolf (2004, "A well-conditioned estimator for large-dimensional covariance
    matrices") say. Only directions in which kinds differ are kept.
    """
    k = int(kind.max()) + 1
    X = features.astype(np.float64)
    means = np.stack([X[kind == one].mean(axis=0) for one in range(k)])
    within = X - means[kind]
    scale = within.std(axis=0)
    scale[scale < 1e-9 * max(float(scale.max()), 1e-300)] = np.inf  # a feature that never varies tells nothing
    if not np.isfinite(scale).any():
        raise DataError("prompts of one kind must differ in their features; all are the same. Check the encoder.")
    covariance = _shrunken_covariance(within / scale) * (len(X) / max(len(X) - k, 1))
    whiten = inv(cholesky(covariance)) / scale
    apart = (means - means.mean(axis=0)) @ whiten.T
    _, sizes, directions = svd(apart, full_matrices=False)
    # The rows of `apart` sum to 0, so at most k - 1 directions tell kinds apart.
    rank = min(max(int((sizes > 1e-9 * sizes[0]).sum()), 1), k - 1)
    return means.astype(np.float32), (directions[:rank] @ whiten).astype(np.float32)


def _shrunken_covariance(R: Float64) -> Float64:
    """Return the covariance (d, d) of centred rows (n, d), shrunken towards a multiple of the identity."""
    n, d = R.shape
    S = R.T @ R / n
    mean = float(np.trace(S)) / d
    distance = float(((S - mean * np.eye(d)) ** 2).sum())
    noise = float(((R**2).sum(axis=1) ** 2).sum()) / n**2 - float((S**2).sum()) / n
    weight = 1.0 if distance <= 0 else min(max(noise / distance, _LEAST_SHRINKAGE), 1.0)
    return np.asarray((1.0 - weight) * S + weight * mean * np.eye(d))
