"""Tune a policy: turn a probe, and outcomes that it was not fitted on, into a policy file with a certificate."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from router.quoting import did_you_mean
from router.tuning.certifying.calibration_set import (
    CalibrationSet,
    calibration_set,
    split_calibration_set,
    whole_calibration_set,
)
from router.tuning.certifying.path_testing import select_policy
from router.tuning.certifying.preparation import TuningInputs, prepare_tuning
from router.tuning.certifying.results.result_building import build_result
from router.tuning.certifying.results.tuning_result import TuningResult
from router.tuning.certifying.rule_paths import PolicyPath, lay_path, rule_inputs, score_prediction
from router.tuning.certifying.settings import TuneSettings
from router.tuning.certifying.tune_log import TuningAttempt, count_attempt, digest_of_parts, log_path
from router.tuning.certifying.tuned_policy import build_policy_file, check_served, policy_text
from router.tuning.outcomes.candidates import candidates_of_policy
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress


@dataclass(frozen=True)
class TuneFiles:
    """Names the files that `elle tune` reads and writes.

    Attributes:
        probe: the folder of the probe; None if the settings name a score that takes its place.
        data: files of outcomes; may be empty if the settings name calibration files.
        out: the policy file to write; None writes none.
        encoder_dir: the folder that holds the encoder's files; None looks in the usual places.
        log: the log of attempts; None takes the one beside the probe, or beside the data.
    """

    probe: Path | None
    data: Sequence[Path]
    out: Path | None = None
    encoder_dir: Path | None = None
    log: Path | None = None


def tune_command(files: TuneFiles, settings: TuneSettings, on_progress: Progress | None = None) -> TuningResult:
    """Run `elle tune` and return its result; write the policy file if it is certified, or if the settings allow it.

    Raises ArtifactError, DataError, EncoderError or ConfigError; then no policy file is written.
    """
    out = files.out
    if out is not None and not out.resolve().parent.is_dir():
        raise ConfigError(f"the folder of {out} must exist; create it first.")
    probe = None if files.probe is None else artifact.load(files.probe)
    candidates = candidates_of_policy(settings.candidates) if settings.candidates else None
    models = tuple(c.name_in_probe for c in candidates) if candidates else settings.models
    if probe is not None and (unknown := [model for model in models if model not in probe.models]):
        known, hint = ", ".join(probe.models), did_you_mean(unknown[0], probe.models)
        raise DataError(f"models must be among the probe's ({known}), got {', '.join(unknown)}.{hint}")
    if len(models) < 2:
        raise DataError(f"there must be two models or more to choose from, got {', '.join(models) or 'none'}.")
    inputs = prepare_tuning(probe, _calibration(probe, files.data, settings, models), settings, candidates)
    features = None
    if inputs.spec is not None:
        texts = inputs.calibration.outcomes.texts
        features = FeatureCache().features(inputs.spec, texts, encoder_dir=files.encoder_dir, on_progress=on_progress)
    inputs = _count_attempt(inputs, files.log or log_path(files.probe or files.data[0]), settings)
    place = None if files.probe is None else _probe_place(files.probe, out)
    result, policy = tune_policy(inputs, features, settings, name=_policy_name(out), probe_place=place)
    if out is not None and policy is not None:
        write_file(out.resolve(), policy_text(policy, result).encode())
        result = replace(result, policy_file=str(out))
    return result


def _calibration(
    probe: DifficultyProbe | None, data: Sequence[Path], settings: TuneSettings, models: Sequence[str]
) -> CalibrationSet:
    """Return the rows that certify: all rows of the calibration files, or what the fit left out of the data."""
    outcomes = read_outcomes(*data, score_column=settings.score).select_models(models) if data else None
    if probe is None:
        if outcomes is None:
            raise DataError("outcomes must be given: DATA, on which the maps of the score are fitted.")
        separate = None
        if settings.calibration:
            separate = read_outcomes(*settings.calibration, score_column=settings.score).select_models(models)
        return split_calibration_set(outcomes, separate)
    if settings.calibration:
        return whole_calibration_set(read_outcomes(*settings.calibration).select_models(models), probe, outcomes)
    if outcomes is None:
        raise DataError("outcomes must be given: DATA, or --calibration FILE.")
    return calibration_set(outcomes, probe)


def _count_attempt(inputs: TuningInputs, log: Path, settings: TuneSettings) -> TuningInputs:
    """Record this attempt in the log, and return the inputs with the number of attempts.

    log: beside the probe; beside the data, if a score of the caller takes its place.
    """
    sources = inputs.calibration.outcomes.sources
    asked = digest_of_parts(
        settings.targets,
        sorted(settings.profiles.items()),
        settings.rule,
        settings.score,
        settings.confidence,
        settings.max_request_usd,
        settings.sessions,
        inputs.data.graded,
        inputs.about.words,
        inputs.data.ceiling_usd,
        digest_of(inputs.served.rules, with_prices=True),
    )
    try:
        count = count_attempt(log, TuningAttempt(tuple(s.sha256 for s in sources), inputs.judged_by, asked))
    except OSError as error:
        note = f"this attempt is not counted: the log {log} cannot be written ({error.strerror})."
        return replace(inputs, notes=(*inputs.notes, note))
    return replace(inputs, attempts=count)


def _policy_name(out: Path | None) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", out.stem).strip("._-") if out is not None else ""
    return stem[:128] or "tuned"


def _probe_place(probe_dir: Path, out: Path | None) -> str:
    """Return the path from the policy file to its probe; it is relative, so that both can be moved together."""
    return os.path.relpath(probe_dir.resolve(), out.resolve().parent if out is not None else Path.cwd())


def tune_policy(
    inputs: TuningInputs,
    features: npt.NDArray[np.float32] | None,
    settings: TuneSettings,
    *,
    name: str,
    probe_place: str | None,
) -> tuple[TuningResult, PolicyFile | None]:
    """Select and certify a rule for the policy and for each profile; return the result and the policy file.

    features: (n, d) of the calibration prompts, in their order; None if a caller's score decides. name: of the policy.
    probe_place: where the policy file finds its probe, if it has one. The policy file is None if some rule is not
    certified and the settings do not allow that.

    Raises DataError or ConfigError.
    """
    scores = inputs.calibration.outcomes.caller_scores
    if inputs.probe is None or features is None:
        prediction = score_prediction(inputs.served.judge_scores(scores), len(inputs.served.rules.file.names))
    else:
        prediction = inputs.probe.predict(features, inputs.calibration.outcomes.tasks or None)
    seen_by_rules = rule_inputs(inputs.served, inputs.calibration.asks, prediction)
    path = PolicyPath.of(lay_path(inputs.served, inputs.data.reference, settings.rule), seen_by_rules)
    targets = {"": settings.targets} | {key: (target,) for key, target in settings.profiles.items()}
    selections = {key: select_policy(those, path, inputs.data, settings.delta_each) for key, those in targets.items()}
    result = build_result(inputs, path, selections, settings)
    if not result.certified and not settings.allow_uncertified:
        return result, None
    rules = {key: selection.rule(path) for key, selection in selections.items()}
    policy = build_policy_file(inputs, rules, result, name=name, probe_place=probe_place)
    for key, selection in selections.items():
        served = assemble(policy, inputs.probe)
        if key:
            served = next(profile for profile in served.profiles() if profile.ref.name.endswith(f":{key}"))
        judged = served.judge_scores(scores) if inputs.probe is None else served.judge_all(prediction)
        check_served(served, inputs, judged, path.chosen[selection.policy_or_guess])
    return result, policy
