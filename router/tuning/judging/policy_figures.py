"""What the rules of a policy do on outcomes: shares, quality and cost, with paired intervals, estimates marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.measures.bootstrap import Interval
from probes.probe import ProbePrediction
from router.asking.ask import Ask
from router.errors import NoEligibleCandidateError
from router.policies.choice import choose, needs_no_scores
from router.policies.eligibility import check_eligibility
from router.policies.loading import ServedPolicy
from router.tuning.outcomes.candidates import paid_usd
from router.tuning.outcomes.datasets import Outcomes
from router.values import Overrides

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Choices = npt.NDArray[np.int64]

REFUSED = -1


@dataclass(frozen=True)
class Decisions:
    """Whom a policy chose for n prompts: candidate numbers (n,), REFUSED where nobody may answer; and abstentions."""

    chosen: Choices
    abstained: BoolArray


@dataclass(frozen=True)
class Facts:
    """What is known of n prompts and the m candidates of a policy, in its order.

    Attributes:
        quality: (n, m), observed scores; estimates elsewhere, NaN where there is no estimate either.
        observed: (n, m), whether a score was observed.
        cost_usd: (n, m), NaN where no price is known. cost_estimated: (n, m), whether it rests on estimated tokens.
    """

    quality: FloatArray
    observed: BoolArray
    cost_usd: FloatArray
    cost_estimated: BoolArray

    def take(self, rows: BoolArray) -> Facts:
        """Only these prompts."""
        return Facts(self.quality[rows], self.observed[rows], self.cost_usd[rows], self.cost_estimated[rows])


@dataclass(frozen=True)
class RuleFigures:
    """What one rule does on the prompts. Intervals are 95 %, by bootstrap over prompts, on the same draws for all.

    Attributes:
        name: of the policy, of its profile, or `always NAME`.
        shares: of the prompts, by candidate.
        quality: mean score; estimates stand in for scores that were not observed.
        quality_bounds: the same if all scores that were not observed were 0, and if they were 1.
        observed_share: share of the prompts whose chosen candidate has an observed score.
        lost: mean quality of the strong candidate minus that of this rule, paired; negative where the rule is better.
        lost_bounds: the same if all scores that were not observed were as good for this rule as can be, and as bad.
        gained: mean quality of this rule minus that of the weak candidate, paired.
        cost_usd_per_1k: cost of 1,000 requests; None where a price is not known. saved: share of the strong candidate's
            cost, paired.
        cost_estimated_share: share of the prompts whose cost rests on estimated numbers of tokens.
        abstained_share: share of the prompts that the probe did not know, so that the safe default answered.
    """

    name: str
    shares: Mapping[str, float]
    quality: Interval
    quality_bounds: tuple[float, float]
    observed_share: float
    lost: Interval
    lost_bounds: tuple[float, float]
    gained: Interval
    cost_usd_per_1k: Interval | None
    saved: Interval | None
    cost_estimated_share: float | None
    abstained_share: float


def decide_all(served: ServedPolicy, asks: Sequence[Ask], prediction: ProbePrediction | None) -> Decisions:
    """Decide every ask by itself, as the service does for a request without session and overrides.

    prediction: what the probe of the policy says of them; None for a policy without a probe.
    """
    judged = served.judge_all(prediction) if prediction is not None else [None] * len(asks)
    chosen = np.full(len(asks), REFUSED, dtype=np.int64)
    abstained = np.zeros(len(asks), dtype=np.bool_)
    rules, free = served.rules, Overrides()
    for number, (ask, judgement) in enumerate(zip(asks, judged, strict=True)):
        try:
            eligibility = check_eligibility(rules, ask, free)
            settled = needs_no_scores(eligibility)
            told = judgement if ask.text and not settled else None
            choice = choose(eligibility, told)
        except NoEligibleCandidateError:
            continue
        chosen[number] = rules.file.names.index(choice.chosen.name)
        abstained[number] = choice.abstained
    return Decisions(chosen, abstained)


def facts_of(served: ServedPolicy, outcomes: Outcomes, prediction: ProbePrediction | None) -> Facts:
    """The facts about outcomes whose models are the candidates of the policy, in its order.

    A score that was not observed is estimated by 1 - calibrated risk, moved by how far these are off on average where
    the candidate's scores were observed; without a probe by the candidate's mean score.
    """
    scores = outcomes.scores
    observed = np.isfinite(scores)
    said = np.full(scores.shape, np.nan) if prediction is None else 1.0 - prediction.risk[:, list(served.columns)]
    quality = scores.copy()
    for column in range(scores.shape[1]):
        known = observed[:, column]
        if not known.any():
            quality[:, column] = said[:, column]
            continue
        mean = float(scores[known, column].mean())
        off = 0.0 if prediction is None else mean - float(said[known, column].mean())
        estimate = np.full(len(scores), mean) if prediction is None else np.clip(said[:, column] + off, 0.0, 1.0)
        quality[~known, column] = estimate[~known]
    cost, _ = paid_usd(served.rules.file.candidates, served.rules.prices, outcomes)
    counted = np.isfinite(outcomes.input_tokens) & np.isfinite(outcomes.output_tokens)
    return Facts(quality, observed, cost, ~np.isfinite(outcomes.cost_usd) & ~counted)


def measure_rules(
    decisions: Mapping[str, Decisions],
    facts: Facts,
    names: Sequence[str],
    *,
    weak: int,
    strong: int,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[RuleFigures, ...]:
    """The figures of each rule, none of which refuses a prompt, and of each candidate answering all.

    names: of the candidates. weak, strong: their numbers. Raises DataError for no prompts, and for a candidate that a
    rule chooses and of which neither a score nor an estimate is known.
    """
    n = len(facts.quality)
    if not n:
        raise DataError("there must be prompts to evaluate on; none is left.")
    never = np.zeros(n, dtype=np.bool_)
    constant = {f"always {name}": Decisions(np.full(n, j), never) for j, name in enumerate(names)}
    everything = {**decisions, **constant}
    rows = np.arange(n)
    columns: list[FloatArray] = []
    for one in everything.values():
        quality, cost = facts.quality[rows, one.chosen], facts.cost_usd[rows, one.chosen]
        columns += [quality, facts.quality[:, strong] - quality, quality - facts.quality[:, weak], cost]
    columns.append(facts.cost_usd[:, strong])
    means = _resampled_means(np.stack(columns, axis=1), resamples, seed)
    found = []
    for place, (name, one) in enumerate(everything.items()):
        own = means[:, 4 * place : 4 * place + 4]
        if np.isfinite(own[0, :3]).all():
            found.append(_figures(name, one, facts, names, strong, own, means[:, -1]))
        elif name not in constant or name in (f"always {names[weak]}", f"always {names[strong]}"):
            raise DataError(f"{name}: of some candidates neither a score nor an estimate is known; add their outcomes.")
    return tuple(found)


def _figures(
    name: str,
    one: Decisions,
    facts: Facts,
    names: Sequence[str],
    strong: int,
    means: FloatArray,
    strong_cost: FloatArray,
) -> RuleFigures:
    """Figures of one rule; means (1 + resamples, 4) of its quality, loss, gain and cost, the first of all rows."""
    quality, lost, gained, cost = means.T
    rows = np.arange(len(one.chosen))
    priced = bool(np.isfinite(cost).all())
    compared = priced and bool(np.isfinite(strong_cost).all()) and strong_cost.min() > 0
    worst, best = (np.where(facts.observed, facts.quality, unknown) for unknown in (0.0, 1.0))
    other = one.chosen != strong
    return RuleFigures(
        name=name,
        shares={candidate: float((one.chosen == j).mean()) for j, candidate in enumerate(names)},
        quality=_interval(quality),
        quality_bounds=(float(worst[rows, one.chosen].mean()), float(best[rows, one.chosen].mean())),
        observed_share=float(facts.observed[rows, one.chosen].mean()),
        lost=_interval(lost),
        lost_bounds=(
            float(((worst[:, strong] - best[rows, one.chosen]) * other).mean()),
            float(((best[:, strong] - worst[rows, one.chosen]) * other).mean()),
        ),
        gained=_interval(gained),
        cost_usd_per_1k=_interval(1000.0 * cost) if priced else None,
        # Rounded, so that two sums of the same costs do not differ by a rounding error.
        saved=_interval(np.round(1.0 - cost / strong_cost, 12) + 0.0) if compared else None,
        cost_estimated_share=float(facts.cost_estimated[rows, one.chosen].mean()) if priced else None,
        abstained_share=float(one.abstained.mean()),
    )


def _resampled_means(values: FloatArray, resamples: int, seed: int) -> FloatArray:
    """Means of the columns (n, c): first of all rows, then of each resample of the rows, (1 + resamples, c)."""
    n, rng = len(values), np.random.default_rng(seed)
    means = np.empty((resamples + 1, values.shape[1]))
    means[0] = values.mean(axis=0)
    for number in range(1, resamples + 1):
        means[number] = np.bincount(rng.integers(0, n, n), minlength=n) @ values / n
    return means


def _interval(draws: FloatArray) -> Interval:
    low, high = np.quantile(draws[1:], [0.025, 0.975])
    return Interval(float(draws[0]), float(low), float(high))
