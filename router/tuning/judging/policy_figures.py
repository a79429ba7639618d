"""Measure the rules of a policy on outcomes: shares, quality and cost, with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.measures.bootstrap import Interval, resampled_sums
from probes.probe import ProbePrediction
from router.asking.ask import Ask
from router.errors import NoEligibleCandidateError
from router.policies.choice import choose, needs_no_scores
from router.policies.eligibility import check_eligibility
from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement
from router.tuning.outcomes.candidates import paid_usd
from router.tuning.outcomes.datasets import Outcomes
from router.values import Overrides

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Choices = npt.NDArray[np.int64]

#: Stands for a candidate number if no candidate may answer.
REFUSED = -1


@dataclass(frozen=True)
class Decisions:
    """Holds what a policy decides for n prompts.

    Attributes:
        chosen: (n,) number of the candidate that answers; REFUSED if no candidate may answer.
        abstained: (n,) whether the probe did not know the prompt, so that the safe default answers.
    """

    chosen: Choices
    abstained: BoolArray

    def take(self, rows: BoolArray) -> Decisions:
        """Return the decisions for these prompts only."""
        return Decisions(self.chosen[rows], self.abstained[rows])


@dataclass(frozen=True)
class EstimatedOutcomes:
    """Holds quality and cost of n prompts for the m candidates of a policy; gaps are filled by estimates.

    Attributes:
        quality: (n, m) observed scores, or estimates; NaN if there is no estimate either.
        observed: (n, m) whether a score was observed.
        cost_usd: (n, m) cost of an answer; NaN if no price is known.
        cost_estimated: (n, m) whether the cost rests on an estimated number of tokens.
    """

    quality: FloatArray
    observed: BoolArray
    cost_usd: FloatArray
    cost_estimated: BoolArray

    def take(self, rows: BoolArray) -> EstimatedOutcomes:
        """Return the outcomes of these prompts only."""
        return EstimatedOutcomes(
            self.quality[rows], self.observed[rows], self.cost_usd[rows], self.cost_estimated[rows]
        )


@dataclass(frozen=True)
class Comparison:
    """Says what rules are compared with, and how their intervals are computed.

    Attributes:
        names: of the m candidates, in the order of the policy.
        weak, strong: numbers of the two candidates that rules are compared with.
        resamples: of the bootstrap over prompts, 2 or more. seed: of its draws.
    """

    names: Sequence[str]
    weak: int
    strong: int
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class RuleEvaluation:
    """Holds the figures of one rule. Intervals are 95 %, by bootstrap over prompts, on the same draws for all rules.

    Attributes:
        name: of the policy, of its profile, or `always NAME`.
        shares: share of the prompts that each candidate answers, by its name.
        quality: mean score; estimates are used for scores that were not observed.
        quality_bounds: the mean score if all scores that were not observed were 0, and if they were 1.
        observed_share: share of the prompts whose chosen candidate has an observed score.
        lost: mean quality of the strong candidate minus that of this rule, paired; negative if the rule is better.
        lost_bounds: least and largest loss, whatever the scores are that were not observed.
        gained: mean quality of this rule minus that of the weak candidate, paired.
        cost_usd_per_1k: cost of 1,000 requests; None if a price is not known.
        saved: share of the strong candidate's cost that is saved, paired; None if a price is not known.
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


def decide_all(served: ServedPolicy, asks: Sequence[Ask], judged: Sequence[Judgement | None]) -> Decisions:
    """Decide every ask on its own, as the service does for a request without session and overrides.

    judged: what the policy knows of each ask; None for one that it does not judge.
    """
    chosen = np.full(len(asks), REFUSED, dtype=np.int64)
    abstained = np.zeros(len(asks), dtype=np.bool_)
    rules = served.rules
    for number, (ask, judgement) in enumerate(zip(asks, judged, strict=True)):
        try:
            eligibility = check_eligibility(rules, ask, Overrides())
            settled = needs_no_scores(eligibility)
            known = judgement if (ask.text or rules.file.score) and not settled else None
            choice = choose(eligibility, known)
        except NoEligibleCandidateError:
            continue
        chosen[number] = rules.file.names.index(choice.chosen.name)
        abstained[number] = choice.abstained
    return Decisions(chosen, abstained)


