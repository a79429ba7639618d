"""Build the result of `elle tune` from the policies that were tested and selected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from probes.certificates.bounds import upper_bound
from probes.certificates.fixed_sequence import Certificate, NotCertified, certify_groups
from probes.certificates.human_grades import GradedLosses
from probes.errors import DataError
from probes.probe import DataSource
from router.policies.certificate import covers_of
from router.policies.policy_file import CostRule, GainRule
from router.quoting import quoted
from router.tuning.certifying.path_testing import PolicySelection, TargetTest
from router.tuning.certifying.preparation import TuningInputs
from router.tuning.certifying.results.label_plan import plan_labels
from router.tuning.certifying.results.tuning_result import (
    SHOWN_IDS,
    GroupResult,
    RuleResult,
    TargetResult,
    TunedRule,
    TuningResult,
)
from router.tuning.certifying.rule_paths import PolicyPath
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import Target, losses_of


def build_result(
    inputs: TuningInputs, path: PolicyPath, selections: Mapping[str, PolicySelection], settings: TuneSettings
) -> TuningResult:
    """Return the result for the selected policies.

    selections: by profile name, "" for the policy's own rule. Raises DataError if groups or a plan are asked for
    without a target on quality loss, or groups without a group column.
    """
    created = datetime.now(UTC).replace(microsecond=0)
    calibration, outcomes, data = inputs.calibration, inputs.calibration.outcomes, inputs.data
    rules = {key: _rule_result(selection, path, inputs, settings) for key, selection in selections.items()}
    loss_test = _first_loss_test(selections, settings)
    reference_cost = float(data.paid_usd[:, data.reference].mean())
    return TuningResult(
        main=rules.pop(""),
        profiles=rules,
        groups=_group_results(loss_test, path, inputs, settings) if loss_test and settings.by else {},
        plan=plan_labels(loss_test.losses, path.chosen, data.reference, loss_test.result.delta)
        if loss_test and settings.plan
        else None,
        candidates=inputs.served.rules.file.names,
        reference=inputs.served.rules.file.safe_default,
        reference_quality=data.reference_quality,
        reference_cost_usd_per_1k=reference_cost * 1000 if np.isfinite(reference_cost) else None,
        rule=path.rules[0].kind,
        confidence=settings.confidence,
        correction=_describe_correction(settings),
        about=inputs.about.words,
        n_calibration=len(outcomes),
        n_human=inputs.about.n_human,
        n_seen_in_fit=len(calibration.seen),
        seen_in_fit_ids=calibration.seen.ids[:SHOWN_IDS],
        n_incomplete=calibration.n_incomplete,
        n_repeated=calibration.n_repeated,
        n_seen_left_out=calibration.n_seen_left_out,
        n_seen_kept=calibration.n_seen_kept,
        n_informative=calibration.n_informative,
        n_unused=calibration.n_unused,
        changed_share=calibration.changed_share,
        n_averaged=outcomes.n_averaged,
        covers=covers_of(inputs.served.rules.file),
        attempts=inputs.attempts,
        data=outcomes.sources,
        data_digest=data_digest(outcomes.sources),
        probe=inputs.judged_by,
        created=created,
        expires=created + timedelta(days=settings.valid_days),
        notes=inputs.notes,
    )


def data_digest(sources: Sequence[DataSource]) -> str:
    """Return the SHA-256 of the data file; for several files, the SHA-256 of their digests one after another."""
    if len(sources) == 1:
        return sources[0].sha256
    return sha256("".join(source.sha256 for source in sources).encode()).hexdigest()


def _first_loss_test(selections: Mapping[str, PolicySelection], settings: TuneSettings) -> TargetTest | None:
    """Return the first test of a target on quality loss; groups and the plan are about that target."""
    tests = [test for selection in selections.values() for test in selection.tests if test.target.kind == "max_loss"]
    if (settings.by or settings.plan) and not tests:
        raise DataError("--by and --plan are about quality loss; give --max-loss as well.")
    return tests[0] if tests else None


def _describe_correction(settings: TuneSettings) -> str:
    n_targets = len(settings.targets) + len(settings.profiles)
    if n_targets == 1:
        return f"One target at confidence {settings.confidence:g}."
    return (
        f"{n_targets} targets hold together with confidence {settings.confidence:g} (each at delta "
        f"{settings.delta_each:.4g}, Bonferroni)."
    )


def _rule_result(
    selection: PolicySelection, path: PolicyPath, inputs: TuningInputs, settings: TuneSettings
) -> RuleResult:
    certified = selection.policy is not None
    shown = certified or settings.allow_uncertified
    return RuleResult(
        certified=certified,
        targets=tuple(_target_result(test, selection.policy) for test in selection.tests),
        rule=_tuned_rule(selection, path, inputs, settings) if shown else None,
        more_labels=None if certified else selection.more_labels,
    )


def _target_result(test: TargetTest, policy: int | None) -> TargetResult:
    """Return the result for one target, in its own unit. policy: the certified one; None if there is none."""
    target, result = test.target, test.result
    estimate = result.estimate if policy is None else test.estimate(policy)
    # The certified figure is the limit, whatever the bound of the single policy is.
    bound = result.upper_bound if policy is None else min(test.bound(policy), test.losses.limit)
    if target.kind == "min_quality":
        estimate, bound = 1.0 - estimate, 1.0 - bound
    if target.kind == "max_cost_usd_per_1k":
        estimate, bound = 1000 * estimate, 1000 * bound
    return TargetResult(
        kind=target.kind,
        limit=target.limit,
        says=str(target),
        certified=test.certified,
        estimate=estimate,
        bound=bound,
        method=test.losses.bound.method,
        delta=result.delta,
        more_labels=result.more_labels if isinstance(result, NotCertified) else None,
    )


def _tuned_rule(
    selection: PolicySelection, path: PolicyPath, inputs: TuningInputs, settings: TuneSettings
) -> TunedRule:
    """Return the selected rule with what it does on the calibration prompts."""
    data, rule = inputs.data, selection.rule(path)
    chosen = path.chosen[selection.policy_or_guess][None, :]
    drop = float(data.quality_drop(chosen).mean(axis=1)[0])
    cost, reference_cost = float(data.cost(chosen).mean()), float(data.paid_usd[:, data.reference].mean())
    known = np.isfinite(cost) and np.isfinite(reference_cost)
    names = inputs.served.rules.file.names
    return TunedRule(
        thresholds=rule.thresholds if isinstance(rule, GainRule) else None,
        quality_per_usd=None if isinstance(rule, GainRule) else rule.quality_per_usd,
        weak_share=float((chosen == 0).mean()),
        shares={name: float((chosen == number).mean()) for number, name in enumerate(names)},
        quality=data.reference_quality - drop,
        loss_estimate=drop,
        loss_upper_bound=_loss_upper_bound(selection, path, inputs, settings),
        expected_cost_saving=1.0 - cost / reference_cost if known and reference_cost > 0 else None,
        cost_usd_per_1k=1000 * cost if known else None,
        abstained_share=float(path.abstains.mean()),
    )


def _loss_upper_bound(
    selection: PolicySelection, path: PolicyPath, inputs: TuningInputs, settings: TuneSettings
) -> float:
    """Return the bound on the quality loss of the selected policy, or a certified limit if that is smaller."""
    chosen = path.chosen[selection.policy_or_guess][None, :]
    # Only the losses and the bound are needed here, so any limit will do.
    losses = losses_of(Target("max_loss", 0.5), chosen, inputs.data)
    bound = float(upper_bound(losses.matrix, settings.delta_each, losses.bound)[0])
    if selection.policy is None:
        return bound
    return min([bound, *(test.target.limit for test in selection.tests if test.target.kind == "max_loss")])


def _group_results(
    test: TargetTest, path: PolicyPath, inputs: TuningInputs, settings: TuneSettings
) -> dict[str, GroupResult]:
    outcomes = inputs.calibration.outcomes
    labels = outcomes.tasks if settings.by == "task" else outcomes.groups
    if not any(labels):
        raise DataError(f"--by {settings.by} needs a column `{settings.by}` in the data, and found none.")
    losses = test.losses
    if isinstance(losses.matrix, GradedLosses):
        graded = {label for label, known in zip(labels, losses.matrix.graded, strict=True) if known}
        if missing := sorted(set(labels) - graded):
            raise DataError(
                f"--by {settings.by} needs a human grade in each {settings.by}; {quoted(missing[0])} has none. Grade "
                "some of its rows, or certify the judge with --about judge."
            )
    found = certify_groups(losses.matrix, labels, losses.limit, settings.delta, losses.bound)
    members = np.array(labels)
    return {
        str(label): _group_result(certified, path, members == label)
        for label, certified in sorted(found.items(), key=lambda item: str(item[0]))
    }


def _group_result(
    certified: Certificate | NotCertified, path: PolicyPath, members: npt.NDArray[np.bool_]
) -> GroupResult:
    rule = path.rule(certified.index) if isinstance(certified, Certificate) else None
    return GroupResult(
        n=certified.n,
        certified=rule is not None,
        thresholds=rule.thresholds if isinstance(rule, GainRule) else None,
        quality_per_usd=rule.quality_per_usd if isinstance(rule, CostRule) else None,
        weak_share=float((path.chosen[certified.index][members] == 0).mean())
        if isinstance(certified, Certificate)
        else None,
        loss_estimate=certified.estimate,
        loss_upper_bound=certified.upper_bound,
        more_labels=certified.more_labels if isinstance(certified, NotCertified) else None,
    )
