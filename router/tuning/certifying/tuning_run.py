"""What a tuning run stands on: settings, calibration prompts, candidates, the path, and what it chooses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.asking.ask import Ask
from router.errors import ConfigError
from router.policies.eligibility import expected_cost_usd
from router.policies.file_model import NAME_PATTERN
from router.policies.loading import ServedPolicy, assemble
from router.policies.policy_file import Candidate, GainRule, PolicyFile
from router.policies.rules import Rules
from router.tuning.certifying.calibration_notes import expects_graded, notes_on
from router.tuning.certifying.calibration_set import CalibrationSet, calibration_set
from router.tuning.certifying.reference import check_reference
from router.tuning.certifying.rule_paths import Choices, PathRule, cost_path, gain_path
from router.tuning.certifying.targets import Facts, Target, Verdict
from router.tuning.outcomes.candidates import (
    by_cost,
    candidates_from_names,
    mean_lengths,
    paid_usd,
    read_prices,
)
from router.tuning.outcomes.datasets import Outcomes

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
        bound: `ternary` for scores of 0 and 1 or `betting` for graded ones; None asks the scores of the fit.
        calibration: files of draws to certify with, kept whole; empty takes what the fit left out of the data.
        sessions: of the policy; `hold` narrows what the certificate covers.
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
    bound: Literal["ternary", "betting"] | None = None
    calibration: tuple[Path, ...] = ()
    sessions: Literal["hold", "ignore"] = "ignore"
    by_group: bool = False
    plan: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            raise DataError("a target must be given: --max-loss, --min-quality, --max-strong-share or another.")
        if not 0 < self.confidence < 1:
            raise DataError(f"confidence must lie strictly between 0 and 1, got {self.confidence}; 0.95 is usual.")
        if bad := [name for name in self.profiles if not re.fullmatch(NAME_PATTERN, name)]:
            raise DataError(
                f"names of profiles must be of letters, digits, dots, dashes; got {', '.join(map(repr, bad))}."
            )
        if not 0 < self.valid_days < 36_500:
            raise DataError(f"a certificate must be valid for some days, at most 100 years; got {self.valid_days}.")

    @property
    def delta(self) -> float:
        """Accepted chance that some certified target does not hold."""
        return round(1.0 - self.confidence, 12)

    @property
    def delta_each(self) -> float:
        """The level of each target: Bonferroni over all targets and profiles."""
        return self.delta / (len(self.targets) + len(self.profiles))


@dataclass(frozen=True)
class Bench:
    """All that is needed to tune but the features.

    served: the candidates under a rule still to be replaced. facts: of the calibration prompts. n_estimated_costs:
    cells of (prompt, candidate) whose cost is not the data's. attempts: tunings on these data that the probe's log
    counts, this one included; None where they are not counted.
    """

    probe: DifficultyProbe
    calibration: CalibrationSet
    served: ServedPolicy
    facts: Facts
    n_estimated_costs: int
    notes: tuple[str, ...]
    attempts: int | None = None

    @property
    def spec(self) -> EncoderSpec:
        """The encoder of the probe."""
        assert self.served.encoder_spec is not None  # noqa: S101  (a policy that judges has one)
        return self.served.encoder_spec


def prepare(
    probe: DifficultyProbe, outcomes: Outcomes, settings: TuneSettings, candidates: tuple[Candidate, ...] | None = None
) -> Bench:
    """Return the bench on data that the fit may have seen in part; see `bench_on`."""
    return bench_on(probe, calibration_set(outcomes, probe), settings, candidates)


def bench_on(
    probe: DifficultyProbe,
    calibration: CalibrationSet,
    settings: TuneSettings,
    candidates: tuple[Candidate, ...] | None = None,
) -> Bench:
    """Return calibration prompts, candidates in the order of their tiers, and the facts about both.

    calibration: of exactly the models to route between, the last of them the reference unless the settings name
    another. Raises DataError or ConfigError for data or candidates that cannot be tuned.
    """
    models = calibration.outcomes.models
    reference = settings.reference or models[-1]
    if reference not in models:
        raise DataError(f"the reference must be one of {', '.join(models)}, got {reference!r}.")
    check_reference(calibration, reference)
    if candidates is None:
        candidates = _candidates(models, calibration, settings)
    file = PolicyFile(
        schema="elle.policy/1",
        name="tuned",
        probe="to-be-named",
        candidates=candidates,
        rule=GainRule(kind="gain", thresholds=(0.0,) * (len(candidates) - 1)),
        safe_default=next(c.name for c in candidates if c.name_in_probe == reference),
        sessions=settings.sessions,
    )
    served = assemble(file, probe)
    ordered = replace(calibration, outcomes=calibration.outcomes.select_models([c.name_in_probe for c in candidates]))
    paid, estimated = paid_usd(file.candidates, served.rules.prices, ordered.outcomes)
    facts = Facts(
        scores=ordered.outcomes.scores,
        paid_usd=paid,
        reference=file.names.index(file.safe_default),
        graded=expects_graded(probe, calibration, settings.bound),
        ceiling_usd=_ceiling(served.rules, settings),
    )
    notes = (*notes_on(ordered, facts), *_notes(served, facts, estimated, settings))
    return Bench(probe, ordered, served, facts, estimated, notes)


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
            f"{estimated:,} of {facts.paid_usd.size:,} costs are estimates: list prices, input tokens by the "
            "length of the prompt, output tokens by the candidate's expected_output_tokens."
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
class Walked:
    """A path on the calibration prompts. rows: path numbers at the end of each stretch of equal choices."""

    path: tuple[PathRule, ...]
    chosen: Choices
    starts: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    abstains: npt.NDArray[np.bool_]

    def rule(self, row: int, *, first: bool = False) -> PathRule:
        """The cheapest rule of the path that chooses as `row` does, or the safest."""
        return self.path[int((self.starts if first else self.ends)[row])]


def row_of(verdict: Verdict) -> int:
    """The row of the certified policy; of the best guess where there is none."""
    return verdict.best_guess() if verdict.policy is None else verdict.policy


def rule_of(walked: Walked, verdict: Verdict) -> PathRule:
    """The rule of that row: of equal ones the cheapest, or the safest where only spending is bounded."""
    spending = all(s.target.on_spending for s in verdict.stretches)
    return walked.rule(row_of(verdict), first=spending)
