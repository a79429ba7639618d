"""Estimate before anything is spent what a collection asks, costs and takes (`CollectionPlan`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from probes.certificates.bounds import TERNARY, excludes
from probes.certificates.label_planning import labels_needed
from router.asking.ask import BYTES_PER_TOKEN
from router.collecting.calls.asking import AskedCall, Asker, AskingLimits
from router.collecting.calls.budget import NOTHING, Cost
from router.collecting.calls.panel import Panel
from router.collecting.work import MissingCalls, Work
from router.policies.candidates.candidate import Candidate

#: What is assumed of an upstream: seconds before its answer begins, and output tokens per second.
START_S, TOKENS_PER_S = 1.0, 50.0

#: The share of the rows that certify, the others being fitted on: that of `elle fit --holdout 0.4`.
HOLDOUT = 0.4


@dataclass(frozen=True)
class ModelPlan:
    """What is asked of one model.

    Attributes:
        model: its name. role: `candidate` or `judge`.
        calls: the answers to ask for. from_log, from_store: the answers that are there already.
        input_tokens, output_tokens: expected, over all calls.
        expected_usd: at list prices; None if the price is unknown.
        minutes: the time that the calls take at least, by the limits and by what is assumed of upstreams.
    """

    model: str
    role: str
    calls: int
    from_log: int
    from_store: int
    input_tokens: int
    output_tokens: int
    expected_usd: float | None
    minutes: float


@dataclass(frozen=True)
class CollectionPlan:
    """What a collection asks, costs and takes.

    Attributes:
        n_log: the prompts of the log. n_prompts: those that were chosen. left_out: rows of the log, by reason.
        drawn: how they were chosen. graders: by name.
        models: what is asked of each model.
        calls, expected_usd: over all models. most_usd: the most that can be spent if every answer is as long as it may
            be. None stands for a price that is unknown.
        spent_usd: what earlier runs that wrote the same file spent.
        first_usd: the most that the first prompt can cost.
        minutes: the time of the slowest model.
        notes: what else to know.
    """

    n_log: int
    n_prompts: int
    left_out: Mapping[str, int]
    drawn: str
    graders: tuple[str, ...]
    models: tuple[ModelPlan, ...]
    calls: int
    expected_usd: float | None
    most_usd: float | None
    spent_usd: float
    first_usd: float
    minutes: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass
class _Count:
    calls: int = 0
    from_log: int = 0
    from_store: int = 0
    input_tokens: float = 0.0
    output_tokens: float = 0.0


def model_plans(work: Work, wanted: Sequence[MissingCalls], limits: AskingLimits) -> tuple[ModelPlan, ...]:
    """Return what is asked of each model for these prompts: first the candidates, then further models and judges."""
    counts: defaultdict[str, _Count] = defaultdict(_Count)
    for model in work.models:
        counts[model] = _Count()
    for one in wanted:
        for model in one.logged:
            counts[model].from_log += 1
        for model in one.stored:
            counts[model].from_store += 1
        for call in one.calls:
            member = work.panel.member(call.model)
            _count(counts[call.model], _input_tokens(call), min(member.expected_output_tokens, call.max_tokens))
        for planned in one.likely:
            judge = work.panel.member(planned.model)
            _count(counts[judge.name_in_probe], planned.input_tokens, planned.output_tokens)
    return tuple(_model_plan(work.panel, model, count, limits) for model, count in counts.items())


def _count(count: _Count, input_tokens: float, output_tokens: float) -> None:
    count.calls += 1
    count.input_tokens += input_tokens
    count.output_tokens += output_tokens


def _input_tokens(call: AskedCall) -> float:
    return sum(len(str(message.get("content") or "").encode()) for message in call.messages) / BYTES_PER_TOKEN


def _model_plan(panel: Panel, model: str, count: _Count, limits: AskingLimits) -> ModelPlan:
    member = panel.member(model)
    prices = panel.prices(member)
    return ModelPlan(
        model=model,
        role="candidate" if model in panel.models else "judge",
        calls=count.calls,
        from_log=count.from_log,
        from_store=count.from_store,
        input_tokens=round(count.input_tokens),
        output_tokens=round(count.output_tokens),
        expected_usd=prices.cost_usd(count.input_tokens, count.output_tokens) if prices else None,
        minutes=_minutes(member, count, limits),
    )


def _minutes(member: Candidate, count: _Count, limits: AskingLimits) -> float:
    seconds = (count.calls * START_S + count.output_tokens / TOKENS_PER_S) / limits.concurrency
    per_minute = limits.per_minute.get(member.name, limits.per_minute.get(""))
    return max(seconds / 60, count.calls / per_minute if per_minute else 0.0)


def total_cost(work: Work, wanted: Sequence[MissingCalls], asker: Asker) -> Cost:
    """Return what all prompts can cost at most."""
    total = NOTHING
    for one in wanted:
        total += one.worst(work, asker)
    return total


@dataclass(frozen=True)
class LabelNeed:
    """Says how many labels a target needs for a policy that loses this much and differs this often.

    Attributes:
        mean_loss: the true mean quality that the policy loses, 0 to 1.
        differing: the share of the prompts on which its answer is better or worse than the reference's.
        certifying: the prompts that must certify, so that it succeeds in 8 cases of 10; None if 100,000 are too few.
        to_collect: the prompts to collect for that, if 40 % of them certify.
        chance: the probability, 0 to 1, of success with the prompts that are planned now.
    """

    mean_loss: float
    differing: float
    certifying: int | None
    to_collect: int | None
    chance: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def label_needs(max_loss: float, n_prompts: int, *, delta: float = 0.05) -> tuple[LabelNeed, ...]:
    """Return how many labels a bound on the mean quality loss needs, for policies of several true losses.

    Before there is a label nobody knows how good a policy will be; so this is a table. With labels at hand
    `elle tune --plan` says it for the policy itself. max_loss: the target, 0 to 1. n_prompts: the prompts that are
    planned, of which HOLDOUT certify. delta: 1 minus the confidence.
    """
    return tuple(
        _label_need(max_loss, share * max_loss, differing, n_prompts, delta)
        for share in (0.0, 0.25, 0.5)
        for differing in (0.05, 0.1, 0.2)
    )


def _label_need(max_loss: float, mean_loss: float, differing: float, n_prompts: int, delta: float) -> LabelNeed:
    size = 10_000
    worse = round(size * (differing + mean_loss) / 2)
    better = round(size * (differing - mean_loss) / 2)
    losses = np.repeat([1.0, -1.0, 0.0], [worse, better, size - worse - better])
    certifying = labels_needed(losses, max_loss, delta)
    n_certify = int(n_prompts * HOLDOUT)
    chance = 0.0
    if n_certify >= 1:
        draws = np.random.default_rng(0).choice(losses, size=(400, n_certify))
        chance = float(np.asarray(excludes(draws, max_loss, delta, TERNARY)).mean())
    to_collect = None if certifying is None else int(np.ceil(certifying / HOLDOUT))
    return LabelNeed(mean_loss, differing, certifying, to_collect, chance)
