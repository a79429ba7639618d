"""Compute percentile bootstrap intervals, which are paired, repeatable by seed, and by group if asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, Indices
from probes.errors import DataError

#: The quantiles of resampled figures that bound a 95 % interval.
PERCENTILES = (0.025, 0.975)


@dataclass(frozen=True, slots=True)
class Interval:
    """Holds an estimate and its two-sided confidence interval; `confidence` is the nominal coverage, in [0, 1).

    A confidence of 0 says that there are too few data for an interval; both ends are then the estimate.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95

    @property
    def is_known(self) -> bool:
        """Return whether there is an interval, and not the estimate alone."""
        return self.confidence > 0

    @classmethod
    def of_draws(cls, draws: npt.ArrayLike) -> Interval:
        """Return the percentile interval (95 %) of a figure: the estimate stands first, then one for each resample."""
        value, *resampled = np.asarray(draws, dtype=np.float64).tolist()
        low, high = np.quantile(resampled, PERCENTILES)
        return cls(value, float(low), float(high))

    @classmethod
    def unknown(cls, value: float) -> Interval:
        """Return an estimate from too few data for an interval."""
        return cls(value, value, value, 0.0)


def resampled_weights(n: int, resamples: int, seed: int) -> Iterator[Indices]:
    """Yield a weight for each of n rows, (n,): first 1 for all, then for each resample how often the row was drawn."""
    rng = np.random.default_rng(seed)
    yield np.ones(n, dtype=np.int64)
    for _ in range(resamples):
        yield np.bincount(rng.integers(0, n, n), minlength=n)


def resampled_sums(values: Float64, resamples: int, seed: int) -> Float64:
    """Return the sums of the columns (n, c): first of all rows, then of each resample of them, (1 + resamples, c)."""
    _, *drawn = resampled_weights(len(values), resamples, seed)
    return np.stack([values.sum(axis=0), *(weight @ values for weight in drawn)])


def bootstrap(
    statistic: Callable[..., float],
    *arrays: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return `statistic(*arrays)` with its percentile bootstrap interval (Efron 1979).

    All arrays are resampled by the same rows (their first axis), so a statistic that compares two of them is a paired
    comparison. For example, a statistic that returns the difference of two figures gives the interval of the
    difference. groups: (n,) labels; if given, whole groups are drawn with replacement, for rows that depend on each
    other. Of a single row, or a single group, the interval is unknown.

    Raises DataError for unequal lengths, no rows, confidence outside (0, 1) or fewer than 2 resamples. An error that
    the statistic raises on a resample is raised as it is.
    """
    columns = [np.asarray(array) for array in arrays]
    n = columns[0].shape[0] if columns else 0
    if n == 0 or any(column.shape[0] != n for column in columns):
        raise DataError(f"arrays must have equally many rows, at least 1; got {[c.shape[0] for c in columns]}.")
    n_drawn = n if groups is None else len(np.unique(np.asarray(groups)))
    if not 0.0 < confidence < 1.0 or n_resamples < 2:
        raise DataError(f"confidence must lie in (0, 1) and n_resamples be >= 2; got {confidence} and {n_resamples}.")
    draw = _row_sampler(n) if groups is None else _group_sampler(np.asarray(groups), n)
    if n_drawn < 2:
        return Interval.unknown(float(statistic(*columns)))
    rng = np.random.default_rng(seed)
    draws = np.empty(n_resamples)
    for resample in range(n_resamples):
        rows = draw(rng)
        draws[resample] = statistic(*(column[rows] for column in columns))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return Interval(float(statistic(*columns)), float(low), float(high), confidence)


def _row_sampler(n: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.integers(0, n, size=n)


def _group_sampler(groups: Array, n: int) -> Callable[[np.random.Generator], Array]:
    if groups.shape != (n,):
        raise DataError(f"groups must hold one label per row, {n}; got shape {groups.shape}.")
    _, position = np.unique(groups, return_inverse=True)
    order = np.argsort(position, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(position))[:-1])
    return lambda rng: np.concatenate([members[g] for g in rng.integers(0, len(members), size=len(members))])
