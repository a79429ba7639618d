"""Measure how well a ranking of prompts routes between a weak and a strong model.

Conventions: one row per prompt. `gain_scores` rank the prompts; the prompt with the largest score goes to the strong
model first. Qualities are scores in any unit in which more is better. Prompts with equal scores move together, because
every order among them is equally good: each figure is the mean over those orders and does not depend on the order of
the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Float64, vector
from probes.errors import DataError
from probes.measures.sorted_rows import RankedGains, area_recovered


@dataclass(frozen=True, slots=True, eq=False)
class CostQualityCurve:
    """Holds mean quality and mean cost as the strong share grows: three vectors (k,), joined by straight lines.

    share: fraction of prompts sent to the strong model, 0 to 1 ascending. cost: mean cost per prompt.
    quality: mean quality per prompt.
    """

    share: Float64
    cost: Float64
    quality: Float64


def apgr(gain_scores: npt.ArrayLike, weak: npt.ArrayLike, strong: npt.ArrayLike) -> float:
    """Return the average performance gap recovered, the integral of PGR over the share of strong calls; random is 0.5.

    PGR(share) = (quality(share) - quality(0)) / (quality(1) - quality(0)), integrated by trapezoids (Ong et al. 2024;
    the ten-point sum that they print would give .55 for random, but the figures that they report are trapezoids).

    Raises DataError if the strong model is not better on these rows, because there is then no gap to recover.
    """
    return area_recovered(*_gained(gain_scores, weak, strong))


def cpt(gain_scores: npt.ArrayLike, weak: npt.ArrayLike, strong: npt.ArrayLike, x: float) -> float:
    """Return the call-performance threshold: the least share of strong calls at which PGR reaches x, both in [0, 1].

    Between two prompts PGR is a straight line; a random ranking reaches x at the share x. Raises the errors of `apgr`.
    """
    if not 0.0 <= x <= 1.0:
        raise DataError(f"x must lie in [0, 1]; got {x}. CPT(50 %) is x = 0.5.")
    share, gained = _gained(gain_scores, weak, strong)
    return share_reaching(share, gained / gained[-1], x)


def share_reaching(share: Float64, recovered: Float64, x: float) -> float:
    """Return the least share of strong calls at which the recovered part of the gap reaches x, from 0 to 1.

    The curve is given by its points, both (k,): `share` ascending from 0 to 1, and `recovered` from 0 to 1 at its ends.
    Points are joined by straight lines: `share_reaching([0, 1], [0, 1], 0.3)` is 0.3.
    """
    # Rounding may end the curve slightly below 1, so x = 1 is taken to mean its end.
    wanted = min(x, recovered[-1])
    first = int(np.argmax(recovered >= wanted))
    if first == 0:
        return float(share[0])
    part = (wanted - recovered[first - 1]) / (recovered[first] - recovered[first - 1])
    return float(share[first - 1] + part * (share[first] - share[first - 1]))


def cost_quality_curve(
    gain_scores: npt.ArrayLike,
    weak: npt.ArrayLike,
    strong: npt.ArrayLike,
    weak_cost: npt.ArrayLike,
    strong_cost: npt.ArrayLike,
) -> CostQualityCurve:
    """Return the curve from all prompts weak to all strong; each cost is one number, or one per prompt (n,)."""
    s, low, high = _rows(gain_scores, weak, strong)
    cheap, expensive = (
        vector("cost", np.broadcast_to(np.asarray(cost, dtype=np.float64), s.shape), s.shape[0])
        for cost in (weak_cost, strong_cost)
    )
    share, quality_gain, cost_gain = RankedGains(s, high - low, expensive - cheap).cumulative()
    return CostQualityCurve(share, cheap.mean() + cost_gain, low.mean() + quality_gain)


def area_under_curve(curve: CostQualityCurve) -> float:
    """Return the mean quality over the cost axis: integral of quality d cost / (last - first cost), by trapezoids."""
    width = float(curve.cost[-1] - curve.cost[0])
    if width <= 0.0:
        raise DataError(f"the curve must end at a higher cost than it starts; its cost changes by {width:g}.")
    return float(np.trapezoid(curve.quality, curve.cost)) / width


def aiq(curve: CostQualityCurve) -> float:
    """Return the average improvement in quality (Hu et al. 2024, RouterBench): mean quality under the concave hull.

    The hull is the least non-decreasing concave curve above the points; a router reaches it if it mixes two of its
    settings at random. The mean is over the cost axis, as in `area_under_curve`.
    """
    cost, quality = _concave_hull(curve.cost, curve.quality)
    width = float(cost[-1] - cost[0])
    if width <= 0.0:
        raise DataError(f"the curve must span a range of costs; got {width:g}.")
    return float(np.trapezoid(quality, cost)) / width


def cost_saved(curve: CostQualityCurve, reference_cost: float, reference_quality: float) -> float | None:
    """Return the share of cost saved at equal quality: 1 - (least cost at which quality >= reference) / reference cost.

    It is negative if equal quality costs more, and None if the curve never reaches the reference's quality.
    """
    if reference_cost <= 0.0:
        raise DataError(f"reference_cost must be > 0; got {reference_cost}.")
    quality, cost = curve.quality, curve.cost
    slack = 1e-12 * max(1.0, abs(reference_quality))
    reached = quality >= reference_quality - slack
    if not reached.any():
        return None
    least = float(cost[reached].min())
    for i in np.flatnonzero(reached[1:] != reached[:-1]):
        part = (reference_quality - quality[i]) / (quality[i + 1] - quality[i])
        least = min(least, float(cost[i] + np.clip(part, 0.0, 1.0) * (cost[i + 1] - cost[i])))
    return 1.0 - least / reference_cost


def _gained(gain_scores: npt.ArrayLike, weak: npt.ArrayLike, strong: npt.ArrayLike) -> tuple[Float64, Float64]:
    s, low, high = _rows(gain_scores, weak, strong)
    gap = float((high - low).mean())
    if gap <= 0.0:
        raise DataError(
            f"the strong model must be better than the weak one on these rows; the mean gap is {gap:g}. "
            "Swap them, or measure with a cost-quality curve."
        )
    share, gained = RankedGains(s, high - low).cumulative()
    return share, gained


def _rows(gain_scores: npt.ArrayLike, weak: npt.ArrayLike, strong: npt.ArrayLike) -> tuple[Float64, Float64, Float64]:
    s = vector("gain_scores", gain_scores)
    if s.shape[0] == 0:
        raise DataError("gain_scores must hold at least one row; got none.")
    return s, vector("weak", weak, s.shape[0]), vector("strong", strong, s.shape[0])


def _concave_hull(x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Return the upper hull by Andrew's monotone chain, flat from its maximum to the last x."""
    # Plain floats: reading single numbers of an array takes most of the time, and bootstraps come here often.
    across, up = x.tolist(), y.tolist()
    hull: list[int] = []
    for i in np.lexsort((-y, x)).tolist():
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (across[b] - across[a]) * (up[i] - up[a]) < (up[b] - up[a]) * (across[i] - across[a]):
                break
            hull.pop()
        if not hull or across[i] > across[hull[-1]]:
            hull.append(i)
    top = int(np.argmax(y[hull])) + 1
    kept = np.array(hull[:top])
    return np.append(x[kept], x.max()), np.append(y[kept], y[kept[-1]])
