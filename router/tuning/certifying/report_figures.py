"""From what was certified to the figures a report gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from probes.certificates.bounds import upper_bound
from probes.certificates.fixed_sequence import Certificate as PathCertificate
from probes.certificates.fixed_sequence import NotCertified, certify_groups
from probes.errors import DataError
from probes.probe import DataSource
from router.policies.certificate import covers_of
from router.policies.policy_file import CostRule, GainRule
from router.tuning.certifying.label_plan import Plan, plan
from router.tuning.certifying.targets import Stretch, Target, Verdict, losses_of
from router.tuning.certifying.tune_report import (
    SHOWN_IDS,
    GroupAnswer,
    RuleAnswer,
    RuleFigures,
    TargetAnswer,
    TuneReport,
)
from router.tuning.certifying.tuning_run import Bench, TuneSettings, Walked, row_of, rule_of


def report_of(
    bench: Bench, walked: Walked, verdicts: Mapping[str, Verdict], settings: TuneSettings, *, guess: bool
) -> TuneReport:
    """The report on the verdicts (by profile, "" for the policy's own rule); with `guess` also figures of guesses."""
    created = datetime.now(UTC).replace(microsecond=0)
    outcomes, facts = bench.calibration.outcomes, bench.facts
    answers = {key: _answer(verdict, walked, bench, settings, guess=guess) for key, verdict in verdicts.items()}
    loss_targets = [s for verdict in verdicts.values() for s in verdict.stretches if s.target.kind == "max_loss"]
    if (settings.by_group or settings.plan) and not loss_targets:
        raise DataError("--by-group and --plan are about quality loss; give --max-loss as well.")
    reference_cost = float(facts.paid_usd[:, facts.reference].mean())
    n_targets = len(settings.targets) + len(settings.profiles)
    return TuneReport(
        main=answers.pop(""),
        profiles=answers,
        groups=_groups(loss_targets[0], walked, bench, settings) if settings.by_group else {},
        plan=_plan(loss_targets[0], walked, bench) if settings.plan else None,
        candidates=bench.served.rules.file.names,
        reference=bench.served.rules.file.safe_default,
        reference_quality=float(facts.scores[:, facts.reference].mean()),
        reference_cost_usd_per_1k=reference_cost * 1000 if np.isfinite(reference_cost) else None,
        rule=walked.path[0].kind,
        confidence=settings.confidence,
        correction=f"{n_targets} targets hold together with confidence {settings.confidence:g} (each at delta "
        f"{settings.delta_each:.4g}, Bonferroni)."
        if n_targets > 1
        else f"One target at confidence {settings.confidence:g}.",
        n_calibration=len(outcomes),
        n_seen_in_fit=len(bench.calibration.seen),
        seen_in_fit_ids=bench.calibration.seen.ids[:SHOWN_IDS],
        n_incomplete=bench.calibration.n_incomplete,
        n_repeated=bench.calibration.n_repeated,
        n_seen_left_out=bench.calibration.n_seen_left_out,
        n_seen_kept=bench.calibration.n_seen_kept,
        n_unused=bench.calibration.n_unused,
        changed_share=bench.calibration.changed_share,
        n_averaged=outcomes.n_averaged,
        covers=covers_of(bench.served.rules.file),
        attempts=bench.attempts,
        data=outcomes.sources,
        data_digest=data_digest(outcomes.sources),
        probe=bench.probe.identity,
        created=created,
        expires=created + timedelta(days=settings.valid_days),
        notes=bench.notes,
    )


def data_digest(sources: Sequence[DataSource]) -> str:
    """The SHA-256 of the data file; of several, the SHA-256 of their digests one after another."""
    if len(sources) == 1:
        return sources[0].sha256
    return sha256("".join(source.sha256 for source in sources).encode()).hexdigest()


def _answer(verdict: Verdict, walked: Walked, bench: Bench, settings: TuneSettings, *, guess: bool) -> RuleAnswer:
    certified = verdict.policy is not None
    return RuleAnswer(
        certified=certified,
        targets=tuple(_target_answer(stretch, verdict.policy) for stretch in verdict.stretches),
        figures=_figures(verdict, walked, bench, settings) if certified or guess else None,
        more_labels=None if certified else verdict.more_labels,
    )


def _target_answer(stretch: Stretch, policy: int | None) -> TargetAnswer:
    target, answer = stretch.target, stretch.answer
    estimate = answer.estimate if policy is None else stretch.estimate(policy)
    bound = answer.upper_bound if policy is None else min(stretch.bound(policy), stretch.losses.limit)
    if target.kind == "min_quality":
        estimate, bound = 1.0 - estimate, 1.0 - bound
    if target.kind == "max_cost_usd_per_1k":
        estimate, bound = 1000 * estimate, 1000 * bound
    return TargetAnswer(
        kind=target.kind,
        limit=target.limit,
        says=str(target),
        certified=stretch.certified,
        estimate=estimate,
        bound=bound,
        method=stretch.losses.bound.method,
        delta=answer.delta,
        more_labels=answer.more_labels if isinstance(answer, NotCertified) else None,
    )


def _figures(verdict: Verdict, walked: Walked, bench: Bench, settings: TuneSettings) -> RuleFigures:
    row, facts = row_of(verdict), bench.facts
    chosen = walked.chosen[row : row + 1]
    drop = facts.drop(chosen)[0]
    losses = losses_of(Target("max_loss", 0.5), chosen, facts)
    bound = float(upper_bound(losses.matrix, settings.delta_each, losses.bound)[0])
    limits = [s.target.limit for s in verdict.stretches if s.target.kind == "max_loss" and verdict.policy is not None]
    names = bench.served.rules.file.names
    rule = rule_of(walked, verdict)
    cost, reference_cost = float(facts.cost(chosen).mean()), float(facts.paid_usd[:, facts.reference].mean())
    known = np.isfinite(cost) and np.isfinite(reference_cost)
    return RuleFigures(
        thresholds=rule.thresholds if isinstance(rule, GainRule) else None,
        quality_per_usd=None if isinstance(rule, GainRule) else rule.quality_per_usd,
        weak_share=float((chosen == 0).mean()),
        shares={name: float((chosen == number).mean()) for number, name in enumerate(names)},
        quality=float(facts.scores[:, facts.reference].mean() - drop.mean()),
        loss_estimate=float(drop.mean()),
        loss_upper_bound=min([bound, *limits]),
        expected_cost_saving=1.0 - cost / reference_cost if known and reference_cost > 0 else None,
        cost_usd_per_1k=1000 * cost if known else None,
        abstained_share=float(walked.abstains.mean()),
    )


def _groups(stretch: Stretch, walked: Walked, bench: Bench, settings: TuneSettings) -> dict[str, GroupAnswer]:
    labels = bench.calibration.outcomes.groups
    if not any(labels):
        raise DataError("--by-group needs a column `group` in the data, and found none.")
    x = stretch.losses
    found = certify_groups(x.matrix, labels, x.limit, settings.delta, x.bound)
    members = np.array(labels)
    return {
        str(label): _group_answer(answer, walked, members == label)
        for label, answer in sorted(found.items(), key=lambda item: str(item[0]))
    }


def _group_answer(
    answer: PathCertificate | NotCertified, walked: Walked, members: npt.NDArray[np.bool_]
) -> GroupAnswer:
    rule = walked.rule(answer.index) if isinstance(answer, PathCertificate) else None
    return GroupAnswer(
        n=answer.n,
        certified=rule is not None,
        thresholds=rule.thresholds if isinstance(rule, GainRule) else None,
        quality_per_usd=rule.quality_per_usd if isinstance(rule, CostRule) else None,
        weak_share=float((walked.chosen[answer.index][members] == 0).mean())
        if isinstance(answer, PathCertificate)
        else None,
        loss_estimate=answer.estimate,
        loss_upper_bound=answer.upper_bound,
        more_labels=answer.more_labels if isinstance(answer, NotCertified) else None,
    )


def _plan(stretch: Stretch, walked: Walked, bench: Bench) -> Plan:
    return plan(stretch.losses, walked.chosen, bench.facts.reference, stretch.answer.delta)
