"""Compare the requests of two blocks, signal by signal, by a chi-squared test and a distance (`compare_counts`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

#: A category with fewer expected requests than this in either block is put together with other rare ones, because the
#: chi-squared distribution fits small counts badly (Cochran 1954).
FEWEST_EXPECTED = 5.0


@dataclass(frozen=True, slots=True)
class MixComparison:
    """Says how far the requests of two blocks differ in one signal.

    Attributes:
        distance: the total variation distance of the two mixes, 0 to 1: the share of the requests that would have to
            change their category.
        p_value: the chance of a chi-squared statistic at least as large if both blocks are draws of one mix; 1 if there
            is nothing to compare.
        moved: the category whose share changed most, with its share before and now; empty if there is none.
    """

    distance: float
    p_value: float
    moved: tuple[str, float, float] | tuple[()] = ()


def compare_counts(before: Mapping[str, int], now: Mapping[str, int]) -> MixComparison:
    """Return how far two mixes of categories differ, given the number of requests in each category.

    The test is the chi-squared test of homogeneity of a table of two rows. Its requests must be independent, which is
    why a session counts only once for each block.
    """
    n_before, n_now = sum(before.values()), sum(now.values())
    if not n_before or not n_now:
        return MixComparison(0.0, 1.0)
    names = sorted(before.keys() | now.keys())
    shares = {name: (before.get(name, 0) / n_before, now.get(name, 0) / n_now) for name in names}
    moved = max(names, key=lambda name: abs(shares[name][1] - shares[name][0]))
    cells = _pooled([(before.get(name, 0), now.get(name, 0)) for name in names], n_before, n_now)
    distance = sum(abs(a / n_before - b / n_now) for a, b in cells) / 2
    return MixComparison(distance, _p_value(cells, n_before, n_now), (moved, *shares[moved]))


def _pooled(cells: list[tuple[int, int]], n_before: int, n_now: int) -> list[tuple[int, int]]:
    """Return the cells, the rare ones added up to one. If even that is rare, it is added to the smallest other cell."""
    smaller = min(n_before, n_now) / (n_before + n_now)
    common = [cell for cell in cells if sum(cell) * smaller >= FEWEST_EXPECTED]
    rare = [cell for cell in cells if sum(cell) * smaller < FEWEST_EXPECTED]
    if rare:
        rest = (sum(a for a, _ in rare), sum(b for _, b in rare))
        if sum(rest) * smaller < FEWEST_EXPECTED and common:
            a, b = common.pop(min(range(len(common)), key=lambda i: sum(common[i])))
            rest = (rest[0] + a, rest[1] + b)
        common.append(rest)
    return common


def _p_value(cells: list[tuple[int, int]], n_before: int, n_now: int) -> float:
    total = n_before + n_now
    statistic = 0.0
    for a, b in cells:
        expected = (a + b) * n_before / total, (a + b) * n_now / total
        statistic += sum((seen - wanted) ** 2 / wanted for seen, wanted in zip((a, b), expected, strict=True) if wanted)
    return chi_squared_tail(statistic, len(cells) - 1)


def chi_squared_tail(statistic: float, degrees: int) -> float:
    """Return about the chance that a chi-squared variable of so many degrees of freedom is at least `statistic`.

    It is the approximation of Wilson and Hilferty (1931): the cube root of chi squared over its degrees of freedom is
    nearly normal with mean 1 - 2 / (9 k) and variance 2 / (9 k). With one degree the exact normal tail is used.
    """
    if degrees < 1 or statistic <= 0:
        return 1.0
    if degrees == 1:
        return math.erfc(math.sqrt(statistic / 2))
    variance = 2 / (9 * degrees)
    z = ((statistic / degrees) ** (1 / 3) - (1 - variance)) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2)) / 2
