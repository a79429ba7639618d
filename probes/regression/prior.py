"""Keep the statistics of a fit beside its probe, so that later labels are merged and old ones removed (`Prior`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix
from probes.errors import DataError, DimensionError
from probes.regression.fit import missing_patterns, ridge_rows, target_matrix
from probes.regression.ridge import RidgeFitter
from probes.regression.solution import LEVERAGE_TOLERANCE, RidgeSolution, assemble, penalty_grid
from probes.regression.spectrum import Spectrum

Columns = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Prior:
    """Holds the sufficient statistics of a fit with d features and m targets: sums only, no row and no text.

    parts: (columns, statistics) pairs. Targets that miss the same rows share a pair, and every target is in exactly
    one. The last pair is that of all rows; it has no columns if every target misses some row.
    """

    parts: tuple[tuple[Columns, RidgeFitter], ...]

    def __post_init__(self) -> None:
        columns = np.concatenate([columns for columns, _ in self.parts]) if self.parts else np.empty(0, dtype=np.int64)
        if not columns.size or sorted(columns.tolist()) != list(range(columns.size)):
            raise DataError(f"the parts of a prior must hold each target once; got {columns.tolist()}.")
        for own, fitter in self.parts:
            if fitter.n_targets != own.size or fitter.n_features != self.n_features or fitter.n_rows < 2:
                raise DataError(
                    f"statistics of targets {own.tolist()} must be of {self.n_features} features and as many targets, "
                    f"from 2 rows or more; got {fitter}."
                )

    @classmethod
    def of(cls, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Prior:
        """Return the statistics of rows X (n, d) and targets Y (n, m), NaN for a missing pair.

        sample_weight: (n,) as in `fit_ridge`. Raises DataError as `fit_ridge`.
        """
        features, targets, w = ridge_rows(X, Y, sample_weight)
        parts = []
        for columns, present in missing_patterns(targets):
            fitter = RidgeFitter(features.shape[1], columns.size)
            rows = features[present], targets[np.ix_(present, columns)], None if w is None else w[present]
            parts.append((columns, fitter.update(*rows)))
        return cls(tuple(parts))

    @property
    def everything(self) -> RidgeFitter:
        """The statistics of all rows, with or without targets."""
        return self.parts[-1][1]

    @property
    def n_features(self) -> int:
        """The number of features, d."""
        return self.everything.n_features

    @property
    def n_targets(self) -> int:
        """The number of targets, m."""
        return sum(columns.size for columns, _ in self.parts)

    @property
    def target_mean(self) -> Float64:
        """The mean of each target over the rows that have it, (m,)."""
        mean = np.empty(self.n_targets)
        for columns, fitter in self.parts:
            mean[columns] = fitter.target_mean
        return mean

    @property
    def n_labels(self) -> npt.NDArray[np.int64]:
        """The number of rows that have each target, (m,)."""
        counts = np.empty(self.n_targets, dtype=np.int64)
        for columns, fitter in self.parts:
            counts[columns] = fitter.n_rows
        return counts

    def merged(self, X: npt.ArrayLike, Y: npt.ArrayLike) -> Prior:
        """Return the statistics of the old rows and of X (n, d), Y (n, m) together, NaN for a missing pair.

        They are those of one fit on all rows, up to rounding. Raises DataError as `of`, and DimensionError for other
        numbers of features or targets.
        """
        return self._changed(X, Y, remove=False)

    def without(self, X: npt.ArrayLike, Y: npt.ArrayLike) -> Prior:
        """Return the statistics as if rows that were put in had never been: the inverse of `merged`.

        Raises DataError too if the rows weigh more, or vary more, than the rows held, and if too few would be left.
        """
        return self._changed(X, Y, remove=True)

    def _changed(self, X: npt.ArrayLike, Y: npt.ArrayLike, *, remove: bool) -> Prior:
        features = matrix("X", X, self.n_features)
        targets = target_matrix(Y, features.shape[0])
        if targets.shape[1] != self.n_targets:
            raise DimensionError(f"Y must have the {self.n_targets} targets of the statistics; got {targets.shape[1]}.")
        parts = []
        for columns, fitter in self.parts:
            for within, present in missing_patterns(targets[:, columns]):
                # The last pair is that of all rows, which only the part of all rows needs without a target.
                if within.size or fitter is self.everything:
                    own = fitter.of_targets(within)
                    rows = features[present], targets[np.ix_(present, columns[within])]
                    parts.append((columns[within], own.downdate(*rows) if remove else own.update(*rows)))
        return Prior(tuple(parts))

    def solve(self, alpha: npt.ArrayLike) -> RidgeSolution:
        """Return the ridge of these statistics at given penalties: one for all targets, or (m,).

        Its errors are by generalised cross-validation, which needs no rows.
        """
        penalty = np.broadcast_to(penalty_grid(alpha), self.n_targets).copy()
        grid = np.unique(penalty)
        parts = [(columns, fitter.spectrum()) for columns, fitter in self.parts]
        errors = np.empty((grid.size, self.n_targets))
        for columns, spectrum in parts:
            errors[:, columns] = spectrum.gcv(grid)
        return assemble(grid, errors, "gcv", penalty, parts, LEVERAGE_TOLERANCE)

    @cached_property
    def spectra(self) -> tuple[tuple[Columns, Spectrum], ...]:
        """The columns and the eigendecomposition of each part that has a target, computed once."""
        return tuple((columns, fitter.spectrum()) for columns, fitter in self.parts if columns.size)

    def tensors(self) -> dict[str, Array]:
        """Return every array by its name in a saved probe."""
        named: dict[str, Array] = {}
        for i, (columns, fitter) in enumerate(self.parts):
            named |= {f"{i}.columns": columns} | {f"{i}.{name}": array for name, array in fitter.state().items()}
        return named

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array]) -> Prior:
        """Return the prior that `tensors()` gave; raise DataError for unknown names or contradicting arrays."""
        states: dict[str, dict[str, Array]] = {}
        for name, array in tensors.items():
            index, _, item = name.partition(".")
            states.setdefault(index, {})[item] = array
        if states.keys() != {str(i) for i in range(len(states))}:
            raise DataError(f"saved statistics must be numbered from 0; got parts {sorted(states)}.")
        parts = []
        for i in range(len(states)):
            columns = states[str(i)].pop("columns", None)
            if columns is None or columns.dtype != np.int64 or columns.ndim != 1:
                raise DataError(f"part {i} of saved statistics must have columns, a vector of int64.")
            parts.append((columns, RidgeFitter.from_state(states[str(i)])))
        return cls(tuple(parts))
