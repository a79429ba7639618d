"""Measure rankings of prompts for one pair of models, with intervals from the same bootstrap draws for all.

A resample draws texts with replacement. It is kept as a weight for each row, so that each ranking is sorted once
(`probes.measures.sorted_rows`) and every figure of a resample is a few cumulative sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.measures.bootstrap import PERCENTILES, Interval, resampled_weights
from probes.measures.prediction import ece
from probes.measures.routing import CostQualityCurve, aiq, area_under_curve, cost_saved, share_reaching
from probes.measures.sorted_rows import RankedGains, SortedRows, area_recovered, share_of_pairs

FloatArray = npt.NDArray[np.float64]

#: Figures of a ranking, in the order in which they are printed.
FIGURES = ("apgr", "lift", "cpt20", "cpt50", "cpt80", "area", "aiq", "cost_saved", "auroc", "ece")

_CPT = {"cpt20": 0.2, "cpt50": 0.5, "cpt80": 0.8}

#: Shares of strong calls at which curves over cost are read: the thresholds a person would set.
SHARES: FloatArray = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Truth:
    """Holds what the two models did on n prompts: their scores and costs.

    Attributes:
        scores: (n, 2) of the weak and the strong model, 0 to 1, all known.
        texts: (n,) a number for each distinct text; equal texts are resampled together.
        costs: (n, 2) cost of each answer in USD; None if some are unknown.
    """

    scores: FloatArray
    texts: npt.NDArray[np.int64]
    costs: FloatArray | None = None

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Truth:
        """Return a copy with these rows only."""
        return Truth(self.scores[rows], self.texts[rows], None if self.costs is None else self.costs[rows])


@dataclass(frozen=True)
class RouterScores:
    """Holds the numbers that a router gives to n prompts.

    Attributes:
        gain: (n,) expected gain from the strong model, in any unit; prompts of larger gain go to it first.
        risk: (n,) probability that the weak model's answer is not acceptable, 0 to 1; None if the router gives none.
        difficulty: (n,) the number that the risk was calibrated from. The AUROC uses it in place of the risk, because
            calibration in folds may change the order of prompts; None if the risk is used.
    """

    gain: FloatArray
    risk: FloatArray | None = None
    difficulty: FloatArray | None = None

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> RouterScores:
        """Return a copy with these rows only."""
        parts = (None if part is None else part[rows] for part in (self.risk, self.difficulty))
        return RouterScores(self.gain[rows], *parts)


@dataclass(frozen=True)
class Ranking:
    """Holds the figures of one ranking with bootstrap intervals; a figure that these data do not define is absent.

    A strong share is the share of prompts that the strong model answers, 0 to 1.

    Attributes:
        figures: by name. `apgr`: share of the quality gap recovered, averaged over strong shares (random 0.5). `lift`:
            mean quality above random choice at equal strong share. `cpt20`, `cpt50`, `cpt80`: least strong share that
            recovers this part of the gap. `area`: mean quality over the cost axis (over the strong share if costs are
            unknown). `aiq`: the same under the concave hull. `cost_saved`: share of the strong model's cost that is
            saved at its quality. `auroc`: how well the risk tells the weak model's failures apart, if its losses are 0
            and 1. `ece`: calibration error of the risk.
        ahead: by how much the reference ranking exceeds this one, in the same units, paired; empty for the reference.
    """

    figures: Mapping[str, Interval]
    ahead: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def apgr(self) -> Interval:
        """The average performance gap recovered (APGR), with its interval; it must be defined on these data."""
        return self.figures["apgr"]

    def value(self, name: str) -> float | None:
        """Return the estimate of a figure, or None if these data do not define the figure."""
        found = self.figures.get(name)
        return None if found is None else found.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: `apgr` with its interval, the other figures as numbers, and all intervals."""
        numbers = {name: self.value(name) for name in FIGURES if name != "apgr"}
        return {
            "apgr": asdict(self.apgr) if "apgr" in self.figures else None,
            **numbers,
            "intervals": {name: asdict(interval) for name, interval in self.figures.items()},
            **({"probe_ahead_by": {name: asdict(i) for name, i in self.ahead.items()}} if self.ahead else {}),
        }


