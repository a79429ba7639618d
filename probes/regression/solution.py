"""Choose the penalty of a ridge and assemble its result, `RidgeSolution`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, vector
from probes.errors import DataError
from probes.regression.linear import Leverage, LinearProbe
from probes.regression.spectrum import Spectrum

DEFAULT_ALPHAS: Float64 = np.logspace(-1.0, 6.0, 29)
"""The 29 penalties tried, four per decade. They act on standardised features, for which Z'Z has trace n d."""

LEVERAGE_TOLERANCE = 0.5
"""Largest relative error of a leverage for any input; on data like the training data it is a few per cent."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgeSolution:
    """Holds the result of `RidgeFitter.solve` or `fit_ridge` for A penalties, m targets and d features.

    alphas: (A,) the grid. alpha: (m,) the penalties chosen. loo_mse: (A, m), the leave-one-out mean squared error: it
    is exact if criterion is "loo", and comes from generalised cross-validation if it is "gcv" (the samples were no
    longer there). coef: (m, d) and intercept: (m,), float64, in the units of the raw features; `probe` holds them in
    float32. leverage: at the smallest of the chosen penalties. n_active: number of features that vary.
    """

    alphas: Float64
    alpha: Float64
    loo_mse: Float64
    criterion: Literal["loo", "gcv"]
    coef: Float64
    intercept: Float64
    probe: LinearProbe
    leverage: Leverage
    n_active: int


def penalty_grid(alphas: npt.ArrayLike | None) -> Float64:
    """Return the penalties to try, (A,) float64, which are `DEFAULT_ALPHAS` for None.

    Raise DataError unless each is > 0.
    """
    if alphas is None:
        return DEFAULT_ALPHAS.copy()
    grid = vector("alphas", np.atleast_1d(np.asarray(alphas, dtype=np.float64)))
    if grid.shape[0] == 0 or grid.min() <= 0.0:
        raise DataError(f"alphas must hold at least one penalty, each > 0; got {grid.tolist()}.")
    return grid.copy()


def choose_alpha(grid: Float64, loo_mse: Float64, variance: Float64, per_target: bool) -> Float64:
    """Return the penalties (m,) of least leave-one-out error; among equally good ones the largest.

    loo_mse: (A, m). variance: (m,) of the targets. A penalty that is shared by all targets minimises the mean of
    loo_mse / variance; a target that does not vary is left out of that mean.
    """
    relative = np.divide(loo_mse, variance, out=np.zeros_like(loo_mse), where=variance > 0)
    if not per_target:
        relative = np.broadcast_to(relative.mean(axis=1, keepdims=True), relative.shape)
    order = np.argsort(grid)[::-1]
    return np.asarray(grid[order[np.argmin(relative[order], axis=0)]])


def assemble(
    grid: Float64,
    loo_mse: Float64,
    criterion: Literal["loo", "gcv"],
    alpha: Float64,
    parts: Sequence[tuple[Array, Spectrum]],
    leverage_tolerance: float,
) -> RidgeSolution:
    """Return the solution of all targets from (columns, spectrum) pairs; the last pair is that of all rows."""
    n_features = parts[-1][1].mean.shape[0]
    coef, intercept = np.empty((alpha.shape[0], n_features)), np.empty(alpha.shape[0])
    rounded_intercept = np.empty(alpha.shape[0])
    for columns, spectrum in parts:
        coef[columns], intercept[columns] = spectrum.coefficients(alpha[columns])
        # The served intercept goes with the rounded coefficients, so that the mean prediction is the mean target.
        rounded = coef[columns].astype(np.float32).astype(np.float64)
        rounded_intercept[columns] = spectrum.target_mean - rounded @ spectrum.mean
    everything = parts[-1][1]
    return RidgeSolution(
        alphas=grid,
        alpha=alpha,
        loo_mse=loo_mse,
        criterion=criterion,
        coef=coef,
        intercept=intercept,
        probe=LinearProbe(coef.astype(np.float32), rounded_intercept.astype(np.float32), alpha),
        leverage=everything.leverage(float(alpha.min()), leverage_tolerance),
        n_active=int(everything.active.shape[0]),
    )
