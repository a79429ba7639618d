"""Estimate the mean reward that a policy would have had, from logged decisions of another policy (`estimate`).

Every row is a request whose logged choice was drawn with a known probability, the propensity. A row counts with the
weight 1 / propensity if the policy chooses what was logged, and with 0 if not.

- `ips` is the mean of weight x reward (Horvitz-Thompson). It has no bias if every choice of the policy could have been
  logged, and a large variance.
- `snips` divides the sum of weight x reward by the sum of the weights. It is steadier, with a bias that vanishes.
- `dr` is doubly robust: the mean of what a model expects of the policy's choice, corrected by weight x (reward - what
  the model expects of the logged choice). It has no bias if the propensities or the model are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.measures.bootstrap import Interval, bootstrap

#: Weighted rows that the weights must be worth, and rows that must match, before an estimate says anything.
LEAST_EFFECTIVE = 100.0

#: The largest share of requests whose choice by the policy could not have been logged.
MOST_UNSUPPORTED = 0.05

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LoggedRewards:
    """Holds rows for one policy, as arrays of one length.

    Attributes:
        weights: 1 / propensity if the policy chooses what was logged, else 0.
        rewards: what was seen of the logged choice.
        expected_of_logged: what the model expected of the logged choice.
        expected_of_policy: what the model expects of the policy's choice.
        supported: whether the policy's choice could have been logged.
    """

    weights: Floats
    rewards: Floats
    expected_of_logged: Floats
    expected_of_policy: Floats
    supported: npt.NDArray[np.bool_]

    @property
    def columns(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return what the estimators read."""
        return self.weights, self.rewards, self.expected_of_logged, self.expected_of_policy


@dataclass(frozen=True, slots=True)
class Overlap:
    """Says how much the logged choices tell about a policy.

    Attributes:
        n_rows: the number of rows.
        n_matched: the rows in which the policy chooses what was logged.
        effective: the effective sample size of the weights, (sum w)^2 / sum w^2.
        max_weight: the largest weight; one row counts as this many.
        unsupported_share: the share of rows in which the policy's choice could not have been logged.
    """

    n_rows: int
    n_matched: int
    effective: float
    max_weight: float
    unsupported_share: float

    @property
    def why_not_enough(self) -> str:
        """Return why nothing can be said, in words; empty if the overlap is enough."""
        if self.unsupported_share > MOST_UNSUPPORTED:
            return (
                f"for {self.unsupported_share:.0%} of the requests the policy's choice could not have been logged; let "
                "the served policy explore (key `explore`)"
            )
        if self.effective < LEAST_EFFECTIVE:
            return f"the rows are worth {self.effective:.0f} independent ones, and {LEAST_EFFECTIVE:.0f} are needed"
        return ""


def overlap_of(rows: LoggedRewards) -> Overlap:
    """Return how much the logged choices tell about the policy."""
    weights, total = rows.weights, float(rows.weights.sum())
    square = float((weights**2).sum())
    return Overlap(
        n_rows=len(weights),
        n_matched=int(np.count_nonzero(weights)),
        effective=total**2 / square if square else 0.0,
        max_weight=float(weights.max(initial=0.0)),
        unsupported_share=float(1 - rows.supported.mean()) if len(weights) else 0.0,
    )


def ips(weights: Floats, rewards: Floats, *_: Floats) -> float:
    """Return the inverse propensity score estimate."""
    return float(np.mean(weights * rewards))


def snips(weights: Floats, rewards: Floats, *_: Floats) -> float:
    """Return the self-normalised estimate; NaN if no row matches."""
    total = float(weights.sum())
    return float((weights * rewards).sum() / total) if total else float("nan")


def dr(weights: Floats, rewards: Floats, expected_of_logged: Floats, expected_of_policy: Floats) -> float:
    """Return the doubly robust estimate."""
    return float(np.mean(expected_of_policy + weights * (rewards - expected_of_logged)))


ESTIMATORS: Mapping[str, Callable[..., float]] = {"ips": ips, "snips": snips, "dr": dr}


def estimate(rows: LoggedRewards, *, seed: int = 0) -> dict[str, Interval]:
    """Return each estimate with its 95 % percentile bootstrap interval, by the name of the estimator.

    The interval is of the sampling of requests. It holds no error of the propensities, and none of unsupported choices.
    """
    return {name: _bounded(one, *rows.columns, seed=seed) for name, one in ESTIMATORS.items()}


def estimated_difference(first: LoggedRewards, second: LoggedRewards, *, seed: int = 0) -> dict[str, Interval]:
    """Return by how much each estimate of `second` exceeds that of `first`, paired by row, with its 95 % interval."""

    def minus(name: str, *columns: Floats) -> float:
        one = ESTIMATORS[name]
        return one(*columns[4:]) - one(*columns[:4])

    columns = (*first.columns, *second.columns)
    return {
        name: _bounded(lambda *resampled, name=name: minus(name, *resampled), *columns, seed=seed)
        for name in ESTIMATORS
    }


def _bounded(statistic: Callable[..., float], *columns: Floats, seed: int) -> Interval:
    """Return an estimate with its interval, which is unknown if so few rows match that some resamples have none."""
    found = bootstrap(statistic, *columns, seed=seed)
    return Interval.unknown(found.value) if np.isnan(found.low) else found
