"""Compute shares and means with 95 % intervals: Wilson's for shares of prompts, a bootstrap for means over kinds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_RESAMPLES = 2000


def share_of(values: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Return a share with its number and the 95 % interval of Wilson (1927)."""
    n, z = len(values), 1.96
    if not n:
        return {"n": 0}
    share = float(values.mean())
    centre, spread = share + z**2 / (2 * n), z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return {
        "n": n,
        "share": share,
        "low": (centre - spread) / (1 + z**2 / n),
        "high": (centre + spread) / (1 + z**2 / n),
    }


def mean_over(unit: npt.NDArray[np.int64], values: npt.NDArray[np.generic], seed: int = 0) -> dict[str, float]:
    """Return the mean over units of the means of their values (n,), with a bootstrap over units."""
    means = np.array([values[unit == one].astype(np.float64).mean() for one in np.unique(unit)])
    if not len(means):
        return {"n": 0}
    rng = np.random.default_rng(seed)
    draws = means[rng.integers(len(means), size=(_RESAMPLES, len(means)))].mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"n": len(means), "mean": float(means.mean()), "low": float(low), "high": float(high)}
