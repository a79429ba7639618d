"""One-parameter paths of rules, and what each rule of a path decides on many prompts.

A path is laid down before any calibration outcome is seen: it depends on the candidates and their prices only. Along
it every prompt moves to cheaper tiers or stays, so that it runs from safest to cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.probe import ProbePrediction
from router.asking.ask import Ask
from router.errors import ConfigError
from router.policies.eligibility import assess_candidates
from router.policies.loading import ServedPolicy
from router.policies.policy_file import CostRule, GainRule
from router.values import Overrides

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Choices = npt.NDArray[np.int16]
PathRule = GainRule | CostRule

#: Between thresholds that are equal for all steps; thresholds of a tuned policy are multiples of it.
STEP = 0.001

#: Ratio of neighbouring prices of quality where they span decades.
RATIO = 10 ** (1 / 60)


def gain_path(step_prices: Sequence[float]) -> tuple[GainRule, ...]:
    """Gain rules from "always the last tier" to "always the first".

    step_prices: what each step up costs, in any unit, one per step; all positive. Thresholds first rise together from
    -1 to 0 (from the safe default to the best expected quality), then in proportion to the step prices, none above 1.
    With one step, or equal ones, that is a single grid from -1 to 1.
    """
    n = len(step_prices)
    if not n or min(step_prices) <= 0:
        raise ConfigError(f"each step up must have a positive price, got {list(step_prices)}; order tiers by cost.")
    units = round(1 / STEP)
    rising = [(i / units,) * n for i in range(-units, 1)]
    if min(step_prices) == max(step_prices):
        return _rules(rising + [(i / units,) * n for i in range(1, units + 1)])
    weights = [price / max(step_prices) for price in step_prices]
    decades = math.log(1 / (STEP * min(weights)), RATIO)
    scales = [STEP * RATIO**i for i in range(math.ceil(decades) + 1)]
    return _rules(rising + [tuple(round(min(1.0, scale * w), 9) for w in weights) for scale in scales])


def cost_path() -> tuple[CostRule, ...]:
    """Cost rules from "always the dearest" over "best expected quality" to "always the cheapest".

    Prices of quality from 0.01 to 10 million per USD, so that differences between candidates from 100 USD down to a
    ten-millionth of a USD per request lie on it.
    """
    scales = [float(f"{1e-2 * RATIO**i:.6g}") for i in range(60 * 9 + 1)]
    numbers = [-scale for scale in reversed(scales)] + [0.0] + scales
    return tuple(CostRule(kind="cost", quality_per_usd=number) for number in numbers)


def _rules(thresholds: Sequence[tuple[float, ...]]) -> tuple[GainRule, ...]:
    return tuple(GainRule(kind="gain", thresholds=row) for row in thresholds)


@dataclass(frozen=True)
class Scene:
    """All that a gain or cost rule looks at, for n prompts and m candidates in the order of the policy.

    risk: (n, m). cost_usd: (n, m) expected cost at decision time, NaN without prices. eligible: (n, m). fallback:
    (n,) the candidate that answers where the router abstains, -1 where it judges.
    """

    risk: FloatArray
    cost_usd: FloatArray
    eligible: BoolArray
    fallback: Choices

    def __len__(self) -> int:
        return len(self.risk)


def scene(served: ServedPolicy, asks: Sequence[Ask], prediction: ProbePrediction) -> Scene:
    """The scene of n asks under a policy; costs and eligibility by the router's own code.

    Raises ConfigError if no candidate may answer some ask.
    """
    rows = [assess_candidates(served.rules, ask, Overrides()) for ask in asks]
    cost = np.array([[np.nan if c.expected_cost_usd is None else c.expected_cost_usd for c in row] for row in rows])
    eligible = np.array([[c.eligible for c in row] for row in rows])
    if not eligible.any(axis=1).all():
        number = int(np.argmin(eligible.any(axis=1)))
        why = "; ".join(f"{c.candidate}: {', '.join(c.ineligible_because)}" for c in rows[number])
        raise ConfigError(f"some candidate must be able to answer every prompt; none may answer one of them ({why}).")
    limit = served.rules.max_leverage
    # In float64, like the router, which compares Python floats.
    abstains = np.zeros(len(rows), dtype=bool) if limit is None else prediction.leverage.astype(np.float64) > limit
    wanted = served.rules.file.names.index(served.rules.file.safe_default)
    last = eligible.shape[1] - 1 - np.argmax(eligible[:, ::-1], axis=1)
    safe = np.where(eligible[:, wanted:].any(axis=1), wanted + np.argmax(eligible[:, wanted:], axis=1), last)
    risk = prediction.risk[:, list(served.columns)]
    return Scene(risk, cost, eligible, np.where(abstains, safe, -1).astype(np.int16))


def choices(rules: Sequence[PathRule], scene: Scene) -> Choices:
    """Which candidate each rule chooses for each prompt, (p, n): what `choice.choose` chooses, to the last bit.

    All rules must be of one kind.
    """
    ranks = _by_cost(scene) if isinstance(rules[0], CostRule) else np.argsort(~scene.eligible, axis=1, kind="stable")
    base = ranks[:, :1]
    gain = np.take_along_axis(scene.risk, base, 1) - np.take_along_axis(scene.risk, ranks, 1)
    banned = ~np.take_along_axis(scene.eligible, ranks, 1)
    found = np.empty((len(rules), len(scene)), dtype=np.int16)
    for number, rule in enumerate(rules):
        # The base has a gain and a price of zero and stands first, so that ties go to it, as in the router.
        value = np.where(banned, -np.inf, gain - _prices(rule, scene, ranks))
        best = np.argmax(value, axis=1)[:, None]
        found[number] = np.take_along_axis(ranks, best, 1)[:, 0]
    return np.where(scene.fallback >= 0, scene.fallback, found).astype(np.int16)


def _by_cost(scene: Scene) -> npt.NDArray[np.intp]:
    return np.argsort(np.where(scene.eligible, scene.cost_usd, np.inf), axis=1, kind="stable")


def _prices(rule: PathRule, scene: Scene, ranks: npt.NDArray[np.intp]) -> FloatArray:
    """The price in quality of each candidate over the base, in the order of `ranks`."""
    if isinstance(rule, CostRule):
        cost = np.take_along_axis(scene.cost_usd, ranks, 1)
        return np.asarray(rule.quality_per_usd * (cost - cost[:, :1]))
    m = len(rule.thresholds) + 1
    # fsum over each stretch, as the router does: sums of differences would differ in the last bit.
    table = np.array([[math.fsum(rule.thresholds[low:high]) for high in range(m)] for low in range(m)])
    return np.asarray(table[ranks[:, :1], ranks])


def distinct(rows: Choices) -> npt.NDArray[np.intp]:
    """Indices of the rows (p, n) that differ from the next one, and of the last: one for each stretch of equal rows."""
    return np.append(np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)), len(rows) - 1)
