"""Fit a probe to outcomes of several tasks: whole tasks are left out, and each task gets an offset of its loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.errors import DataError
from probes.probe import FAMILIAR_QUANTILE
from probes.regression.crossfit import assign_folds, fold_errors, out_of_fold
from probes.regression.fit import fit_ridge
from probes.regression.solution import choose_alpha
from probes.tasks.estimate import MIN_TASKS, fit_offsets
from router.tuning.fitting.recipe import MIN_PROMPTS, FittedMaps, FloatArray, spread_folds
from router.tuning.outcomes.distinct_texts import text_numbers

#: The folds of whole tasks, or as many as there are tasks if there are fewer.
TASK_FOLDS = 10


def fit_task_maps(
    features: npt.NDArray[np.float32],
    losses: FloatArray,
    texts: Sequence[str],
    tasks: Sequence[str],
    seed: int = 0,
    *,
    weights: FloatArray | None = None,
) -> FittedMaps:
    """Fit the recipe to features (n, d) and losses (n, m) of prompts of several tasks.

    As `fit_maps`, except that the penalty and the calibration maps are chosen by leaving whole tasks out, because tasks
    that were never seen are what the probe alone must judge; and that each task gets an offset (`TaskOffsets`). An
    empty key in `tasks` (n,) stands for a prompt without a task, which is left out with its text.

    Raises DataError as `fit_maps`, and for tasks that `task_fault` finds fault with.
    """
    if len(losses) < MIN_PROMPTS:
        raise DataError(f"fitting needs at least {MIN_PROMPTS} prompts, got {len(losses)}; add outcomes.")
    if fault := task_fault(losses, tasks):
        raise DataError(f"{fault}.")
    by_task, by_text = _task_folds(texts, tasks, seed), spread_folds(losses, texts, seed)
    grid, errors = fold_errors(features, losses, by_task, sample_weight=weights)
    alpha = choose_alpha(grid, errors, np.nanvar(losses, axis=0), False)
    solution = fit_ridge(features, losses, weights, alphas=alpha[:1])
    rest = {"alpha": alpha, "sample_weight": weights}
    left_task_out = out_of_fold(features, losses, by_task, **rest)
    left_row_out = out_of_fold(features, losses, by_text, **rest)
    calibrators, risk = cross_calibrate(DEFAULT_KIND, left_task_out.prediction, losses, by_task, weights)
    return FittedMaps(
        linear=solution.probe,
        leverage=solution.leverage,
        calibrators=calibrators,
        leverage_limit=float(np.quantile(left_row_out.leverage, FAMILIAR_QUANTILE)),
        predicted=left_task_out.prediction,
        risk=risk,
        split=f"whole tasks left out, {len(np.unique(by_task))} folds",
        tasks=fit_offsets(tasks, losses - left_task_out.prediction, losses - left_row_out.prediction),
    )


def task_fault(losses: FloatArray, tasks: Sequence[str]) -> str | None:
    """Return why offsets of these tasks cannot be learned from losses (n, m), or None if they can."""
    keys = np.array(tasks, dtype=object)
    known = np.isfinite(losses)
    least = min(
        sum(int(known[keys == key, column].sum()) >= 2 for key in set(tasks) - {""}) for column in range(known.shape[1])
    )
    if least >= MIN_TASKS:
        return None
    return (
        f"offsets of tasks need {MIN_TASKS} tasks with two labels or more of every model, and some model has "
        f"{least} of them"
    )


def _task_folds(texts: Sequence[str], tasks: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return a fold number for each prompt (n,): prompts of one task share it, others share it with equal texts."""
    numbers = text_numbers(texts).tolist()
    labels = [f"task {task}" if task else f"text {number}" for task, number in zip(tasks, numbers, strict=True)]
    return assign_folds(labels, min(TASK_FOLDS, len(set(labels))), seed)
