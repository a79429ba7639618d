"""Fit the loss of a model on few labels, by the difficulty that the models of a fitted probe share.

With s the mean loss that the probe predicts over its models, the new loss is

    y = a + b s + z'c + noise,   b normal with mean 1 and deviation SLOPE_DEVIATION,   c ridge with a penalty,

where z are the features, centred by the mean of the labelled rows and scaled as in the old fit. A model like the mean
of the others has b = 1, and over the models of a probe the slopes have the mean 1, so few labels need only correct that
(empirical Bayes, Efron and Morris 1973). How much of this the labels allow is chosen by the error on rows left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, refuse_non_finite, unit_interval, vector
from probes.errors import DataError
from probes.regression.adapt import ridge_on_prior, rows_left_out_together
from probes.regression.linear import LinearProbe

Way = Literal["mean", "shared", "shared and own", "own"]

SLOPE_DEVIATION = 0.5
"""The standard deviation that slopes on the shared difficulty are taken to have around 1."""

PENALTY_FACTORS = (1.0, 3.0, 10.0, 30.0)
"""The penalties tried for the features, in units of the least one of the probe. What remains beyond the shared
difficulty varies less than the whole loss, so it needs a penalty at least as large."""

USUAL_FACTOR = 10.0
"""The factor of the shared difficulty with own coefficients that is kept unless the labels speak against it. With 10 to
100 labels it does as the shared difficulty alone, and with 500 better (`python -m benchmarks.quality.new_model`)."""

EVIDENCE = 2.0
"""How many standard errors the left-out error of another fit must lie below that of the usual one. One of them, as in
Breiman et al. (1984), gives the shared difficulty up too often by chance with 50 labels, and ranks worse."""

NO_RIDGE = 1e12
"""The penalty that is recorded for a model whose features have no coefficients of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class SharedFit:
    """Holds the fit of one target on n rows by the difficulty that others share.

    probe: of one target. way: what was chosen; `mean` knows no features, `own` no shared difficulty. slope: b, which is
    0 for both of these. penalty: of the features, or NO_RIDGE. left_out: (n,) float64, the exact prediction for each
    row by the chosen fit without that row's group. errors: for each way the mean squared error of these predictions, at
    its best penalty.
    """

    probe: LinearProbe
    way: Way
    slope: float
    penalty: float
    left_out: Float64
    errors: dict[str, float]


def fit_by_shared(
    probe: LinearProbe,
    inverse_scale: npt.ArrayLike,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    groups: Sequence[Hashable] | Array | None = None,
) -> SharedFit:
    """Fit losses y (n,) in [0, 1] of rows X (n, d) by the mean of the probe's m predictions and by the features.

    inverse_scale: (d,) of the old fit's features (`Leverage.inverse_scale`); a feature at 0 is ignored. groups: (n,)
    labels; rows of one group (for example, of one text) are left out together; None leaves out row by row.

    The shared difficulty with own coefficients at USUAL_FACTOR is kept unless another fit has a left-out error that is
    smaller by more than EVIDENCE standard errors of the difference over groups. To take the least error itself is too
    noisy with 50 labels: it ranks worse than the shared difficulty.

    Raises DimensionError for another d. Raises DataError for fewer than two groups, and for numbers that are not finite
    or losses out of range.
    """
    features = matrix("X", X, probe.n_features)
    refuse_non_finite("X", features)
    losses = unit_interval("y", y, features.shape[0])
    numbers = rows_left_out_together(groups, features.shape[0])
    if np.unique(numbers).size < 2:
        raise DataError(f"rows of at least 2 groups are needed; got {losses.shape[0]} row(s) of one. Add labels.")
    tried = list(_ways(probe, vector("inverse_scale", inverse_scale), features, losses, numbers))
    squares = np.stack([np.bincount(numbers, weights=(losses - one.left_out) ** 2) for one in tried])
    error = squares.sum(axis=1) / losses.shape[0]
    chosen = tried[_choose(tried, squares)]
    coef = chosen.coef.astype(np.float32)
    intercept = losses.mean() - coef.astype(np.float64) @ features.mean(axis=0, dtype=np.float64)
    return SharedFit(
        LinearProbe(coef[np.newaxis], np.array([intercept], dtype=np.float32), np.array([chosen.penalty])),
        chosen.way,
        chosen.slope,
        chosen.penalty,
        chosen.left_out,
        {way: min(float(e) for e, one in zip(error, tried, strict=True) if one.way == way) for way in WAYS},
    )


WAYS: tuple[Way, ...] = ("mean", "shared", "shared and own", "own")


def _choose(tried: Sequence[_Tried], squares: Array) -> int:
    """Return the index of the fit to keep, by the squared errors (K, G) of K fits in G groups."""
    best, usual = int(np.argmin(squares.sum(axis=1))), next(i for i, one in enumerate(tried) if one.is_usual)
    lead = squares[usual] - squares[best]
    return best if lead.sum() > EVIDENCE * np.sqrt(lead.size) * lead.std(ddof=1) else usual


@dataclass(frozen=True, slots=True, eq=False)
class _Tried:
    way: Way
    slope: float
    penalty: float
    coef: Float64
    left_out: Float64
    is_usual: bool


def _ways(probe: LinearProbe, inverse_scale: Float64, X: Array, y: Float64, groups: Array) -> Iterator[_Tried]:
    """Yield the fit of each way and penalty."""
    shared = probe.coef.astype(np.float64).mean(axis=0)
    centred = (X - X.mean(axis=0, dtype=np.float64)).astype(np.float64)
    own = centred * inverse_scale
    # Two further labels, of loss 0 and 1, keep the noise above 0 where all labels are equal.
    slope_penalty = float(np.var([*y, 0.0, 1.0])) / SLOPE_DEVIATION**2
    alpha = float(probe.alpha.min())
    plan: list[tuple[Way, bool, float]] = [("mean", False, NO_RIDGE), ("shared", True, NO_RIDGE)]
    plan += [("shared and own", True, factor * alpha) for factor in PENALTY_FACTORS]
    plan += [("own", False, factor * alpha) for factor in PENALTY_FACTORS]
    for way, with_shared, penalty in plan:
        columns = [(centred @ shared)[:, None]] if with_shared else [np.zeros((len(y), 1))]
        precision, expected = [slope_penalty], [float(with_shared)]
        if penalty < NO_RIDGE:
            columns.append(own)
            precision += [penalty] * own.shape[1]
            expected += [0.0] * own.shape[1]
        b, residual = ridge_on_prior(
            np.hstack(columns), (y - y.mean())[:, None], np.array(precision), np.array(expected)[:, None], groups
        )
        slope = float(b[0, 0]) if with_shared else 0.0
        coef = slope * shared + (b[1:, 0] * inverse_scale if penalty < NO_RIDGE else 0.0)
        is_usual = way == "shared and own" and penalty == USUAL_FACTOR * alpha
        yield _Tried(way, slope, penalty, coef, y - residual[:, 0], is_usual)
