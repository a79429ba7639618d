"""Lay out rules from safest to cheapest, and compute which candidate each rule chooses for each prompt.

A path has one parameter. It is laid down before any calibration outcome is seen: it depends on the candidates and
their prices only. Along the path, every prompt stays where it is or moves to a cheaper tier.
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
from router.policies.eligibility import assess_candidates, expected_cost_usd
from router.policies.loading import ServedPolicy
from router.policies.policy_file import CostRule, GainRule
from router.policies.rules import Judgement
from router.tuning.outcomes.datasets import FloatArray
from router.values import Overrides

PathRule = GainRule | CostRule

#: Numbers of the chosen candidates: (p, n) for p rules and n prompts.
ChoiceMatrix = npt.NDArray[np.int16]

#: The request by whose cost candidates are put in order and steps of a path are weighed; fixed, so that paths are.
USUAL_ASK = Ask(text="", needs=frozenset(), unknown_parts=(), input_tokens_estimate=500, max_output_tokens=None)

#: The difference between neighbouring thresholds if all steps have the same threshold.
THRESHOLD_STEP = 0.001

#: The ratio of neighbouring prices of quality on a path that spans decades.
PRICE_RATIO = 10 ** (1 / 60)


def lay_path(served: ServedPolicy, reference: int, kind: str | None) -> tuple[PathRule, ...]:
    """Return the path of rules for the candidates of a policy.

    reference: number of the candidate that losses are measured against. kind: `gain` or `cost`; None takes cost for
    three candidates or more if all prices are known, else gain. The path starts with a rule that always chooses the
    reference, if there is one; otherwise with the rule of the best expected quality.

    Raises ConfigError for an unknown kind, and for a cost rule if a price is unknown.
    """
    costs = [
        expected_cost_usd(candidate, prices, USUAL_ASK)
        for candidate, prices in zip(served.rules.file.candidates, served.rules.prices, strict=True)
    ]
    known = [cost for cost in costs if cost is not None]
    priced = len(known) == len(costs)
    if kind is None:
        kind = "cost" if priced and len(costs) > 2 else "gain"
    if kind == "cost":
        if not priced:
            raise ConfigError("the cost rule needs a price of every candidate; give --prices, or use --rule gain.")
        path: tuple[PathRule, ...] = cost_path()
        return path if known[reference] == max(known) else path[len(path) // 2 :]
    if kind != "gain":
        raise ConfigError(f"the rule must be gain or cost, got {kind!r}.")
    steps = np.diff(known) if priced else np.ones(len(costs) - 1)
    # A step that costs nothing, or less, still leads up a tier: it counts as a thousandth of the most expensive one.
    floor = max(float(steps.max()), 1e-12) * 1e-3
    gains = gain_path(np.maximum(steps, floor).tolist())
    return gains if reference == len(costs) - 1 else tuple(g for g in gains if g.thresholds[0] >= 0)


def gain_path(step_prices: Sequence[float]) -> tuple[GainRule, ...]:
    """Return gain rules from "always the last tier" to "always the first".

    step_prices: what each step up a tier costs, in any unit; all positive. All thresholds first rise together from -1
    (always the last tier) to 0 (the best expected quality), then in proportion to the step prices, none above 1. With
    one step, or with equal prices, that is a single grid from -1 to 1.
    """
    n = len(step_prices)
    if not n or min(step_prices) <= 0:
        raise ConfigError(f"each step up must have a positive price, got {list(step_prices)}; order tiers by cost.")
    units = round(1 / THRESHOLD_STEP)
    rising = [(i / units,) * n for i in range(-units, 1)]
    if min(step_prices) == max(step_prices):
        return _gain_rules(rising + [(i / units,) * n for i in range(1, units + 1)])
    weights = [price / max(step_prices) for price in step_prices]
    decades = math.log(1 / (THRESHOLD_STEP * min(weights)), PRICE_RATIO)
    scales = [THRESHOLD_STEP * PRICE_RATIO**i for i in range(math.ceil(decades) + 1)]
    return _gain_rules(rising + [tuple(round(min(1.0, scale * w), 9) for w in weights) for scale in scales])


def cost_path() -> tuple[CostRule, ...]:
    """Return cost rules from "always the most expensive" over "best expected quality" to "always the cheapest".

    Prices of quality span 0.01 to 10 million per USD, so that the path tells candidates apart whose costs per request
    differ by as much as 100 USD or as little as a ten-millionth of a USD.
    """
    scales = [float(f"{1e-2 * PRICE_RATIO**i:.6g}") for i in range(60 * 9 + 1)]
    numbers = [-scale for scale in reversed(scales)] + [0.0] + scales
    return tuple(CostRule(kind="cost", quality_per_usd=number) for number in numbers)


def _gain_rules(thresholds: Sequence[tuple[float, ...]]) -> tuple[GainRule, ...]:
    return tuple(GainRule(kind="gain", thresholds=row) for row in thresholds)


@dataclass(frozen=True)
class RuleInputs:
    """Holds everything that a gain or cost rule looks at, for n prompts and m candidates in the order of the policy.

    risk: (n, m). cost_usd: (n, m) expected cost at decision time, NaN without prices. eligible: (n, m). fallback:
    (n,) number of the candidate that answers if the router abstains, -1 if it does not abstain.
    """

    risk: FloatArray
    cost_usd: FloatArray
    eligible: npt.NDArray[np.bool_]
    fallback: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.risk)


def rule_inputs(served: ServedPolicy, asks: Sequence[Ask], prediction: ProbePrediction) -> RuleInputs:
    """Return what rules look at for n prompts under a policy; costs and eligibility come from the router's own code.

    prediction: of the policy's probe, or of `score_prediction` for a policy that decides by a caller's score. Raises
    ConfigError if no candidate may answer some prompt.
    """
    rows = [assess_candidates(served.rules, ask, Overrides()) for ask in asks]
    cost = np.array([[np.nan if c.expected_cost_usd is None else c.expected_cost_usd for c in row] for row in rows])
    eligible = np.array([[c.eligible for c in row] for row in rows])
    if not eligible.any(axis=1).all():
        number = int(np.argmin(eligible.any(axis=1)))
        why = "; ".join(f"{c.candidate}: {', '.join(c.ineligible_because)}" for c in rows[number])
        raise ConfigError(f"some candidate must be able to answer every prompt; none may answer one of them ({why}).")
    limit = served.rules.max_leverage
    # Compared in float64, because the router compares Python floats.
    abstains = np.zeros(len(rows), dtype=bool) if limit is None else prediction.leverage.astype(np.float64) > limit
    if served.rules.file.score is not None:
        abstains = prediction.unfamiliar
    # The safe default answers; if it may not, the next stronger candidate that may; else the strongest that may.
    default = served.rules.file.names.index(served.rules.file.safe_default)
    strongest = eligible.shape[1] - 1 - np.argmax(eligible[:, ::-1], axis=1)
    from_default = eligible[:, default:]
    safe = np.where(from_default.any(axis=1), default + np.argmax(from_default, axis=1), strongest)
    risk = prediction.risk[:, list(served.columns)] if served.columns else prediction.risk
    return RuleInputs(risk, cost, eligible, np.where(abstains, safe, -1).astype(np.int16))


def score_prediction(judged: Sequence[Judgement | None], n_models: int) -> ProbePrediction:
    """Return what a caller's score says of n prompts, in the form of a prediction; None is an unfamiliar prompt."""
    unknown = (1.0,) * n_models  # never looked at, because the router abstains
    risk = np.array([unknown if one is None else one.risk for one in judged], dtype=np.float64)
    unfamiliar = np.array([one is None for one in judged], dtype=np.bool_)
    return ProbePrediction(risk.astype(np.float32), risk, np.zeros(len(judged), np.float32), unfamiliar)


