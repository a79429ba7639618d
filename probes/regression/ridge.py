"""Ridge regression from sufficient statistics that can be merged, streamed, decayed and exactly removed again.

`RidgeFitter` collects statistics; `solve` turns them into a frozen `LinearProbe` and `Leverage`. The two are separate
types so that nothing can predict before it is fitted. `probes.regression.fit.fit_ridge` does both in one call and
accepts missing targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, refuse_non_finite, weights
from probes.errors import DataError, DimensionError
from probes.regression.solution import LEVERAGE_TOLERANCE, RidgeSolution, assemble, choose_alpha, penalty_grid
from probes.regression.spectrum import Batch, Spectrum, chunks, decompose

# A standard deviation below this share of the largest one is rounding noise: two of MiniLM's dimensions carry nothing
# and vary by 1e-32.
_CONSTANT = 1e-8

# The share of a weight that rounding may add or lose over many merges.
_LOST = 1e-12

Rows = Iterable[tuple[npt.ArrayLike, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike | None]]


class RidgeFitter:
    """Collects the sufficient statistics of ridge regression for d features and m targets, in float64.

    It keeps the number of rows, the sum of weights, the weighted means, and the *centred* X'X, X'Y and Y'Y. Centred
    statistics are updated pairwise (Chan, Golub and LeVeque 1983), so that neither a large mean nor the order of
    merging costs digits. Memory is d (d + m) numbers, however many rows are added.
    """

    def __init__(self, n_features: int, n_targets: int = 1) -> None:
        if n_features < 1 or n_targets < 0:
            raise DataError(
                f"n_features must be >= 1 and n_targets >= 0; got {n_features} and {n_targets}. "
                "(0 targets: features only, for a leverage.)"
            )
        self.n_features = n_features
        self.n_targets = n_targets
        self.n_rows = 0
        self.weight = 0.0
        self.mean = np.zeros(n_features)
        self.target_mean = np.zeros(n_targets)
        self.gram = np.zeros((n_features, n_features))
        self.cross = np.zeros((n_features, n_targets))
        self.target_scatter = np.zeros(n_targets)
        # The largest diag(gram) so far: if 1e-16 of it remains after a downdate, that is rounding and not variance.
        self._peak = np.zeros(n_features)
        self._target_peak = np.zeros(n_targets)

    def __repr__(self) -> str:
        return (
            f"RidgeFitter(n_features={self.n_features}, n_targets={self.n_targets}, "
            f"n_rows={self.n_rows}, weight={self.weight:g})"
        )

    def copy(self) -> RidgeFitter:
        """Return independent statistics with the same contents."""
        twin = RidgeFitter(self.n_features, self.n_targets)
        for name, value in vars(self).items():
            setattr(twin, name, value.copy() if isinstance(value, np.ndarray) else value)
        return twin

    def of_targets(self, columns: Sequence[int] | Array) -> RidgeFitter:
        """Return the statistics of these targets alone, in this order, over the same rows."""
        twin, own = self.copy(), np.asarray(columns, dtype=np.int64)
        twin.n_targets, twin.cross = own.size, self.cross[:, own]
        for name in ("target_mean", "target_scatter", "_target_peak"):
            setattr(twin, name, getattr(self, name)[own])
        return twin

    def without_targets(self) -> RidgeFitter:
        """Return the statistics of the features alone, which a leverage needs."""
        return self.of_targets(())

    def state(self) -> dict[str, Float64]:
        """Return the statistics as named float64 arrays; `from_state` restores them bit for bit.

        counts: (4,) d, m, rows, weight. gram: (d (d + 1) / 2,), the upper triangle row by row, as X'X is symmetric.
        """
        arrays = {name.lstrip("_"): array for name, array in vars(self).items() if isinstance(array, np.ndarray)}
        counts = np.array([self.n_features, self.n_targets, self.n_rows, self.weight], dtype=np.float64)
        return arrays | {"counts": counts, "gram": self.gram[np.triu_indices(self.n_features)]}

    @classmethod
    def from_state(cls, state: Mapping[str, Array]) -> RidgeFitter:
        """Return the statistics that `state()` described; DataError for missing, misshapen or impossible arrays."""
        counts = np.asarray(state.get("counts", ()))
        if counts.shape != (4,) or not np.isfinite(counts).all() or counts.min() < 0 or (counts[:3] % 1).any():
            raise DataError(f"counts of saved statistics must be four finite numbers >= 0; got {counts.tolist()}.")
        features, targets = int(counts[0]), int(counts[1])
        # A hostile file may claim any size. Nothing is allocated unless the arrays that came with it are as large.
        largest = max(array.size for array in state.values())
        if "gram" not in state:
            raise DataError(f"saved statistics must hold gram; got {sorted(state)}.")
        if state["gram"].size != features * (features + 1) // 2 or features * targets > largest:
            raise DataError(f"saved statistics must be of {features} features and {targets} targets; they are not.")
        fitter = cls(features, targets)
        fitter.n_rows, fitter.weight = int(counts[2]), float(counts[3])
        expected = {name.lstrip("_"): name for name, array in vars(fitter).items() if isinstance(array, np.ndarray)}
        if state.keys() != {*expected, "counts"}:
            raise DataError(f"saved statistics must hold {sorted([*expected, 'counts'])}; got {sorted(state)}.")
        upper = np.triu_indices(fitter.n_features)
        for name, attribute in expected.items():
            own, saved = getattr(fitter, attribute), state[name]
            shape = upper[0].shape if name == "gram" else own.shape
            if saved.shape != shape or saved.dtype != np.float64 or not np.isfinite(saved).all():
                raise DataError(
                    f"{name} of saved statistics must be finite float64 of shape {shape}; {_described(saved)}."
                )
            own[upper if name == "gram" else ...] = saved
        fitter.gram.T[upper] = fitter.gram[upper]
        if min(part.min(initial=0.0) for part in (np.diag(fitter.gram), fitter.target_scatter)) < 0.0:
            raise DataError("saved statistics must have no negative variance. Fit the probe again.")
        return fitter

    def __add__(self, other: object) -> RidgeFitter:
        """Return the statistics of both data sets together; neither operand changes."""
        if not isinstance(other, RidgeFitter):
            return NotImplemented
        if (self.n_features, self.n_targets) != (other.n_features, other.n_targets):
            raise DimensionError(
                "fitters to be merged must have the same numbers of features and targets; got "
                f"{(self.n_features, self.n_targets)} and {(other.n_features, other.n_targets)}."
            )
        merged = self.copy()
        merged._merge(other)
        return merged

    def update(self, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Add rows and return self: X (n, d), Y (n, m) (or (n,) for one target), sample_weight (n,) >= 0.

        A weight of 2 counts the row twice. On an error nothing is added.

        Raises DataError for NaN, infinity (row and column named) or unequal lengths, DimensionError for other
        numbers of features or targets.
        """
        batch = self._checked(X, Y, sample_weight)
        for rows in chunks(batch[0].shape[0]):
            self._merge(self._statistics(batch, rows))
        return self

    def downdate(self, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Remove rows exactly, as if they had never been added, and return self; the inverse of `update`.

        The result carries the rounding of the larger statistics: about 1e-16 of their size before.

        Raises DataError (and changes nothing) if the rows weigh more, or vary more, than the rows held.
        """
        batch = self._checked(X, Y, sample_weight)
        removed = RidgeFitter(self.n_features, self.n_targets)
        for rows in chunks(batch[0].shape[0]):
            removed._merge(self._statistics(batch, rows))
        self._unmerge(removed)
        return self

    def decay(self, factor: float) -> Self:
        """Multiply the weight of all rows so far by a forgetting factor in (0, 1], and return self."""
        if not 0.0 < factor <= 1.0:
            raise DataError(f"factor must lie in (0, 1]; got {factor}. 1 forgets nothing.")
        self.weight *= factor
        for statistic in (self.gram, self.cross, self.target_scatter, self._peak, self._target_peak):
            statistic *= factor
        return self

    def solve(
        self,
        alphas: npt.ArrayLike | None = None,
        per_target: bool = False,
        *,
        rows: Rows | None = None,
        standardize: bool = True,
        leverage_tolerance: float = LEVERAGE_TOLERANCE,
    ) -> RidgeSolution:
        """Choose the penalty on a grid and return the fit, from one eigendecomposition.

        The fit minimises sum_i w_i (y_i - b0 - z_i'b)^2 + alpha |b|^2 with z the centred, scaled features.

        alphas: the grid, each > 0; `DEFAULT_ALPHAS` if None. per_target: choose one penalty for each target instead of
        one for all (which minimises the mean over targets of loo_mse / variance). rows: batches (X, Y) or
        (X, Y, sample_weight) that the exact leave-one-out error is computed on; they must be part of the statistics
        already, with these weights. Without rows the choice is by generalised cross-validation, which needs no
        samples. standardize: penalise the coefficients of features scaled to unit variance (the default) or of the raw
        ones; the mean is never penalised. leverage_tolerance: relative error that a leverage may have.

        Raises DataError for fewer than two rows, or a grid that is not positive and finite.
        """
        grid = penalty_grid(alphas)
        spectrum = self.spectrum(standardize)
        loo_mse = spectrum.gcv(grid) if rows is None else spectrum.leave_one_out(grid, self._batches(rows))
        alpha = choose_alpha(grid, loo_mse, self.target_variance(), per_target)
        parts = [(np.arange(self.n_targets), spectrum)]
        return assemble(grid, loo_mse, "gcv" if rows is None else "loo", alpha, parts, leverage_tolerance)

    def spectrum(self, standardize: bool = True) -> Spectrum:
        """Return the eigendecomposition that `solve` uses. Raises DataError for fewer than two rows."""
        if self.n_rows < 2 or self.weight <= 0.0:
            raise DataError(
                f"a ridge needs at least 2 rows of positive weight; got {self.n_rows} rows of total weight "
                f"{self.weight:g}. Add rows with update()."
            )
        inverse_scale = self._inverse_scale() if standardize else np.ones(self.n_features)
        active, eigenvalues, basis, projected = decompose(self.gram, self.cross, inverse_scale)
        return Spectrum(
            mean=self.mean.copy(),
            inverse_scale=inverse_scale,
            active=active,
            eigenvalues=eigenvalues,
            basis=basis,
            projected=projected,
            target_mean=self.target_mean.copy(),
            target_scatter=self.target_scatter.copy(),
            weight=self.weight,
        )

    def target_variance(self) -> Float64:
        """Return the weighted variance of each target, (m,), or 0 if it is constant up to rounding."""
        scatter = self.target_scatter
        rounding = 1e-24 * self.target_mean**2 * self.weight + 1e-14 * self._target_peak
        return np.where(scatter > rounding, scatter, 0.0) / max(self.weight, np.finfo(np.float64).tiny)

    def _inverse_scale(self) -> Float64:
        """Return 1 / standard deviation of each feature, or 0 if it does not vary beyond rounding."""
        scatter = np.diag(self.gram)
        scale = np.sqrt(np.maximum(scatter, 0.0) / self.weight)
        # A large mean adds rounding to the scatter: that of a double, or of float32 if the data were float32.
        varies = scale > np.maximum(_CONSTANT * scale.max(initial=0.0), 1e-12 * np.abs(self.mean))
        varies &= scatter > 1e-14 * self._peak
        return np.divide(1.0, scale, out=np.zeros_like(scale), where=varies)

    def _batches(self, rows: Rows) -> Iterable[Batch]:
        for batch in rows:
            yield self._checked(*batch)

    def _checked(self, X: npt.ArrayLike, Y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Batch:
        features = matrix("X", X, self.n_features)
        targets = np.asarray(Y)
        if targets.ndim == 1 and self.n_targets == 1:
            targets = targets[:, None]
        targets = matrix("Y", targets, self.n_targets)
        if features.shape[0] != targets.shape[0]:
            raise DataError(f"X and Y must have as many rows; got {features.shape[0]} and {targets.shape[0]}.")
        refuse_non_finite("X", features)
        refuse_non_finite("Y", targets)
        return features, targets, weights(sample_weight, features.shape[0])

    def _statistics(self, batch: Batch, rows: slice) -> RidgeFitter:
        """Return the statistics of a slice of checked rows, centred at their own mean."""
        X, Y = (array[rows].astype(np.float64) for array in batch[:2])
        w = None if batch[2] is None else batch[2][rows]
        part = RidgeFitter(self.n_features, self.n_targets)
        part.n_rows = X.shape[0] if w is None else int(np.count_nonzero(w))
        part.weight = float(X.shape[0] if w is None else w.sum())
        if part.weight == 0.0:
            return part
        part.mean = X.mean(axis=0) if w is None else w @ X / part.weight
        part.target_mean = Y.mean(axis=0) if w is None else w @ Y / part.weight
        X -= part.mean
        Y -= part.target_mean
        if w is not None:
            root = np.sqrt(w)[:, None]
            X *= root
            Y *= root
        part.gram = X.T @ X
        part.cross = X.T @ Y
        part.target_scatter = np.einsum("ij,ij->j", Y, Y)
        part._peak = np.diag(part.gram).copy()
        part._target_peak = part.target_scatter.copy()
        return part

    def _merge(self, other: RidgeFitter) -> None:
        """Add the statistics of another fitter to these."""
        total = self.weight + other.weight
        self.n_rows += other.n_rows
        if other.weight == 0.0:
            return
        between = self.weight * other.weight / total
        shift, target_shift = other.mean - self.mean, other.target_mean - self.target_mean
        self._add_scatter(1.0, other, between, shift, target_shift)
        self._peak += other._peak + between * shift**2
        self._target_peak += other._target_peak + between * target_shift**2
        self.mean += shift * (other.weight / total)
        self.target_mean += target_shift * (other.weight / total)
        self.weight = total

    def _unmerge(self, other: RidgeFitter) -> None:
        """Remove the statistics of another fitter from these, by the identity of `_merge` solved for the first part."""
        rest = self.weight - other.weight
        n_rows = self.n_rows - other.n_rows
        if n_rows < 0 or rest < -_LOST * self.weight:
            raise DataError(
                f"rows taken out must have been put in; asked to remove {other.n_rows} rows of weight "
                f"{other.weight:g} from {self.n_rows} rows of weight {self.weight:g}."
            )
        # If the weight that remains is below the rounding of the weight before, then no row remains.
        gone = n_rows == 0 or rest <= _LOST * self.weight
        ratio = 0.0 if gone else other.weight / rest
        mean = self.mean + (self.mean - other.mean) * ratio
        target_mean = self.target_mean + (self.target_mean - other.target_mean) * ratio
        between = self.weight if gone else rest * other.weight / self.weight
        shift, target_shift = other.mean - mean, other.target_mean - target_mean
        self._refuse_foreign_rows(other, between * shift**2)
        if gone:
            vars(self).update(vars(RidgeFitter(self.n_features, self.n_targets)))
            return
        self._add_scatter(-1.0, other, between, shift, target_shift)
        self.mean, self.target_mean, self.weight, self.n_rows = mean, target_mean, rest, n_rows

    def _refuse_foreign_rows(self, other: RidgeFitter, between: Float64) -> None:
        """Raise DataError if the removal would leave some feature with a negative variance."""
        left = np.diag(self.gram) - np.diag(other.gram) - between
        rounding = 1e-9 * np.maximum(self._peak, np.diag(other.gram)) + 1e-24 * self.mean**2 * self.weight
        if (left < -rounding).any():
            raise DataError(
                "rows taken out must have been put in; without them the variance of feature "
                f"{int(np.argmin(left + rounding))} would be negative. Remove exactly the rows (and weights) "
                "that were added."
            )

    def _add_scatter(
        self, sign: float, other: RidgeFitter, between: float, shift: Float64, target_shift: Float64
    ) -> None:
        """Add (or, with sign -1, subtract) the other's scatter and the scatter between the two means."""
        self.gram += sign * (other.gram + np.outer(between * shift, shift))
        self.cross += sign * (other.cross + np.outer(between * shift, target_shift))
        self.target_scatter += sign * (other.target_scatter + between * target_shift**2)


def _described(array: Array) -> str:
    return f"got {array.dtype} of shape {array.shape}"