def estimate_outcomes(
    served: ServedPolicy, outcomes: Outcomes, prediction: ProbePrediction | None
) -> EstimatedOutcomes:
    """Fill the gaps of outcomes whose models are the candidates of the policy, in its order.

    A score that was not observed is estimated by 1 - calibrated risk. If a candidate has observed scores, its estimates
    are shifted by their mean error on these. Without a probe, the candidate's mean score is the estimate.
    """
    scores = outcomes.scores
    observed = np.isfinite(scores)
    predicted = np.full(scores.shape, np.nan) if prediction is None else 1.0 - prediction.risk[:, list(served.columns)]
    quality = scores.copy()
    for column in range(scores.shape[1]):
        known = observed[:, column]
        if not known.any():
            quality[:, column] = predicted[:, column]
            continue
        mean = float(scores[known, column].mean())
        shift = 0.0 if prediction is None else mean - float(predicted[known, column].mean())
        estimate = np.full(len(scores), mean) if prediction is None else np.clip(predicted[:, column] + shift, 0.0, 1.0)
        quality[~known, column] = estimate[~known]
    cost, _ = paid_usd(served.rules.file.candidates, served.rules.prices, outcomes)
    counted = np.isfinite(outcomes.input_tokens) & np.isfinite(outcomes.output_tokens)
    return EstimatedOutcomes(quality, observed, cost, ~np.isfinite(outcomes.cost_usd) & ~counted)


def measure_rules(
    decisions: Mapping[str, Decisions], estimated: EstimatedOutcomes, comparison: Comparison
) -> tuple[RuleEvaluation, ...]:
    """Return the figures of each rule by its decisions, and of each candidate if it answered everything.

    No rule may refuse a prompt. Raises DataError for no prompts, and if a rule chooses a candidate that has neither a
    score nor an estimate. A candidate without either that no rule needs is left out.
    """
    names, weak, strong = comparison.names, comparison.weak, comparison.strong
    n = len(estimated.quality)
    if not n:
        raise DataError("there must be prompts to evaluate on; none is left. Give other outcomes.")
    never = np.zeros(n, dtype=np.bool_)
    constant = {f"always {name}": Decisions(np.full(n, j), never) for j, name in enumerate(names)}
    everything = {**decisions, **constant}
    rows = np.arange(n)
    columns: list[FloatArray] = []
    for one in everything.values():
        quality, cost = estimated.quality[rows, one.chosen], estimated.cost_usd[rows, one.chosen]
        columns += [quality, estimated.quality[:, strong] - quality, quality - estimated.quality[:, weak], cost]
    columns.append(estimated.cost_usd[:, strong])
    means = resampled_sums(np.stack(columns, axis=1), comparison.resamples, comparison.seed) / len(rows)
    found = []
    for place, (name, one) in enumerate(everything.items()):
        own = means[:, 4 * place : 4 * place + 4]
        if np.isfinite(own[0, :3]).all():
            found.append(_figures(name, one, estimated, comparison, own, means[:, -1]))
        elif name not in constant or name in (f"always {names[weak]}", f"always {names[strong]}"):
            raise DataError(f"{name} chooses a candidate that has neither a score nor an estimate; add its outcomes.")
    return tuple(found)


def _figures(
    name: str,
    one: Decisions,
    estimated: EstimatedOutcomes,
    comparison: Comparison,
    means: FloatArray,
    strong_cost: FloatArray,
) -> RuleEvaluation:
    """Return the figures of one rule from its decisions.

    means: (1 + resamples, 4) of its quality, loss, gain and cost; the first row is of all prompts, the others are of
    resamples. strong_cost: (1 + resamples,) mean cost of the strong candidate on the same draws.
    """
    strong = comparison.strong
    quality, lost, gained, cost = means.T
    rows = np.arange(len(one.chosen))
    priced = bool(np.isfinite(cost).all())
    compared = priced and bool(np.isfinite(strong_cost).all()) and strong_cost.min() > 0
    worst, best = (np.where(estimated.observed, estimated.quality, unknown) for unknown in (0.0, 1.0))
    other = one.chosen != strong
    return RuleEvaluation(
        name=name,
        shares={candidate: float((one.chosen == j).mean()) for j, candidate in enumerate(comparison.names)},
        quality=Interval.of_draws(quality),
        quality_bounds=(float(worst[rows, one.chosen].mean()), float(best[rows, one.chosen].mean())),
        observed_share=float(estimated.observed[rows, one.chosen].mean()),
        lost=Interval.of_draws(lost),
        lost_bounds=(
            float(((worst[:, strong] - best[rows, one.chosen]) * other).mean()),
            float(((best[:, strong] - worst[rows, one.chosen]) * other).mean()),
        ),
        gained=Interval.of_draws(gained),
        cost_usd_per_1k=Interval.of_draws(1000.0 * cost) if priced else None,
        # Rounded, because two sums of the same costs in another order differ in the last digits.
        saved=Interval.of_draws(np.round(1.0 - cost / strong_cost, 12) + 0.0) if compared else None,
        cost_estimated_share=float(estimated.cost_estimated[rows, one.chosen].mean()) if priced else None,
        abstained_share=float(one.abstained.mean()),
    )
