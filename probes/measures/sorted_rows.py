"""Sort rows once by a number, so that figures of every resample follow from how often it drew each row (`SortedRows`).

A resample is a weight for each row. So a bootstrap sorts once and not 1,000 times, and the figures of the rows
themselves are those under the weight 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64


class SortedRows:
    """Holds n rows in the ascending order of a number. Rows of an equal number form one run, in which no order counts.

    keys: (n,) at least one number.

    Attributes:
        order: (n,) the rows in their order.
        ends: (k,) the position in this order of the last row of each run.
    """

    def __init__(self, keys: npt.ArrayLike) -> None:
        numbers = np.asarray(keys)
        self.order: Array = np.argsort(numbers, kind="stable")
        self.ends: Array = np.append(np.flatnonzero(np.diff(numbers[self.order])), len(numbers) - 1)

    def sums(self, values: npt.ArrayLike) -> Float64:
        """Return the sums of values up to the end of each run, (k + 1,) from 0 on; values (n,) stand in the order."""
        return np.concatenate([[0.0], np.cumsum(values)[self.ends]])


def share_of_pairs(rows: SortedRows, labels: Float64, weight: npt.NDArray[np.int64] | Float64) -> float:
    """Return the share of pairs of a 1 and a 0 in which the 1 has the larger number; an equal one counts half.

    This is the area under the ROC curve (Mann and Whitney). labels: (n,) 0 or 1, in the order of `rows`. weight: (n,)
    how often each row counts, in the order in which the rows came. NaN if there is no pair.
    """
    drawn = weight[rows.order]
    ones = np.diff(rows.sums(drawn * labels))
    zeros = np.diff(rows.sums(drawn)) - ones
    pairs = ones.sum() * zeros.sum()
    if pairs == 0:
        return float("nan")
    below = np.cumsum(zeros) - zeros
    return float(ones @ (below + zeros / 2.0) / pairs)


class RankedGains:
    """Holds what a ranking of n prompts gains as more and more of them go to the strong model, the best ones first.

    scores: (n,) prompts of larger score go first, and prompts of equal score together. gains: (n,) each.
    """

    def __init__(self, scores: Float64, *gains: Float64) -> None:
        self._rows = SortedRows(-scores)
        self._gains = [gain[self._rows.order] for gain in gains]

    def cumulative(self, weight: npt.NDArray[np.int64] | None = None) -> tuple[Float64, ...]:
        """Return the share of prompts sent, and the mean of each gain so far; (k + 1,) each, from 0 on.

        weight: (n,) how often each prompt counts, in the order in which the prompts came; None counts each once.
        """
        drawn = np.ones(len(self._rows.order)) if weight is None else weight[self._rows.order]
        total = drawn.sum()
        sums = (self._rows.sums(drawn if gain is None else drawn * gain) for gain in (None, *self._gains))
        return tuple(one / total for one in sums)


def area_recovered(share: Float64, gained: Float64) -> float:
    """Return the part of the whole gain that is recovered, averaged over shares by trapezoids; random is 0.5 (APGR)."""
    return float(np.trapezoid(gained / gained[-1], share))
