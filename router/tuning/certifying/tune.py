"""Outcomes the probe has not seen + targets -> a policy file with its certificate, or how many labels are missing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.atomic_write import write_file
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.errors import ConfigError
from router.policies.certificate import digest_of
from router.policies.loading import assemble
from router.policies.policy_file import PolicyFile
from router.tuning.certifying.calibration_set import CalibrationSet, calibration_set, whole_calibration_set
from router.tuning.certifying.report_figures import report_of
from router.tuning.certifying.rule_paths import choices, distinct, scene
from router.tuning.certifying.targets import certify_together
from router.tuning.certifying.tune_log import Attempt, count_attempt, digest, log_of
from router.tuning.certifying.tune_report import TuneReport
from router.tuning.certifying.tuned_policy import check_served, policy_file, policy_text
from router.tuning.certifying.tuning_run import Bench, TuneSettings, Walked, bench_on, lay_path, row_of
from router.tuning.outcomes.candidates import candidates_of_policy
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress


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
    bench = bench_on(probe, _calibration(probe, data, settings, models), settings, candidates)
    features = FeatureCache().features(
        bench.spec, bench.calibration.outcomes.texts, encoder_dir=encoder_dir, on_progress=on_progress
    )
    bench = _counted(bench, probe_dir, settings)
    name, place = _name(out), _place(probe_dir, out)
    report, file = tune(bench, features, settings, name=name, probe_place=place, guess=allow_uncertified)
    if out is not None and file is not None:
        write_file(out.resolve(), policy_text(file, report).encode())
        report = report.written_to(out)
    return report


def _calibration(
    probe: DifficultyProbe, data: Sequence[Path], settings: TuneSettings, models: Sequence[str]
) -> CalibrationSet:
    """Return what to certify with: what the fit left out of the data, or calibration files of their own, whole."""
    outcomes = read_outcomes(*data).select_models(models) if data else None
    if settings.calibration:
        return whole_calibration_set(read_outcomes(*settings.calibration).select_models(models), probe, outcomes)
    if outcomes is None:
        raise DataError("outcomes must be given: DATA, or --calibration FILE.")
    return calibration_set(outcomes, probe)


def _counted(bench: Bench, probe_dir: Path, settings: TuneSettings) -> Bench:
    """Note this attempt in the probe's log, before its outcome is known, and return the bench with their number."""
    sources = bench.calibration.outcomes.sources
    asked = digest(
        settings.targets,
        sorted(settings.profiles.items()),
        settings.rule,
        settings.confidence,
        settings.max_request_usd,
        settings.sessions,
        bench.facts.graded,
        bench.facts.ceiling_usd,
        digest_of(bench.served.rules, with_prices=True),
    )
    log = log_of(probe_dir)
    try:
        count = count_attempt(log, Attempt(tuple(s.sha256 for s in sources), bench.probe.identity, asked))
    except OSError as error:
        note = f"this attempt is not counted: the log {log} cannot be written ({error.strerror})."
        return replace(bench, notes=(*bench.notes, note))
    return replace(bench, attempts=count)


def _name(out: Path | None) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem).strip("._-") if out is not None else ""
    return stem[:128] or "tuned"


def _place(probe_dir: Path, out: Path | None) -> str:
    """Where the policy file finds its probe: relative, so that both can move together."""
    return os.path.relpath(probe_dir.resolve(), out.resolve().parent if out is not None else Path.cwd())


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
    walked = Walked(path, everything[ends], starts, ends, view.fallback >= 0)
    asked = {"": settings.targets} | {key: (target,) for key, target in settings.profiles.items()}
    verdicts = {
        key: certify_together(targets, walked.chosen, bench.facts, settings.delta_each)
        for key, targets in asked.items()
    }
    report = report_of(bench, walked, verdicts, settings, guess=guess)
    if not report.certified and not guess:
        return report, None
    file = policy_file(bench, walked, verdicts, report, name, probe_place)
    for key, verdict in verdicts.items():
        served = assemble(file, bench.probe)
        served = served if not key else next(p for p in served.profiles() if p.ref.name.endswith(f":{key}"))
        check_served(served, bench, served.judge_all(prediction), walked.chosen[row_of(verdict)])
    return report, file
