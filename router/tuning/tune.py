"""Outcomes the probe has not seen + targets -> a policy file with its certificate, or how many labels are missing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from probes import artifact
from probes.bounds import upper_bound
from probes.encoder import EncoderSpec
from probes.errors import DataError
from probes.probe import DataSource, DifficultyProbe
from probes.replace import write_file
from probes.risk_control import Certificate as PathCertificate
from probes.risk_control import NotCertified, certify_groups
from router.ask import Ask
from router.certificate import check_certificate, digest_of, is_about_cost
from router.config import Candidate, Certificate, CertifiedTarget, CostRule, GainRule, PolicyFile, Profile, Rule
from router.errors import ConfigError
from router.loading import ServedPolicy, assemble
from router.policy import Judgement, Rules, decide, expected_cost_usd
from router.tuning.calibration_set import CalibrationSet, calibration_set
from router.tuning.candidates import (
    by_cost,
    candidates_from_names,
    candidates_of_policy,
    mean_lengths,
    paid_usd,
    read_prices,
)
from router.tuning.datasets import Outcomes, read_outcomes
from router.tuning.features import FeatureCache, Progress
from router.tuning.paths import Choices, PathRule, choices, cost_path, distinct, gain_path, judgements, scene
from router.tuning.plan import Plan, plan
from router.tuning.targets import Facts, Stretch, Target, Verdict, certify_together, losses_of
from router.tuning.tune_report import SHOWN_IDS, GroupAnswer, RuleAnswer, RuleFigures, TargetAnswer, TuneReport
from router.types import Overrides

#: Days a certificate is good for unless asked otherwise.
VALID_DAYS = 90

#: Requests taken as the dearest that occur, unless --max-request-usd says otherwise.
LONGEST_INPUT_TOKENS, LONGEST_OUTPUT_TOKENS = 32_768, 4_096

#: The request at whose cost candidates are put in order and steps are priced; fixed, so that paths are.
USUAL_ASK = Ask(text="", needs=frozenset(), unknown_parts=(), input_tokens_estimate=500, max_output_tokens=None)


@dataclass(frozen=True)
class TuneSettings:
    """What to tune, besides probe and data.

    Attributes:
        targets: all of them must hold for the policy's own rule.
        profiles: further rules by name, each for a maximal quality loss.
        models: as in the data, in any order unless no prices are known; the last is the reference unless named.
        reference: losses are measured against it, and it answers where the router abstains.
        rule: `gain` or `cost`; None takes cost for three models and more where prices are known, else gain.
        prices: file of prices, or `litellm`; None if only the candidates or the data know any.
        candidates: policy file to take the candidates from, instead of `models` and `prices`.
        confidence: that all targets hold together.
        max_request_usd: no request costs more, for targets on cost.
        valid_days: until the certificate expires.
        by_group: also certify a threshold for each group by itself.
        plan: also say what more labels would buy.
    """

    targets: tuple[Target, ...]
    profiles: Mapping[str, Target] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    reference: str | None = None
    rule: str | None = None
    prices: str | None = None
    candidates: Path | None = None
    confidence: float = 0.95
    max_request_usd: float | None = None
    valid_days: float = VALID_DAYS
    by_group: bool = False
    plan: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            raise DataError("a target must be given: --max-loss, --min-quality, --max-strong-share or another.")
        if not 0 < self.confidence < 1:
            raise DataError(f"confidence must lie strictly between 0 and 1, got {self.confidence}; 0.95 is usual.")
        if not 0 < self.valid_days < 36_500:
            raise DataError(f"a certificate must be valid for some days, at most 100 years; got {self.valid_days}.")

    @property
    def delta_each(self) -> float:
        """The level of each target: Bonferroni over all targets and profiles."""
        return (1.0 - self.confidence) / (len(self.targets) + len(self.profiles))


def tune_command(
    probe_dir: Path,
    data: Sequence[Path],
    settings: TuneSettings,
    *,
    out: Path | None,
    allow_uncertified: bool,
    encoder_dir: Path | None,
    on_progress: Progress | None,
) -> TuneReport:
    """What `elle tune` does: the report; the policy file is written whole, and only if it is certified or allowed.

    Raises ArtifactError, DataError, EncoderError or ConfigError; then nothing is written.
    """
    if out is not None and not out.resolve().parent.is_dir():
        raise ConfigError(f"the folder of {out} must exist; create it first.")
    probe = artifact.load(probe_dir)
    candidates = candidates_of_policy(settings.candidates) if settings.candidates else None
    models = tuple(c.name_in_probe for c in candidates) if candidates else settings.models
    if unknown := [model for model in models if model not in probe.models]:
        raise DataError(f"models must be among the probe's ({', '.join(probe.models)}), got {', '.join(unknown)}.")
    if len(models) < 2:
        raise DataError(f"there must be two models or more to choose from, got {', '.join(models) or 'none'}.")
    bench = prepare(probe, read_outcomes(*data).select_models(models), settings, candidates)
    features = FeatureCache().features(
        bench.spec, bench.calibration.outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress
    )
    name, place = _name(out), _place(probe_dir, out)
    report, file = tune(bench, features, settings, name=name, probe_place=place, guess=allow_uncertified)
    if out is not None and file is not None:
        write_file(out.resolve(), policy_text(file, report).encode())
        report = report.written_to(out)
    return report


def _name(out: Path | None) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem).strip("._-") if out is not None else ""
    return stem[:128] or "tuned"


def _place(probe_dir: Path, out: Path | None) -> str:
    """Where the policy file finds its probe: relative, so that both can move together."""
    return os.path.relpath(probe_dir.resolve(), out.resolve().parent if out is not None else Path.cwd())


@dataclass(frozen=True)
class Bench:
    """All that is needed to tune but the features.

    served: the candidates under a rule still to be replaced. facts: of the calibration prompts. n_estimated_costs:
    cells of (prompt, candidate) whose cost is not the data's.
    """

    probe: DifficultyProbe
    calibration: CalibrationSet
    served: ServedPolicy
    facts: Facts
    n_estimated_costs: int
    notes: tuple[str, ...]

    @property
    def spec(self) -> EncoderSpec:
        """The encoder of the probe."""
        assert self.served.encoder_spec is not None  # noqa: S101  (a policy that judges has one)
        return self.served.encoder_spec


def prepare(
    probe: DifficultyProbe, outcomes: Outcomes, settings: TuneSettings, candidates: tuple[Candidate, ...] | None = None
) -> Bench:
    """Calibration prompts, candidates in the order of their tiers, and the facts about both.

    outcomes: of exactly the models to route between, the last of them the reference unless the settings name another.
    Raises DataError or ConfigError for data or candidates that cannot be tuned.
    """
    calibration = calibration_set(outcomes, probe)
    reference = settings.reference or outcomes.models[-1]
    if reference not in outcomes.models:
        raise DataError(f"the reference must be one of {', '.join(outcomes.models)}, got {reference!r}.")
    if candidates is None:
        candidates = _candidates(outcomes.models, calibration, settings)
    file = PolicyFile(
        schema="elle.policy/1",
        name="tuned",
        probe="to-be-named",
        candidates=candidates,
        rule=GainRule(kind="gain", thresholds=(0.0,) * (len(candidates) - 1)),
        safe_default=next(c.name for c in candidates if c.name_in_probe == reference),
    )
    served = assemble(file, probe)
    ordered = replace(calibration, outcomes=calibration.outcomes.select_models([c.name_in_probe for c in candidates]))
    paid, estimated = paid_usd(served, ordered.outcomes)
    facts = Facts(
        scores=ordered.outcomes.scores,
        paid_usd=paid,
        reference=file.names.index(file.safe_default),
        graded=calibration.graded,
        ceiling_usd=_ceiling(served.rules, settings),
    )
    return Bench(probe, ordered, served, facts, estimated, _notes(served, facts, estimated, settings))


def _candidates(models: Sequence[str], calibration: CalibrationSet, settings: TuneSettings) -> tuple[Candidate, ...]:
    litellm = settings.prices == "litellm"
    table = None if settings.prices is None or litellm else read_prices(Path(settings.prices))
    # Lengths come from prompts of the fit: what the policy weighs must not depend on the calibration prompts.
    found = candidates_from_names(models, table, litellm=litellm, lengths=mean_lengths(calibration.seen))
    return found if len(found) == 2 else by_cost(found, USUAL_ASK)


def _ceiling(rules: Rules, settings: TuneSettings) -> float | None:
    if settings.max_request_usd is not None:
        return settings.max_request_usd
    known = [prices for prices in rules.prices if prices is not None]
    if len(known) < len(rules.prices):
        return None
    return max(prices.cost_usd(LONGEST_INPUT_TOKENS, LONGEST_OUTPUT_TOKENS) for prices in known)


def _notes(served: ServedPolicy, facts: Facts, estimated: int, settings: TuneSettings) -> tuple[str, ...]:
    notes = []
    if not np.isfinite(facts.paid_usd).all():
        notes.append("prices are not known for every candidate, so no costs are given; see --prices.")
    elif estimated:
        notes.append(
            f"{estimated:,} of {facts.paid_usd.size:,} costs are estimates: list prices, input tokens by the length of "
            "the prompt, output tokens by the candidate's expected_output_tokens."
        )
    if any(target.kind == "max_cost_usd_per_1k" for target in settings.targets) and facts.ceiling_usd is not None:
        notes.append(f"the cost target assumes that no request costs more than ${facts.ceiling_usd:.4g}.")
    if settings.candidates is None:
        notes.append("set each candidate's `model` to its LiteLLM model string before serving; that voids nothing.")
    return tuple(notes)


def lay_path(served: ServedPolicy, facts: Facts, rule: str | None) -> tuple[PathRule, ...]:
    """The path for these candidates: from the reference where a rule can always choose it, else from best quality.

    Raises ConfigError for an unknown rule, or for a cost rule without prices.
    """
    costs = [
        expected_cost_usd(candidate, prices, USUAL_ASK)
        for candidate, prices in zip(served.rules.file.candidates, served.rules.prices, strict=True)
    ]
    known = [cost for cost in costs if cost is not None]
    priced = len(known) == len(costs)
    if rule is None:
        rule = "cost" if priced and len(costs) > 2 else "gain"
    if rule == "cost":
        if not priced:
            raise ConfigError("the cost rule needs a price of every candidate; give --prices, or use --rule gain.")
        path: tuple[PathRule, ...] = cost_path()
        return path if known[facts.reference] == max(known) else path[len(path) // 2 :]
    if rule != "gain":
        raise ConfigError(f"the rule must be gain or cost, got {rule!r}.")
    steps = np.diff(known) if priced else np.ones(len(costs) - 1)
    # A step that costs nothing, or less, still climbs a tier: it counts as a thousandth of the dearest.
    floor = max(float(steps.max()), 1e-12) * 1e-3
    gains = gain_path(np.maximum(steps, floor).tolist())
    return gains if facts.reference == len(costs) - 1 else tuple(g for g in gains if g.thresholds[0] >= 0)


@dataclass(frozen=True)
class _Walked:
    """A path on the calibration prompts. rows: path numbers at the end of each stretch of equal choices."""

    path: tuple[PathRule, ...]
    chosen: Choices
    starts: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    abstains: npt.NDArray[np.bool_]

    def rule(self, row: int, *, first: bool = False) -> PathRule:
        """The cheapest rule of the path that chooses as `row` does, or the safest."""
        return self.path[int((self.starts if first else self.ends)[row])]


def tune(
    bench: Bench,
    features: npt.NDArray[np.float32],
    settings: TuneSettings,
    *,
    name: str,
    probe_place: str,
    guess: bool = False,
) -> tuple[TuneReport, PolicyFile | None]:
    """Certify, and build the policy file; with `guess`, without a certificate where none can be given.

    features: of the calibration prompts, in their order. Raises DataError or ConfigError.
    """
    prediction = bench.probe.predict(features)
    view = scene(bench.served, bench.calibration.asks, prediction)
    path = lay_path(bench.served, bench.facts, settings.rule)
    everything = choices(path, view)
    ends = distinct(everything)
    starts = np.concatenate([[0], ends[:-1] + 1])
    walked = _Walked(path, everything[ends], starts, ends, view.fallback >= 0)
    asked = {"": settings.targets} | {key: (target,) for key, target in settings.profiles.items()}
    verdicts = {
        key: certify_together(targets, walked.chosen, bench.facts, settings.delta_each)
        for key, targets in asked.items()
    }
    report = _report(bench, walked, verdicts, settings, guess=guess)
    if not report.certified and not guess:
        return report, None
    file = _policy_file(bench, walked, verdicts, report, name, probe_place)
    for key, verdict in verdicts.items():
        served = assemble(file, bench.probe)
        served = served if not key else next(p for p in served.profiles() if p.ref.name.endswith(f":{key}"))
        _check_served(served, bench, judgements(served, prediction), walked.chosen[_row(verdict)])
    return report, file


def _row(verdict: Verdict) -> int:
    return verdict.best_guess() if verdict.policy is None else verdict.policy


def _check_served(
    served: ServedPolicy, bench: Bench, judged: Sequence[Judgement], expected: npt.NDArray[np.int16]
) -> None:
    """The policy to be written must decide every calibration prompt as it was certified; it is asked, not trusted."""
    check_certificate(served.rules, bench.probe.identity, served.ref.name)
    names = served.rules.file.names
    for number, (ask, judgement) in enumerate(zip(bench.calibration.asks, judged, strict=True)):
        chosen = decide(served.rules, ask, Overrides(), judgement).chosen.name
        if chosen != names[expected[number]]:
            raise AssertionError(
                f"the served policy must decide as the certified one; for prompt "
                f"{bench.calibration.outcomes.ids[number]} it chooses {chosen}, certified was "
                f"{names[expected[number]]}. This is a defect of elle; please report it."
            )


def _policy_file(
    bench: Bench,
    walked: _Walked,
    verdicts: Mapping[str, Verdict],
    report: TuneReport,
    name: str,
    probe_place: str,
) -> PolicyFile:
    def tuned(key: str) -> tuple[Rule, Certificate | None]:
        rule = _rule(walked, verdicts[key])
        answer = report.profiles[key] if key else report.main
        return rule, _certificate(bench, rule, answer, report) if answer.certified else None

    rule, certificate = tuned("")
    profiles = {}
    for key in report.profiles:
        own, shown = tuned(key)
        profiles[key] = Profile(rule=own, certificate=shown)
    changes = {"name": name, "probe": probe_place, "rule": rule, "certificate": certificate, "profiles": profiles}
    changes["description"] = "; ".join(target.says for target in report.main.targets)
    draft = bench.served.rules.file.model_copy(update=changes)
    # As it will be read back, so that what is checked is what is written.
    return PolicyFile.model_validate(yaml.safe_load(policy_text(draft, report)))


def _rule(walked: _Walked, verdict: Verdict) -> PathRule:
    spending = all(s.target.on_spending for s in verdict.stretches)
    return walked.rule(_row(verdict), first=spending)


def _certificate(bench: Bench, rule: Rule, answer: RuleAnswer, report: TuneReport) -> Certificate:
    assert answer.figures is not None  # noqa: S101  (a certified rule has figures)
    certificate = Certificate(
        confidence=report.confidence,
        targets=tuple(
            CertifiedTarget(
                kind=t.kind,
                limit=t.limit,
                estimate=t.estimate,
                bound_on_estimate=t.bound,
                method=t.method,
                delta=t.delta,
            )
            for t in answer.targets
        ),
        reference=report.reference,
        n_calibration=report.n_calibration,
        weak_share=answer.figures.weak_share,
        expected_cost_saving=answer.figures.expected_cost_saving,
        data_digest=report.data_digest,
        probe=bench.probe.identity,
        decides="",
        created=report.created,
        expires=report.expires,
    )
    rules = bench.served.rules
    rules = replace(rules, file=rules.file.model_copy(update={"rule": rule}))
    return certificate.model_copy(update={"decides": digest_of(rules, with_prices=is_about_cost(certificate))})


def policy_text(file: PolicyFile, report: TuneReport) -> str:
    """The policy as YAML, with a word on top about where it comes from."""
    status = (
        "Certified" if report.certified else "NOT certified"
    ) + f" by `elle tune` on {report.created.date()}; an edit of what decides voids the certificate."
    data = file.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return f"# {status}\n" + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def _report(
    bench: Bench, walked: _Walked, verdicts: Mapping[str, Verdict], settings: TuneSettings, *, guess: bool
) -> TuneReport:
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


def _answer(verdict: Verdict, walked: _Walked, bench: Bench, settings: TuneSettings, *, guess: bool) -> RuleAnswer:
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
        method=stretch.losses.method,
        delta=answer.delta,
        more_labels=answer.more_labels if isinstance(answer, NotCertified) else None,
    )


def _figures(verdict: Verdict, walked: _Walked, bench: Bench, settings: TuneSettings) -> RuleFigures:
    row, facts = _row(verdict), bench.facts
    chosen = walked.chosen[row : row + 1]
    drop = facts.drop(chosen)[0]
    losses = losses_of(Target("max_loss", 0.5), chosen, facts)
    bound = float(upper_bound(losses.matrix, settings.delta_each, bound=losses.method)[0])
    limits = [s.target.limit for s in verdict.stretches if s.target.kind == "max_loss" and verdict.policy is not None]
    names = bench.served.rules.file.names
    rule = _rule(walked, verdict)
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


def _groups(stretch: Stretch, walked: _Walked, bench: Bench, settings: TuneSettings) -> dict[str, GroupAnswer]:
    labels = bench.calibration.outcomes.groups
    if not any(labels):
        raise DataError("--by-group needs a column `group` in the data, and found none.")
    x = stretch.losses
    delta = 1.0 - settings.confidence
    found = certify_groups(x.matrix, labels, x.limit, delta, bound=x.method, low=x.low, high=x.high)
    members = np.array(labels)
    return {
        str(label): _group_answer(answer, walked, members == label)
        for label, answer in sorted(found.items(), key=lambda item: str(item[0]))
    }


def _group_answer(
    answer: PathCertificate | NotCertified, walked: _Walked, members: npt.NDArray[np.bool_]
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


def _plan(stretch: Stretch, walked: _Walked, bench: Bench) -> Plan:
    return plan(stretch.losses, walked.chosen, bench.facts.reference, stretch.answer.delta)
