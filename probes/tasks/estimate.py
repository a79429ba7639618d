"""Estimate how much tasks differ, by the method of moments, and the offsets of the tasks of a fit (`fit_offsets`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from probes._checks import Float64, matrix
from probes.errors import DataError
from probes.grouping import rows_by_label
from probes.tasks.keys import MAX_TASKS
from probes.tasks.offsets import TaskOffsets, counted

#: Fewer tasks than this say too little about how tasks differ.
MIN_TASKS = 5

#: The least variance of the noise. Labels that never vary within a task would else be believed without any limit.
_LEAST_VARIANCE = 1e-4


def fit_offsets(tasks: Sequence[str], left_task_out: npt.ArrayLike, left_row_out: npt.ArrayLike) -> TaskOffsets:
    """Return the offsets of the tasks of a fit. An empty key stands for a row without a task, which is not counted.

    Args:
        tasks: (n,) the key of each row's task.
        left_task_out: (n, m) true minus predicted loss, predicted by fits without the task of the row; NaN for a model
            that was not asked. They say how much tasks differ that the probe has not seen.
        left_row_out: (n, m) the same, predicted by fits without the row itself. They say what the probe still lacks on
            a task that it was fitted on, as the labels that are added later do.

    If there are more than MAX_TASKS tasks, those with the most rows are kept.

    Raises DataError for fewer than MIN_TASKS tasks with two labels of every model.
    """
    named = np.array([key != "" for key in tasks], dtype=np.bool_)
    keys = np.array(tasks, dtype=object)[named]
    outer, inner = matrix("left_task_out", left_task_out)[named], matrix("left_row_out", left_row_out)[named]
    covariance, variance = moments(keys.tolist(), outer)
    rows = rows_by_label(keys.tolist())
    kept = sorted(sorted(rows, key=lambda key: (-len(rows[key]), key))[:MAX_TASKS])
    sums = [counted(inner[rows[key]], inner.shape[1]) for key in kept]
    return TaskOffsets(
        tuple(kept), covariance, variance, np.stack([n for n, _ in sums]), np.stack([s for _, s in sums])
    )


def moments(tasks: Sequence[str], residuals: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return the covariance (m, m) of offsets over tasks, and the variance (m,) of the noise within tasks.

    For a pair of models only rows with a label of both are used. With N_t such rows of task t, and means r_tj and r_tk
    of the residuals over them, the scatter within tasks, divided by the sum of N_t - 1, estimates the covariance of the
    noise, and the mean over tasks of r_tj r_tk, less that divided by N_t, the covariance of the offsets: the method of
    moments for the one-way random-effects model with mean 0 (Searle, Casella and McCulloch 1992, "Variance
    Components", chapter 3; every task counts once). Negative eigenvalues are set to 0.

    Raises DataError for fewer than MIN_TASKS tasks with two labels of every model.
    """
    R = matrix("residuals", residuals)
    m = R.shape[1]
    scatter, freedom, products, inverse, n_tasks = np.zeros((5, m, m))
    repeated = np.zeros(m)
    for own in rows_by_label(tasks).values():
        known = (~np.isnan(R[own])).astype(np.float64)
        values = np.nan_to_num(R[own])
        common = known.T @ known
        # Entry (j, k) is the mean of model j over the rows that have a label of k too.
        means = np.divide(values.T @ known, common, out=np.zeros((m, m)), where=common > 0)
        scatter += values.T @ values - common * means * means.T
        freedom += np.maximum(common - 1.0, 0.0)
        products += means * means.T
        inverse += np.divide(1.0, common, out=np.zeros((m, m)), where=common > 0)
        n_tasks += common > 0
        repeated += np.diag(common) >= 2
    if repeated.min() < MIN_TASKS:
        raise DataError(
            f"at least {MIN_TASKS} tasks must have two labels or more of every model; for some model, "
            f"{repeated.min():g} have."
        )
    noise = np.divide(scatter, freedom, out=np.zeros((m, m)), where=freedom > 0)
    between = np.divide(products - noise * inverse, n_tasks, out=np.zeros((m, m)), where=n_tasks > 0)
    values, vectors = np.linalg.eigh((between + between.T) / 2)
    covariance = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return (covariance + covariance.T) / 2, np.maximum(np.diag(noise), _LEAST_VARIANCE)
