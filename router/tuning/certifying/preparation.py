"""Prepare what `elle tune` needs before any feature is computed: calibration prompts, candidates and outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from probes.certificates.bounds import choose_method
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.policies.candidates.candidate import Candidate
from router.policies.loading import ServedPolicy, assemble
from router.policies.policy_file import GainRule, PolicyFile
from router.policies.rules import Rules
from router.quoting import did_you_mean
from router.tuning.certifying.about import About, decide_about
from router.tuning.certifying.calibration_set import MIN_CALIBRATION, CalibrationSet
from router.tuning.certifying.reference_check import check_reference
from router.tuning.certifying.report_notes import calibration_notes, cost_notes
from router.tuning.certifying.rule_paths import USUAL_ASK
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.targets import LossData
from router.tuning.fitting.score_maps import FittedScore, check_score_name, fit_caller_score, say_directions
from router.tuning.outcomes.candidates import (
    by_cost,
    candidates_from_names,
    mean_lengths,
    paid_usd,
    read_prices,
)
from router.tuning.outcomes.datasets import GRADED

#: The longest request that is assumed to occur; its price is the ceiling of costs unless the user states one.
LONGEST_INPUT_TOKENS, LONGEST_OUTPUT_TOKENS = 32_768, 4_096


@dataclass(frozen=True)
class TuningInputs:
    """Holds everything that is needed to tune a policy, apart from the features of the calibration prompts.

    Attributes:
        probe: the probe whose risks the policy weighs; None if it weighs those of a caller's score.
        calibration: the calibration prompts, with the models in the order of the candidates.
        served: the candidates, under a rule that is still to be replaced.
        data: the outcomes from which losses are computed.
        about: whose opinion the quality in the targets is.
        notes: what a reader of the result must know.
        attempts: the number of tunings on these data in the probe's log, this one included; None if not counted.
    """

    probe: DifficultyProbe | None
    calibration: CalibrationSet
    served: ServedPolicy
    data: LossData
    about: About
    notes: tuple[str, ...]
    attempts: int | None = None

    @property
    def spec(self) -> EncoderSpec | None:
        """The spec of the encoder that the probe was fitted on; None for a policy that decides by a caller's score."""
        return self.served.encoder_spec

    @property
    def judged_by(self) -> str:
        """The identity of the probe, or of the caller's score with its maps."""
        assert self.served.probe_ref is not None  # noqa: S101  (a policy that judges has one)
        return self.served.probe_ref.digest


def prepare_tuning(
    probe: DifficultyProbe | None,
    calibration: CalibrationSet,
    settings: TuneSettings,
    candidates: tuple[Candidate, ...] | None = None,
) -> TuningInputs:
    """Read and check everything that tuning needs, and return it with the candidates in the order of their tiers.

    calibration: outcomes of exactly the models to route between; the last of them is the reference unless the settings
    name another. probe: None decides by the score that the settings name. candidates: None makes them from the models
    and prices of the settings. Raises DataError or ConfigError for data or candidates that cannot be tuned.
    """
    models = calibration.outcomes.models
    reference = settings.reference or models[-1]
    if reference not in models:
        hint = did_you_mean(reference, models)
        raise DataError(f"the reference must be one of {', '.join(models)}, got {reference!r}.{hint}")
    about, calibration = decide_about(calibration, settings.about)
    people = calibration.outcomes.scores if about.human is None else about.human
    check_reference(calibration, reference, people if about.words == "people" else None)
    if candidates is None:
        candidates = _candidates(models, calibration, settings)
    columns = [candidate.name_in_probe for candidate in candidates]
    fitted = None if probe is not None else _fit_score(calibration, columns, settings)
    served = assemble(_draft_policy(candidates, reference, settings, fitted), probe)
    order = [models.index(name) for name in columns]
    calibration = replace(calibration, outcomes=calibration.outcomes.select_models(columns))
    paid, n_estimated = paid_usd(candidates, served.rules.prices, calibration.outcomes)
    data = LossData(
        scores=calibration.outcomes.scores,
        paid_usd=paid,
        reference=columns.index(reference),
        graded=expects_graded(probe, calibration, settings.bound),
        ceiling_usd=_ceiling(served.rules, settings),
        human=None if about.human is None else about.human[:, order],
    )
    said = () if fitted is None else (say_directions(fitted, served.rules.file.names),)
    notes = (*said, *about.notes, *calibration_notes(calibration, data), *cost_notes(data, n_estimated, settings))
    return TuningInputs(probe, calibration, served, data, about, notes)


def expects_graded(
    probe: DifficultyProbe | None, calibration: CalibrationSet, bound: Literal["ternary", "betting"] | None
) -> bool:
    """Return whether to certify with the bound for graded scores, decided without the scores that certify.

    The first of these that is known decides: `bound`; what the card of the probe records of the scores of the fit; the
    rows of the fit among the data. If none is known, the answer is True, because that bound is valid for all scores.
    """
    if bound is not None:
        return bound == "betting"
    recorded = None if probe is None else probe.card.metrics.get(GRADED)
    if isinstance(recorded, list | tuple):
        return any(model in recorded for model in calibration.outcomes.models)
    if len(calibration.seen) >= MIN_CALIBRATION:
        return choose_method(calibration.seen.scores) == "betting"
    return True


def _candidates(models: Sequence[str], calibration: CalibrationSet, settings: TuneSettings) -> tuple[Candidate, ...]:
    litellm = settings.prices == "litellm"
    table = None if settings.prices is None or litellm else read_prices(Path(settings.prices))
    # Lengths come from prompts of the fit: what the policy weighs must not depend on the calibration prompts.
    found = candidates_from_names(models, table, litellm=litellm, lengths=mean_lengths(calibration.seen))
    return found if len(found) == 2 else by_cost(found, USUAL_ASK)


def _fit_score(calibration: CalibrationSet, columns: list[str], settings: TuneSettings) -> FittedScore:
    """Return the maps of the score that the settings name, fitted on the rows that do not certify."""
    others = calibration.seen.select_models(columns)
    return fit_caller_score(check_score_name(str(settings.score)), others.caller_scores, 1.0 - others.scores)


def _draft_policy(
    candidates: tuple[Candidate, ...], reference: str, settings: TuneSettings, fitted: FittedScore | None
) -> PolicyFile:
    """Return a policy with these candidates; its name, probe and rule are replaced once a rule is selected."""
    return PolicyFile(
        schema="elle.policy/1",
        name="tuned",
        probe="to-be-named" if fitted is None else None,
        score=None if fitted is None else fitted.score,
        candidates=candidates,
        rule=GainRule(kind="gain", thresholds=(0.0,) * (len(candidates) - 1)),
        safe_default=next(c.name for c in candidates if c.name_in_probe == reference),
        sessions=settings.sessions,
    )


def _ceiling(rules: Rules, settings: TuneSettings) -> float | None:
    """Return the most that one request can cost in USD, or None if a price is unknown and no ceiling is stated."""
    if settings.max_request_usd is not None:
        return settings.max_request_usd
    known = [prices for prices in rules.prices if prices is not None]
    if len(known) < len(rules.prices):
        return None
    return max(prices.cost_usd(LONGEST_INPUT_TOKENS, LONGEST_OUTPUT_TOKENS) for prices in known)
