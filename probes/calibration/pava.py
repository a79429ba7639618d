"""Isotonic regression by pooling adjacent violators, as linked lists of pools that every sub-range shares.

In the pools of a suffix i..n, what follows the first pool i..e is exactly the pools of the suffix e..n;
so one array, "where does the first pool end", holds the isotonic regressions of all suffixes at once (and
its mirror those of all prefixes). That makes the n + 1 regressions "with one more point" of Venn-Abers
cheap.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import numpy as np

from probes._checks import Float64

_SAME = 1e-12
"""Means of losses (in [0, 1]) this close are one pool: their difference is rounding."""


def pool(y: Float64, w: Float64) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return where the pools of increasing isotonic regression begin; y: (n,) values, w: (n,) weights > 0."""
    ends = _first_pool_ends(y.tolist(), w.tolist())
    starts = [0]
    while ends[starts[-1]] < len(ends):
        starts.append(ends[starts[-1]])
    return np.array(starts, dtype=np.int64)


def pooled_with_one_more(y: Float64, w: Float64, label: float) -> tuple[Float64, Float64]:
    """Return the isotonic value of one more point of weight 1 and this label, wherever it may come.

    First, (n + 1,): strictly before point 0, between points 0 and 1, ..., after point n - 1. Second,
    (n,): at the very place of each point, with which it is then pooled.
    """
    n = y.shape[0]
    ends = _first_pool_ends(y.tolist(), w.tolist())
    # The last pool of each prefix: the mirror image, where decreasing in reverse is increasing of -y.
    mirrored = _first_pool_ends((-y[::-1]).tolist(), w[::-1].tolist())
    begins: list[int] = [0, *(n - end for end in reversed(mirrored))]
    mass: list[float] = [0.0, *accumulate(w.tolist())]
    total: list[float] = [0.0, *accumulate((w * y).tolist())]

    def value(a: int, b: int) -> float:
        """Pool the new point with points a..b-1 and with whatever pools then violate the order."""
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
    """Return, for each i, the end (exclusive) of the first pool of the regression on i..n-1."""
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