def choose_by(rules: Sequence[PathRule], inputs: RuleInputs) -> ChoiceMatrix:
    """Return which candidate each rule chooses for each prompt, (p, n): the same as `choice.choose`, to the last bit.

    All rules must be of one kind.
    """
    ranks = _ranked_by_cost(inputs) if isinstance(rules[0], CostRule) else _ranked_by_tier(inputs)
    base = ranks[:, :1]
    gain = np.take_along_axis(inputs.risk, base, 1) - np.take_along_axis(inputs.risk, ranks, 1)
    ineligible = ~np.take_along_axis(inputs.eligible, ranks, 1)
    found = np.empty((len(rules), len(inputs)), dtype=np.int16)
    for number, rule in enumerate(rules):
        # The base has a gain and a price of zero and is in the first column, so that it wins ties, as in the router.
        value = np.where(ineligible, -np.inf, gain - _prices(rule, inputs, ranks))
        best = np.argmax(value, axis=1)[:, None]
        found[number] = np.take_along_axis(ranks, best, 1)[:, 0]
    return np.where(inputs.fallback >= 0, inputs.fallback, found).astype(np.int16)


def _ranked_by_tier(inputs: RuleInputs) -> npt.NDArray[np.intp]:
    return np.argsort(~inputs.eligible, axis=1, kind="stable")


def _ranked_by_cost(inputs: RuleInputs) -> npt.NDArray[np.intp]:
    return np.argsort(np.where(inputs.eligible, inputs.cost_usd, np.inf), axis=1, kind="stable")


def _prices(rule: PathRule, inputs: RuleInputs, ranks: npt.NDArray[np.intp]) -> FloatArray:
    """Return the price of each candidate over the base, (n, m), in units of quality and in the order of `ranks`."""
    if isinstance(rule, CostRule):
        cost = np.take_along_axis(inputs.cost_usd, ranks, 1)
        return np.asarray(rule.quality_per_usd * (cost - cost[:, :1]))
    m = len(rule.thresholds) + 1
    # fsum over the thresholds in between, as in the router: differences of running sums would differ in the last bit,
    # and a prompt whose gain lies there would be certified as another decision than is served.
    table = np.array([[math.fsum(rule.thresholds[low:high]) for high in range(m)] for low in range(m)])
    return np.asarray(table[ranks[:, :1], ranks])


@dataclass(frozen=True)
class PolicyPath:
    """Holds the k policies of a path that choose differently on n calibration prompts, safest first.

    Attributes:
        rules: all rules of the path, neighbours that choose the same candidates included.
        chosen: (k, n) numbers of the chosen candidates.
        starts, ends: (k,) number of the first and of the last rule that chooses as this policy does.
        abstains: (n,) whether the router abstains.
    """

    rules: tuple[PathRule, ...]
    chosen: ChoiceMatrix
    starts: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    abstains: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, rules: tuple[PathRule, ...], inputs: RuleInputs) -> PolicyPath:
        """Return the policies of these rules on the prompts of `inputs`."""
        chosen = choose_by(rules, inputs)
        ends = ends_of_equal_rows(chosen)
        return cls(rules, chosen[ends], np.concatenate([[0], ends[:-1] + 1]), ends, inputs.fallback >= 0)

    def rule(self, policy: int, *, safest: bool = False) -> PathRule:
        """Return the cheapest rule that chooses as the policy with this number does, or the safest one."""
        return self.rules[int((self.starts if safest else self.ends)[policy])]


def ends_of_equal_rows(rows: npt.NDArray[np.int16]) -> npt.NDArray[np.intp]:
    """Return the indices of the rows (p, n) that differ from the next row, and of the last row."""
    return np.append(np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)), len(rows) - 1)
