"""Fit a probe to outcomes of several tasks: whole tasks are left out, and each task gets an offset of its loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.probe import FAMILIAR_QUANTILE
from probes.regression.crossfit import assign_folds, fold_errors, out_of_fold
from probes.regression.fit import fit_ridge
from probes.regression.solution import choose_alpha
from probes.tasks.estimate import MIN_TASKS, fit_offsets
from probes.tasks.offsets import TaskOffsets
from router.tuning.fitting.recipe import MIN_PROMPTS, FittedMaps, FloatArray, spread_folds

#: The labels of its task that a row has in the half of the calibration that is about labelled tasks.
FEW_LABELS = 3

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
    that were never seen are what the probe alone must judge; and that each task gets an offset (`TaskOffsets`). The
    maps are fitted to predictions without labels and, as many, to predictions after FEW_LABELS labels of the task. An
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
    predicted = left_task_out.prediction
    offsets = fit_offsets(tasks, losses - predicted, losses - left_row_out.prediction)
    # The maps must serve tasks without labels and with labels, whose predictions spread further: so half and half.
    labelled = predicted + _offsets_by_few_labels(offsets, tasks, losses - predicted, seed)
    calibrators, risk = cross_calibrate(
        DEFAULT_KIND,
        np.concatenate([predicted, labelled]),
        np.concatenate([losses, losses]),
        np.tile(by_task, 2),
        None if weights is None else np.tile(weights, 2),
    )
    return FittedMaps(
        linear=solution.probe,
        leverage=solution.leverage,
        calibrators=calibrators,
        leverage_limit=float(np.quantile(left_row_out.leverage, FAMILIAR_QUANTILE)),
        predicted=predicted,
        risk=risk[: len(losses)],
        split=f"whole tasks left out, {len(np.unique(by_task))} folds",
        tasks=offsets,
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


def _offsets_by_few_labels(offsets: TaskOffsets, tasks: Sequence[str], residuals: FloatArray, seed: int) -> FloatArray:
    """Return the offset (n, m) that each row would have after FEW_LABELS labels of other rows of its task."""
    found, rng = np.zeros(residuals.shape), np.random.default_rng(seed)
    keys = np.array(tasks, dtype=object)
    for task in sorted(set(tasks) - {""}):
        rows = rng.permutation(np.flatnonzero(keys == task))
        for place, row in enumerate(rows):
            others = np.roll(rows, -place)[1 : FEW_LABELS + 1]
            if others.size:
                found[row] = offsets.of_labels(residuals[others])
    return found


def _task_folds(texts: Sequence[str], tasks: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """Return a fold number for each prompt (n,): prompts of one task share it, others share it with equal texts."""
    numbers = group_numbers(texts).tolist()
    labels = [f"task {task}" if task else f"text {number}" for task, number in zip(tasks, numbers, strict=True)]
    return assign_folds(labels, min(TASK_FOLDS, len(set(labels))), seed)
