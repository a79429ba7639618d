"""Decompose the centred Gram matrix once, which gives the ridge solution for every penalty.

Notation: Z = (X - mean) * inverse_scale, weights w with sum W, Z'wZ = V diag(eigenvalues) V', c = V'Z'wy.
The ridge solution at penalty a is V (eigenvalues + a)^-1 c, so every further penalty costs O(d m).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from probes._checks import Array, Float64
from probes.regression.linear import Leverage

CHUNK_ROWS = 4096
"""Rows converted to float64 at a time, which bounds the memory of a pass over float32 data."""

Batch = tuple[Array, Array, Float64 | None]
"""Checked rows: X (n, d), Y (n, m) and their weights (n,), or None for "each row counts once"."""

_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Holds the statistics of a `RidgeFitter` in their eigenbasis; only the p features that vary are in it.

    mean: (d,). inverse_scale: (d,), 0 for features left out. active: (p,) column numbers. eigenvalues: (p,)
    descending, >= 0. basis: (p, p) eigenvectors in columns. projected: (p, m), c above. target_mean,
    target_scatter: (m,), the weighted mean and the centred sum of squares. weight: W.
    """

    mean: Float64
    inverse_scale: Float64
    active: Array
    eigenvalues: Float64
    basis: Float64
    projected: Float64
    target_mean: Float64
    target_scatter: Float64
    weight: float

    def of_targets(self, columns: Array) -> Spectrum:
        """Return the spectrum of these targets only, without another decomposition."""
        return replace(
            self,
            projected=self.projected[:, columns],
            target_mean=self.target_mean[columns],
            target_scatter=self.target_scatter[columns],
        )

    def coefficients(self, alpha: Float64) -> tuple[Float64, Float64]:
        """Return coef (m, d) and intercept (m,) in the units of the raw features, for alpha (m,)."""
        in_basis = self.projected / (self.eigenvalues[:, None] + alpha)
        coef = np.zeros((alpha.shape[0], self.mean.shape[0]))
        coef[:, self.active] = (self.basis @ in_basis).T * self.inverse_scale[self.active]
        return coef, self.target_mean - coef @ self.mean

    def degrees_of_freedom(self, alphas: Float64) -> Float64:
        """Return 1 + trace of Z(Z'Z + aI)^-1 Z' for each penalty: (A,)."""
        return np.asarray(1.0 + (self.eigenvalues / (self.eigenvalues + alphas[:, None])).sum(axis=1))

    def gcv(self, alphas: Float64) -> Float64:
        """Return the generalised cross-validation score (RSS/W) / (1 - df/W)^2, (A, m) (Golub, Heath and Wahba 1979).

        It needs no samples: it is the leave-one-out error with every hat value replaced by their mean. It is infinite
        if the fit has no degree of freedom left.
        """
        squared = self.projected**2
        shrunk = 1.0 / (self.eigenvalues + alphas[:, None])
        rss = self.target_scatter - shrunk @ squared - alphas[:, None] * (shrunk**2 @ squared)
        left = 1.0 - self.degrees_of_freedom(alphas) / self.weight
        usable = left > 1e-12
        score = np.full(rss.shape, np.inf)
        score[usable] = np.maximum(rss[usable], 0.0) / self.weight / left[usable, None] ** 2
        return score

    def leave_one_out(self, alphas: Float64, batches: Iterable[Batch]) -> Float64:
        """Return the exact leave-one-out mean squared error over the given rows, (A, m).

        Every row must be part of the statistics with the weight given here. Other rows (for example, an older data
        set) may be part of them too; they are not averaged over. A row is left out whole, whatever its weight. The
        means are refitted without it; the feature scales stay those of all rows.
        """
        total = np.zeros((alphas.shape[0], self.target_mean.shape[0]))
        weight = 0.0
        for X, Y, w in batches:
            for rows in chunks(X.shape[0]):
                w_rows = None if w is None else w[rows]
                residual = self._left_out_residuals(alphas, X[rows], Y[rows], w_rows)
                np.square(residual, out=residual)
                total += residual.sum(axis=0) if w_rows is None else np.tensordot(w_rows, residual, axes=1)
            weight += X.shape[0] if w is None else float(w.sum())
        return total / max(weight, _TINY)

    def _left_out_residuals(self, alphas: Float64, X: Array, Y: Array, w: Float64 | None) -> Float64:
        """Return y_i - f_{-i}(x_i) = (y_i - f(x_i)) / (1 - w_i (1/W + x_i'(..)x_i)), (n, A, m)."""
        n, m = Y.shape
        scaled_basis = self.basis * self.inverse_scale[self.active, None]
        centred = X[:, self.active].astype(np.float64, copy=False) - self.mean[self.active]
        Q = centred @ scaled_basis
        shrunk = 1.0 / (self.eigenvalues[:, None] + alphas)
        path = shrunk[:, :, None] * self.projected[:, None, :]
        fitted = Q @ path.reshape(path.shape[0], alphas.shape[0] * m)
        residual = (Y - self.target_mean)[:, None, :] - fitted.reshape(n, alphas.shape[0], m)
        np.square(Q, out=Q)
        hat = Q @ shrunk
        hat += 1.0 / self.weight
        if w is not None:
            hat *= w[:, None]
        residual /= np.maximum(1.0 - hat, np.finfo(np.float64).eps)[:, :, None]
        return residual

    def leverage(self, alpha: float, tolerance: float) -> Leverage:
        """Return the leverage, with the fewest eigenvectors that keep its relative error within `tolerance`."""
        inverse = 1.0 / (self.eigenvalues + alpha)
        rank, tail, bound = _truncation(self.eigenvalues, inverse, tolerance)
        factor = np.zeros((rank, self.mean.shape[0]))
        leading = np.sqrt(np.maximum(tail - inverse[:rank], 0.0))
        factor[:, self.active] = leading[:, None] * self.basis[:, :rank].T
        return Leverage(
            mean=self.mean.astype(np.float32),
            inverse_scale=self.inverse_scale.astype(np.float32),
            factor=factor.astype(np.float32),
            tail=tail,
            floor=1.0 / self.weight,
            error_bound=bound,
        )


