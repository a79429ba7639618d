"""Say which known kinds of request a prompt is nearest to, by linear discriminant analysis (`KnownKinds`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from probes._checks import Array, Float32, Float64, read_only
from probes.errors import DataError, DimensionError

#: The most kinds that a probe knows, and the longest name of one, in bytes of UTF-8.
MAX_KINDS, MAX_NAME_BYTES = 256, 120

#: How many kinds a decision record names.
N_NEAREST = 3


class NearestKind(NamedTuple):
    """Names a kind that a prompt is near to: its share of all known kinds, 0 to 1, and whether its rows are assumed."""

    name: str
    share: float
    assumed: bool


class NearestKinds(NamedTuple):
    """Holds at most N_NEAREST kinds, the nearest first, and whether the prompt is near enough to be of one of them."""

    nearest: tuple[NearestKind, ...]
    known: bool


@dataclass(frozen=True, eq=False)
class KnownKinds:
    """Holds k kinds of request as Gaussians of equal shape in the space of d features.

    The features x of a prompt are projected to z = projection (x - mean of the kinds' means). There the spread within
    each kind is the identity, so that the squared distance to a kind is |z - z_k|^2. Linear discriminant analysis
    (Fisher 1936; Rao 1948) loses nothing by this: in all other directions no kind differs from another. With equal
    prior shares the posterior share of kind k is

        p_k = exp(-|z - z_k|^2 / 2T) / sum over kinds,   T = temperature,

    where T makes up for features that are no Gaussians. A prompt is of no known kind if

        min_k |z - z_k|^2 - sum_i z_i^2 / (1 + v_i) > limit,   v_i = variance of the kinds' z_ki over the kinds,

    that is, if a broad Gaussian around all kinds explains it that much better than the nearest kind does (relative
    Mahalanobis distance: Ren et al. 2021, "A simple fix to Mahalanobis distance for improving near-OOD detection").

    Attributes:
        names: (k,) distinct names in words, 2 to MAX_KINDS. assumed: (k,) whether the rows of the kind are assumptions.
        means: (k, d) float32, mean features of each kind. projection: (r, d) float32 with 1 <= r < k.
        temperature: T, a finite number > 0. limit: a finite number.
    """

    names: tuple[str, ...]
    assumed: tuple[bool, ...]
    means: Float32
    projection: Float32
    temperature: float
    limit: float
    _centre: Float32 = field(init=False, repr=False)
    _twice_centres: Float64 = field(init=False, repr=False)
    _norms: Float64 = field(init=False, repr=False)
    _broad: Float64 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("means", "projection"):
            object.__setattr__(self, name, read_only(getattr(self, name), np.float32))
        self._check()
        centre = self.means.mean(axis=0)
        centres = ((self.means - centre) @ self.projection.T).astype(np.float64)
        object.__setattr__(self, "_centre", centre)
        object.__setattr__(self, "_twice_centres", 2.0 * centres)
        object.__setattr__(self, "_norms", (centres**2).sum(axis=1))
        object.__setattr__(self, "_broad", 1.0 / (1.0 + centres.var(axis=0)))
        if not (np.isfinite(centre).all() and np.isfinite(self._norms).all()):
            raise DataError("the means and the projection of kinds must be of the size of features; they overflow.")

    def _check(self) -> None:
        k = len(self.names)
        if not 2 <= k <= MAX_KINDS:
            raise DataError(f"a probe must know 2 to {MAX_KINDS} kinds, or none; got {k:,}.")
        if len(set(self.names)) != k or len(self.assumed) != k:
            raise DataError("the names of kinds must be distinct, and each must say whether it is assumed.")
        for name in self.names:
            if fault := kind_name_fault(name):
                raise DataError(f"the name of a kind must {fault}.")
        if self.means.ndim != 2 or self.projection.ndim != 2 or self.means.shape[0] != k:
            raise DataError(f"the means of {k} kinds must be a matrix of {k} rows, and the projection a matrix.")
        r, d = self.projection.shape
        if not 1 <= r < k or self.means.shape[1] != d or d == 0:
            raise DataError(
                f"the projection of {k} kinds must have 1 to {k - 1} rows and as many columns as the means; got shapes "
                f"{self.projection.shape} and {self.means.shape}."
            )
        if not (np.isfinite(self.means).all() and np.isfinite(self.projection).all()):
            raise DataError("the means and the projection of kinds must be finite.")
        if not (np.isfinite(self.temperature) and self.temperature > 0 and np.isfinite(self.limit)):
            raise DataError("the temperature of kinds must be a finite number > 0, and the limit a finite number.")

    @property
    def n_features(self) -> int:
        """The number of features, d."""
        return int(self.means.shape[1])

    def distances(self, features: Array) -> tuple[Float64, float]:
        """Return the squared distance of a prompt (d,) to each kind, (k,), and its distance to the broad Gaussian.

        Raises DimensionError for another number of features.
        """
        if features.shape != (self.n_features,):
            raise DimensionError(
                f"features must have shape ({self.n_features},), as the kinds were learned from; got {features.shape}."
            )
        # Each prompt is computed alone, in float64 after one product: no bit depends on the rest of a batch.
        z = self.projection.dot(np.asarray(features, dtype=np.float32) - self._centre).astype(np.float64)
        squares = z * z
        return self._norms - self._twice_centres.dot(z) + squares.sum(), float(squares.dot(self._broad))

    def shares(self, features: Array) -> Float64:
        """Return the posterior share (k,) of each kind for the features (d,) of a prompt; they sum to 1."""
        return posterior_shares(self.distances(features)[0], self.temperature)

    def nearest(self, features: Array) -> NearestKinds:
        """Return the nearest kinds of a prompt from its features (d,).

        For example: "small arithmetic" 0.93, "school mathematics in words" 0.05, "short factual question" 0.01, known.
        """
        distances, broad = self.distances(features)
        order = np.argsort(distances, kind="stable")[:N_NEAREST].tolist()
        least = float(distances[order[0]])
        # As `posterior_shares`, of the nearest only, because every request waits for it.
        weights = np.exp((least - distances) / (2.0 * self.temperature))
        nearest = [value for k in order for value in (k, float(weights[k]))]
        return self.named([least, broad, float(weights.sum()), *nearest])

    def named(self, found: Sequence[float]) -> NearestKinds:
        """Return the nearest kinds from what was computed of them.

        found: the least distance to a kind, the distance to the broad Gaussian, the sum of the weights of all kinds,
            and then number and weight of each of the nearest kinds; a number below 0 stands for none.
        """
        least, broad, total = found[:3]
        numbers = [
            (int(number), weight) for number, weight in zip(found[3::2], found[4::2], strict=True) if number >= 0
        ]
        nearest = [NearestKind(self.names[k], weight / total, self.assumed[k]) for k, weight in numbers]
        return NearestKinds(tuple(nearest), least - broad <= self.limit)

    @property
    def tables(self) -> dict[str, Array]:
        """Return the arrays from which distances are computed, by their names in `probes.scoring.prompt_scorer`."""
        return {
            "centre": self._centre,
            "projection": self.projection,
            "twice_centres": self._twice_centres,
            "norms": self._norms,
            "broad": self._broad,
        }

    def tensors(self) -> dict[str, Array]:
        """Return the arrays by their names in an artifact."""
        return {
            "means": self.means,
            "projection": self.projection,
            "scalars": np.array([self.temperature, self.limit]),
        }


def posterior_shares(distances: Float64, temperature: float) -> Float64:
    """Return the posterior share of each of k kinds for squared distances (..., k); they sum to 1 over the last axis.

    The formula is that of `KnownKinds`, p_k.
    """
    weight = np.exp((distances.min(axis=-1, keepdims=True) - distances) / (2.0 * temperature))
    return np.asarray(weight / weight.sum(axis=-1, keepdims=True))


def kind_name_fault(name: str) -> str | None:
    """Return what a name must be if it cannot be the name of a kind, or None if it can."""
    if not name.strip():
        return "hold some text, got none"
    # Characters are counted first: a name of many megabytes must cost nothing.
    if len(name) > MAX_NAME_BYTES or len(name.encode(errors="replace")) > MAX_NAME_BYTES:
        return f"be at most {MAX_NAME_BYTES} bytes long, got {len(name):,} characters"
    # Half of a surrogate pair is not printable either.
    return None if name.isprintable() else "consist of printable characters on one line"