def measure(
    routers: Mapping[str, RouterScores],
    truth: Truth,
    *,
    reference: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Ranking]:
    """Return the figures of every router on the same draws, and by how much `reference` is ahead of each other one.

    Figures that need a gap between the models (APGR, CPT) are absent if the strong model is not the better one on
    the rows or on some resample. Raises DataError for no rows or fewer than 2 resamples.
    """
    if not len(truth.scores) or resamples < 2:
        raise DataError(f"measuring needs prompts and at least 2 resamples; got {len(truth.scores)} and {resamples}.")
    sorted_once = {name: _Sorted(router, truth) for name, router in routers.items()}
    draws = {name: np.empty((resamples + 1, len(FIGURES))) for name in routers}
    for number, weight in enumerate(text_weights(truth.texts, resamples, seed)):
        for name, one in sorted_once.items():
            draws[name][number] = one.figures(weight)
    return {
        name: Ranking(
            _intervals(values),
            _intervals(draws[reference] - values) if reference is not None and name != reference else {},
        )
        for name, values in draws.items()
    }


def curve_band(
    router: RouterScores, truth: Truth, *, resamples: int = 300, seed: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return cost, quality and the low and high end of the quality's pointwise 95 % band, at each of `SHARES`: (101,).

    Cost is the strong share if costs are unknown.
    """
    one = _Sorted(router, truth)
    curves = [one.curve(weight) for weight in text_weights(truth.texts, resamples, seed)]
    low, high = np.quantile([curve.quality for curve in curves[1:]], PERCENTILES, axis=0)
    return curves[0].cost, curves[0].quality, low, high


def text_weights(texts: npt.NDArray[np.int64], resamples: int, seed: int) -> Any:
    """Yield a weight for each row: first 1 for all rows, then for each resample how often the row's text was drawn."""
    _, position = np.unique(texts, return_inverse=True)
    for weight in resampled_weights(int(position.max()) + 1, resamples, seed):
        yield weight[position]


def _intervals(draws: FloatArray) -> dict[str, Interval]:
    """Return an interval for each figure of draws (1 + resamples, figures); the first row is the estimate."""
    found = {}
    for name, values in zip(FIGURES, draws.T, strict=True):
        if np.isfinite(values).all():
            found[name] = Interval.of_draws(values)
    return found


class _Sorted:
    """Holds the truth in the order of a router's scores, from which the figures under any weights follow."""

    def __init__(self, router: RouterScores, truth: Truth) -> None:
        weak, strong = truth.scores.T
        extra_costs = () if truth.costs is None else (truth.costs[:, 1] - truth.costs[:, 0],)
        self._gains = RankedGains(router.gain, strong - weak, *extra_costs)
        self._weak = weak
        self._costs = truth.costs
        loss = 1.0 - weak
        self._binary = bool(np.isin(loss, (0.0, 1.0)).all())
        self._risk = self._failures = None
        if router.risk is not None:
            order = SortedRows(router.risk).order
            self._risk = order, router.risk[order], loss[order]
        difficulty = router.risk if router.difficulty is None else router.difficulty
        if difficulty is not None and self._binary:
            rows = SortedRows(difficulty)
            self._failures = rows, loss[rows.order]

    def figures(self, weight: npt.NDArray[np.int64]) -> list[float]:
        """Return the figures under these weights in the order of FIGURES; a figure that is not defined is NaN."""
        share, gained, *extra_costs = self._gains.cumulative(weight)
        gap = gained[-1]
        lift = float(np.trapezoid(gained - gap * share, share))
        found = dict.fromkeys(FIGURES, np.nan) | {"lift": lift}
        if gap > 0:
            found["apgr"] = area_recovered(share, gained)
            found |= {name: share_reaching(share, gained / gap, x) for name, x in _CPT.items()}
        curve = self._curve(weight, share, gained, *extra_costs)
        if curve.cost[-1] > curve.cost[0]:
            found |= {"area": area_under_curve(curve), "aiq": aiq(curve)}
        if self._costs is not None:
            saved = cost_saved(curve, float(curve.cost[-1]), float(curve.quality[-1]))
            found["cost_saved"] = np.nan if saved is None else saved
        if self._failures is not None:
            found["auroc"] = share_of_pairs(*self._failures, weight)
        if self._risk is not None:
            order, risk, loss = self._risk
            found["ece"] = ece(np.repeat(risk, weight[order]), np.repeat(loss, weight[order]))
        return [found[name] for name in FIGURES]

    def curve(self, weight: npt.NDArray[np.int64]) -> CostQualityCurve:
        """Return quality over cost at each share of strong calls in SHARES."""
        return self._curve(weight, *self._gains.cumulative(weight))

    def _curve(
        self, weight: npt.NDArray[np.int64], share: FloatArray, gained: FloatArray, extra_cost: FloatArray | None = None
    ) -> CostQualityCurve:
        quality = np.average(self._weak, weights=weight) + np.interp(SHARES, share, gained)
        if self._costs is None or extra_cost is None:
            return CostQualityCurve(SHARES, SHARES, quality)
        cost = np.average(self._costs[:, 0], weights=weight) + np.interp(SHARES, share, extra_cost)
        return CostQualityCurve(SHARES, cost, quality)
