"""Fit a probe by its recipe: ridge on all rows, calibration on rows left out, and a limit on unfamiliar prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.calibration.base import Calibrator
from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.probe import FAMILIAR_QUANTILE
from probes.regression.crossfit import assign_folds, fold_errors, out_of_fold
from probes.regression.fit import fit_ridge
from probes.regression.linear import Leverage, LinearProbe
from probes.regression.solution import choose_alpha
from probes.tasks.offsets import TaskOffsets

FloatArray = npt.NDArray[np.float64]

#: Folds by prompt text, for calibration and for the figures of the summary.
FOLDS = 5

#: Fewer prompts than this cannot be split into folds that mean anything.
MIN_PROMPTS = 50

#: Fewer different prompts with a label of a model than this cannot be spread over the folds.
MIN_TEXTS = FOLDS

#: With at least this many groups the penalty is chosen by leaving whole groups out, in at most this many folds.
MIN_GROUPS, GROUP_FOLDS = 5, 10

#: Folds are drawn anew until every model has enough labels on either side; with five labels one draw in 30 fails.
_DRAWS = 100


@dataclass(frozen=True)
class FittedMaps:
    """Holds a fit of the recipe: its linear map, its calibration maps, and what they predict for each row left out.

    Attributes:
        linear, leverage: of the ridge on all rows.
        calibrators: a map for each model, from predicted loss to risk.
        leverage_limit: a prompt of larger leverage is unfamiliar; None if there is no limit.
        predicted: (n, m) losses, each predicted for a row that the ridge had not seen.
        risk: (n, m) the same through maps that had not seen the row, 0 to 1.
        split: how these rows were left out, in words.
        tasks: the offsets of the tasks in the data; None if the data name no tasks.
    """

    linear: LinearProbe
    leverage: Leverage
    calibrators: tuple[Calibrator, ...]
    leverage_limit: float | None
    predicted: FloatArray
    risk: FloatArray
    split: str = f"{FOLDS}-fold cross-validation by prompt text, random"
    tasks: TaskOffsets | None = None

    def risk_of(self, features: npt.NDArray[np.float32]) -> FloatArray:
        """Return the calibrated risk (k, m) of other prompts by their features (k, d)."""
        return risk_through(self.calibrators, self.linear.predict(features).astype(np.float64))


def risk_through(calibrators: Sequence[Calibrator], predicted: FloatArray) -> FloatArray:
    """Return the risk (n, m) of predicted losses (n, m), each column through its own map."""
    return np.stack([one.predict(column) for one, column in zip(calibrators, predicted.T, strict=True)], axis=1)


def fit_maps(
    features: npt.NDArray[np.float32],
    losses: FloatArray,
    texts: Sequence[str],
    seed: int = 0,
    *,
    weights: FloatArray | None = None,
    groups: Sequence[str] = (),
) -> FittedMaps:
    """Fit the recipe to features (n, d) and losses (n, m); NaN stands for a model that was not asked.

    Each model is fitted on the prompts that it answered. weights: (n,) what each prompt counts in the ridge and in the
    calibration, > 0; None counts each once. The limit on unfamiliar prompts is a quantile of prompts, whatever these
    count. groups: (n,) the group of each prompt, an empty text for none; with enough groups the penalty is the one that
    is best on groups left out whole (`group_penalty`).

    Raises DataError for fewer than MIN_PROMPTS prompts, and for a model with labels of fewer than MIN_TEXTS different
    prompts.
    """
    if len(losses) < MIN_PROMPTS:
        raise DataError(f"fitting needs at least {MIN_PROMPTS} prompts, got {len(losses)}; add outcomes.")
    folds = spread_folds(losses, texts, seed)
    solution = fit_ridge(features, losses, weights, alphas=group_penalty(features, losses, groups, seed, weights))
    held_out = out_of_fold(features, losses, folds, alpha=solution.alpha, sample_weight=weights)
    calibrators, risk = cross_calibrate(DEFAULT_KIND, held_out.prediction, losses, folds, weights)
    limit = float(np.quantile(held_out.leverage, FAMILIAR_QUANTILE))
    return FittedMaps(solution.probe, solution.leverage, calibrators, limit, held_out.prediction, risk)


def group_penalty(
    features: npt.NDArray[np.float32],
    losses: FloatArray,
    groups: Sequence[str],
    seed: int = 0,
    weights: FloatArray | None = None,
) -> FloatArray | None:
    """Return the penalty (1,) of least error on groups left out whole, or None if the groups do not allow it.

    Rows of one group resemble each other, so a penalty chosen by leaving single rows out is too small for a kind of
    request that the fit has not seen. Arguments as in `fit_maps`. Prompts without a group count as one group. The
    result is None for fewer than MIN_GROUPS groups, and if some model has fewer than two labels outside some fold.
    """
    if len(set(groups)) < MIN_GROUPS:
        return None
    folds = assign_folds(groups, min(GROUP_FOLDS, len(set(groups))), seed)
    known = np.isfinite(losses)
    inside = np.stack([known[folds == number].sum(axis=0) for number in np.unique(folds)])
    if (known.sum(axis=0) - inside).min() < 2:
        return None
    grid, error = fold_errors(features, losses, folds, sample_weight=weights)
    return choose_alpha(grid, error, np.nanvar(losses, axis=0), per_target=False)[:1]


def enough_texts(losses: FloatArray, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return for each model (m,) whether its finite losses (n, m) are of at least MIN_TEXTS different texts."""
    numbers = group_numbers(texts)
    counts = [len(np.unique(numbers[np.isfinite(column)])) for column in losses.T]
    return np.array([count >= MIN_TEXTS for count in counts], dtype=np.bool_)


def spread_folds(losses: FloatArray, texts: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return a fold number for each prompt (n,), by text, such that every model has 2 labels outside each fold.

    Raises DataError if a model has labels of too few different texts for that.
    """
    numbers = group_numbers(texts)
    if not enough_texts(losses, texts).all():
        raise DataError(f"every model needs labels of at least {MIN_TEXTS} different prompts; add outcomes.")
    known = np.isfinite(losses)
    for draw in range(_DRAWS):
        folds = assign_folds(numbers, FOLDS, seed + draw)
        inside = np.stack([known[folds == number].sum(axis=0) for number in range(FOLDS)])
        if (known.sum(axis=0) - inside).min() >= 2:
            return folds
    raise DataError("the labels of some model are of too few prompts to be spread over folds; add outcomes.")
