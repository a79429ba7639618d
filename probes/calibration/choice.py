"""Find calibration maps by name, fit one map for each model, and calibrate across folds.

Each map is a frozen value, which `fit(scores, losses)` makes from scores that a ridge predicted for rows it was not
fitted on. Its docstring says how the map goes on out of the range of these scores.
Losses may be soft (anything in [0, 1]); scores are any finite numbers, and a larger score means a larger loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, weights
from probes.calibration.base import Calibrator
from probes.calibration.beta import Beta
from probes.calibration.isotonic import Isotonic
from probes.calibration.sigmoid import Sigmoid
from probes.calibration.venn_abers import VennAbers
from probes.errors import DataError
from probes.regression.crossfit import fold_numbers

DEFAULT_KIND = "beta"
"""Beta calibration is smooth, so it neither ties nor overfits; on MMLU it ranked RouteLLM's pair best of the four."""

KINDS: Mapping[str, type[Isotonic] | type[Sigmoid] | type[Beta] | type[VennAbers]] = {
    map_type.kind: map_type for map_type in (Isotonic, Sigmoid, Beta, VennAbers)
}
"""Every class of calibration map by its name in a saved probe."""


def kind_named(kind: str) -> type[Isotonic] | type[Sigmoid] | type[Beta] | type[VennAbers]:
    """Return the class of this name; raise DataError, which lists the names, if there is none."""
    if kind not in KINDS:
        raise DataError(f"a calibration must be one of {', '.join(KINDS)}; got {kind!r}.")
    return KINDS[kind]


def state_names(kind: str) -> frozenset[str]:
    """Return the names of the arrays that `state()` of this kind holds."""
    return frozenset(item.name for item in fields(kind_named(kind)))


def from_state(kind: str, state: Mapping[str, Array]) -> Calibrator:
    """Return the map that `state()` gave; raise DataError for an unknown kind or contradicting arrays."""
    names = state_names(kind)
    if set(state) != names:
        raise DataError(f"a {kind} calibration must hold exactly {sorted(names)}; got {sorted(state)}.")
    return kind_named(kind)(**state)


def fit_calibrators(
    kind: str, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> tuple[Calibrator, ...]:
    """Return one map for each column of scores and losses, both (n, m); NaN in losses is a missing pair."""
    S, Y = matrix("scores", scores), matrix("losses", losses)
    if S.shape != Y.shape:
        raise DataError(f"scores and losses must have the same shape; got {S.shape} and {Y.shape}.")
    w = weights(sample_weight, S.shape[0])
    maps: list[Calibrator] = []
    for column in range(S.shape[1]):
        rows = ~np.isnan(Y[:, column])
        maps.append(kind_named(kind).fit(S[rows, column], Y[rows, column], None if w is None else w[rows]))
    return tuple(maps)


def cross_calibrate(
    kind: str,
    scores: npt.ArrayLike,
    losses: npt.ArrayLike,
    fold: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[tuple[Calibrator, ...], Float64]:
    """Return the maps fitted on all out-of-fold scores (n, m), and these scores calibrated across folds (n, m).

    Serve the maps. The calibrated scores of a row come from maps fitted on the other folds only, so that no row
    calibrates itself: use them to measure calibration and to choose thresholds.
    """
    S, Y = matrix("scores", scores), matrix("losses", losses)
    folds = fold_numbers(fold, S.shape[0])
    w = weights(sample_weight, S.shape[0])
    calibrated = np.empty(S.shape)
    for number in np.unique(folds):
        inside = folds == number
        maps = fit_calibrators(kind, S[~inside], Y[~inside], None if w is None else w[~inside])
        for column, one in enumerate(maps):
            calibrated[inside, column] = one.predict(S[inside, column])
    return fit_calibrators(kind, S, Y, w), calibrated