def decompose(gram: Float64, cross: Float64, inverse_scale: Float64) -> tuple[Array, Float64, Float64, Float64]:
    """Return (active, eigenvalues, basis, projected) of the scaled Gram matrix; see `Spectrum`."""
    active = np.flatnonzero(inverse_scale)
    scale = inverse_scale[active]
    scaled = gram[np.ix_(active, active)]
    scaled *= scale
    scaled *= scale[:, None]
    values, vectors = np.linalg.eigh(scaled)
    basis = np.ascontiguousarray(vectors[:, ::-1])
    return active, np.maximum(values[::-1], 0.0), basis, basis.T @ (cross[active] * scale[:, None])


def chunks(n_rows: int) -> Iterator[slice]:
    """Yield slices of at most `CHUNK_ROWS` that cover 0..n_rows."""
    for start in range(0, n_rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, n_rows))


def _truncation(eigenvalues: Float64, inverse: Float64, tolerance: float) -> tuple[int, float, float]:
    """Return (rank, tail, bound): how many leading directions to keep, the weight of the others, the relative error.

    `tail` is the mean of 1/(eigenvalue + alpha) over the other directions, weighted by their eigenvalues; this keeps
    the mean leverage of the training rows exact. The relative error is largest for the first or the last of them.
    """
    if eigenvalues.shape[0] == 0:
        return 0, 0.0, 0.0
    mass = np.cumsum(eigenvalues[::-1])[::-1]
    weighted = np.cumsum((eigenvalues * inverse)[::-1])[::-1]
    tail = np.divide(weighted, mass, out=np.full_like(mass, inverse[-1]), where=mass > 0)
    bound = np.maximum(inverse[-1] / tail - 1.0, 1.0 - inverse / tail)
    rank = int(np.argmax(bound <= max(tolerance, 1e-9)))
    return rank, float(tail[rank]), float(max(bound[rank], 0.0))
