"""Evaluate a policy and its profiles on outcomes, against each candidate answering everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DataSource, ProbePrediction, fingerprints
from router.policies.candidates.candidate import Candidate
from router.policies.certificate import say_certificate
from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement
from router.quoting import quoted
from router.tuning.judging.policy_figures import (
    REFUSED,
    Comparison,
    EstimatedOutcomes,
    RuleEvaluation,
    decide_all,
    estimate_outcomes,
    measure_rules,
)
from router.tuning.outcomes.datasets import Outcomes


@dataclass(frozen=True)
class PolicyEvaluationOptions:
    """Holds the options of an evaluation of a policy.

    Attributes:
        weak, strong: the candidates that it is compared with, by name or by what the data call them. None stands for
            the cheapest tier and for the strongest one.
        resamples: of the bootstrap over prompts, 2 or more. seed: of its draws.
    """

    weak: str | None = None
    strong: str | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class PolicyEvaluation:
    """Holds the figures of a policy on outcomes.

    Attributes:
        policy: its name.
        rules: the policy's own rule, then its profiles, then each candidate answering everything.
        weak, strong: the candidates that the rules are compared with.
        n: prompts evaluated. n_refused: further prompts that no candidate may answer.
        n_seen_in_fit: how many of the n prompts have a text that the probe was fitted on; figures on those flatter it.
        unseen: the policy's figures on the other prompts; None if the probe saw all of them or none.
        estimated_by: what estimates a score that was not observed, in words.
        period: the time that the prompts are of, in words; None if they were not chosen by time.
        notes: what the reader must know.
        data: the files, with their SHA-256 and number of rows.
    """

    policy: str
    rules: tuple[RuleEvaluation, ...]
    weak: str
    strong: str
    n: int
    n_refused: int
    n_seen_in_fit: int
    unseen: RuleEvaluation | None
    estimated_by: str
    period: str | None
    notes: tuple[str, ...]
    data: tuple[DataSource, ...]

    @property
    def own(self) -> RuleEvaluation:
        """The figures of the policy's own rule."""
        return self.rules[0]

    @property
    def always_strong(self) -> RuleEvaluation:
        """The figures of the strong candidate if it answers everything."""
        return next(one for one in self.rules if one.name == f"always {self.strong}")


def candidate_outcomes(outcomes: Outcomes, candidates: Sequence[Candidate]) -> Outcomes:
    """Return the outcomes with a column for each candidate, in their order; a candidate without data has NaN.

    A candidate is found by its name in the probe, by its own name, or by its model string. Prompts that no candidate
    answered are kept, because it counts whom the policy would choose for them. Raises DataError if the data have none
    of the candidates.
    """
    columns = []
    for candidate in candidates:
        known = [name for name in _names_of(candidate) if name in outcomes.models]
        columns.append(outcomes.models.index(known[0]) if known else None)
    if not any(column is not None for column in columns):
        raise DataError(
            f"the data must hold outcomes of the policy's candidates ({', '.join(c.name for c in candidates)}); they "
            f"hold {', '.join(outcomes.models)}."
        )

    def arranged(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        absent = np.full(len(values), np.nan)
        return np.stack([absent if column is None else values[:, column] for column in columns], axis=1)

    return replace(
        outcomes,
        models=tuple(candidate.name for candidate in candidates),
        scores=arranged(outcomes.scores),
        cost_usd=arranged(outcomes.cost_usd),
        input_tokens=arranged(outcomes.input_tokens),
        output_tokens=arranged(outcomes.output_tokens),
    )


def _names_of(candidate: Candidate) -> tuple[str, ...]:
    return candidate.name_in_probe, candidate.name, candidate.model


def evaluate_policy(
    served: ServedPolicy,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32] | None,
    options: PolicyEvaluationOptions,
) -> PolicyEvaluation:
    """Evaluate a policy and its profiles on outcomes that `candidate_outcomes` returned.

    features: (n, d) of the prompts; None for a policy without a probe. A policy that decides by a caller's score reads
    it from the outcomes. Raises DataError as `measure_rules` does, and
    for a candidate that the policy does not have.
    """
    candidates, names = served.rules.file.candidates, served.rules.file.names
    comparison = Comparison(
        names=names,
        weak=0 if options.weak is None else _candidate(candidates, options.weak, "--weak"),
        strong=len(names) - 1 if options.strong is None else _candidate(candidates, options.strong, "--strong"),
        resamples=options.resamples,
        seed=options.seed,
    )
    prediction = None
    if served.probe is not None and features is not None:
        prediction = served.probe.predict(features, outcomes.tasks or None)
    policies = (served, *served.profiles())
    decided = {one.ref.name: decide_all(one, outcomes.asks, _judged(one, outcomes, prediction)) for one in policies}
    answered = np.all([one.chosen != REFUSED for one in decided.values()], axis=0)
    kept = {name: one.take(answered) for name, one in decided.items()}
    estimated = estimate_outcomes(served, outcomes, prediction).take(answered)
    rules = measure_rules(kept, estimated, comparison)
    seen = _seen(served, outcomes)[answered]
    unseen = None
    if 0 < seen.sum() < len(seen):
        others = {served.ref.name: kept[served.ref.name].take(~seen)}
        unseen = measure_rules(others, estimated.take(~seen), comparison)[0]
    n_refused = int((~answered).sum())
    return PolicyEvaluation(
        policy=served.ref.name,
        rules=rules,
        weak=names[comparison.weak],
        strong=names[comparison.strong],
        n=int(answered.sum()),
        n_refused=n_refused,
        n_seen_in_fit=int(seen.sum()),
        unseen=unseen,
        estimated_by="the mean of the candidate's scores" if prediction is None else "the probe",
        period=None,
        notes=_notes(policies, estimated, n_refused),
        data=outcomes.sources,
    )


def _judged(served: ServedPolicy, outcomes: Outcomes, prediction: ProbePrediction | None) -> Sequence[Judgement | None]:
    if served.rules.file.score is not None:
        return served.judge_scores(outcomes.caller_scores)
    return [None] * len(outcomes) if prediction is None else served.judge_all(prediction)


def _candidate(candidates: Sequence[Candidate], name: str, option: str) -> int:
    for number, candidate in enumerate(candidates):
        if name in _names_of(candidate):
            return number
    raise DataError(
        f"{option} must be a candidate of the policy ({', '.join(c.name for c in candidates)}), got {quoted(name)}."
    )


def _seen(served: ServedPolicy, outcomes: Outcomes) -> npt.NDArray[np.bool_]:
    if served.probe is None:
        return np.zeros(len(outcomes), dtype=np.bool_)
    return np.isin(fingerprints(outcomes.texts), served.probe.fitted_on)


def _notes(policies: Sequence[ServedPolicy], estimated: EstimatedOutcomes, refused: int) -> tuple[str, ...]:
    notes = ["Every request is decided on its own, without session and overrides. Intervals are 95 %, over prompts."]
    if refused:
        notes.append(f"{refused:,} further prompts may be answered by no candidate and are left out.")
    names = policies[0].rules.file.names
    for number, name in enumerate(names):
        if not estimated.observed[:, number].any():
            notes.append(f"The data hold no score of {name}: its quality is estimated throughout.")
        if not np.isfinite(estimated.cost_usd[:, number]).all():
            notes.append(f"The price of {name} is not known; state it in the policy.")
    notes += [f"{policy.ref.name}: {say_certificate(policy.certificate)}." for policy in policies]
    return tuple(notes)
