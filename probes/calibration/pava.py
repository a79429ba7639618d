"""Fit isotonic regression by the pool-adjacent-violators algorithm, for all prefixes and suffixes at once.

If the first pool of a suffix i..n is i..e, its other pools are exactly the pools of the suffix e..n. So one array,
"where does the first pool end", holds the isotonic regressions of all suffixes, and its mirror image those of all
prefixes. That makes the n + 1 regressions "with one more point" of Venn-Abers cheap.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np

from probes._checks import Float64

# Means of losses (in [0, 1]) that differ by less than this are pooled: the difference is rounding.
_SAME = 1e-12


def pool_starts(y: Float64, w: Float64) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the first index of each pool of the isotonic regression of values y (n,) with weights w (n,) > 0."""
    ends = _first_pool_ends(y.tolist(), w.tolist())
    starts = [0]
    while ends[starts[-1]] < len(ends):
        starts.append(ends[starts[-1]])
    return np.array(starts, dtype=np.int64)


def pooled_with_one_more(y: Float64, w: Float64, label: float) -> tuple[Float64, Float64]:
    """Return the isotonic value of one more point of weight 1 and this label, for every place it can have.

    The first array, (n + 1,), is for a new point strictly before point 0, between points 0 and 1, ..., after point
    n - 1. The second, (n,), is for a new point at the place of each point, with which it is then pooled.
    """
    n = y.shape[0]
    ends = _first_pool_ends(y.tolist(), w.tolist())
    # The last pool of each prefix comes from the mirror image: y read backwards falls if -y rises.
    mirrored = _first_pool_ends((-y[::-1]).tolist(), w[::-1].tolist())
    begins: list[int] = [0, *(n - end for end in reversed(mirrored))]
    mass: list[float] = [0.0, *accumulate(w.tolist())]
    total: list[float] = [0.0, *accumulate((w * y).tolist())]

    def value(a: int, b: int) -> float:
        """Return the mean of the new point, points a..b-1 and every pool that then violates the order."""
        while True:
            mean = (total[b] - total[a] + label) / (mass[b] - mass[a] + 1.0)
            if a > 0 and (total[a] - total[begins[a]]) >= mean * (mass[a] - mass[begins[a]]):
                a = begins[a]
            elif b < n and (total[ends[b]] - total[b]) <= mean * (mass[ends[b]] - mass[b]):
                b = ends[b]
            else:
                return mean

    between = np.array([value(i, i) for i in range(n + 1)])
    on = np.array([value(a, b) for a, b in pairwise(range(n + 1))])
    return between, on


def _first_pool_ends(y: list[float], w: list[float]) -> list[int]:
    """Return, for each i, the exclusive end of the first pool of the regression on i..n-1."""
    n = len(y)
    ends = [n] * n
    mean, mass = list(y), list(w)
    for i in range(n - 1, -1, -1):
        end = i + 1
        while end < n and mean[i] >= mean[end] - _SAME:
            both = mass[i] + mass[end]
            mean[i] = (mean[i] * mass[i] + mean[end] * mass[end]) / both
            mass[i] = both
            end = ends[end]
        ends[i] = end
    return ends
