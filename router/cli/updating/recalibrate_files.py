"""The steps of `elle recalibrate`: read, set labels aside, merge the others, certify again, and write a new folder."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probes.artifacts import store as artifact
from probes.artifacts.signature import signature_note
from probes.bounded.text import os_fault
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from probes.probe import DifficultyProbe
from router.cli.updating.recertify import (
    DecisionChange,
    certificates,
    compare_decisions,
    load_certified,
    moved_to,
    same_rule,
    settings_of,
    take_over,
)
from router.policies.loading import ServedPolicy, load_policy
from router.tuning.certifying.calibration_set import MIN_CALIBRATION
from router.tuning.certifying.results.result_json import result_to_dict
from router.tuning.certifying.results.result_table import print_tuning_result
from router.tuning.certifying.results.tuning_result import TuningResult
from router.tuning.certifying.tune import TuneFiles, tune_command
from router.tuning.certifying.tune_log import log_path
from router.tuning.fitting.adaptation import PriorProbe
from router.tuning.fitting.recalibration import RecalibratedModel, RecalibratedProbe, labels_to_merge, recalibrate
from router.tuning.fitting.task_labels import losses_by_model
from router.tuning.judging.fit_figures import model_figures
from router.tuning.outcomes.datasets import Outcomes, read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.outcomes.holdout import rows_to_fit
from router.tuning.outcomes.holdout_by_time import choose_holdout

if TYPE_CHECKING:
    from rich.console import Console

#: The names of what a new folder holds.
PROBE, POLICY = "probe", "policy.yaml"


@dataclass(frozen=True)
class RecalibrateOptions:
    """Holds the arguments of `elle recalibrate`.

    Attributes:
        probe, labels, out: the old probe, files of new labels, and the folder to write.
        policy: a policy file on the old probe, whose targets are certified again; None certifies nothing.
        calibration: files that certify, all rows of them; if empty, the rows of the labels that are set aside.
        holdout: which rows are set aside: a share of them, or the latest ones, as `latest:20%`.
        seed: of folds and of the rows that are set aside.
        max_request_usd, allow_uncertified: as in `TuneSettings`.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    probe: Path
    labels: Sequence[Path]
    out: Path
    policy: Path | None = None
    calibration: tuple[Path, ...] = ()
    holdout: str = "0.4"
    seed: int = 0
    max_request_usd: float | None = None
    allow_uncertified: bool = False
    encoder_dir: Path | None = None


@dataclass(frozen=True)
class RecalibrationSummary:
    """Says what `elle recalibrate` changed.

    Attributes:
        out: the new folder. old_identity, identity: of the old and the new probe.
        n_merged, n_set_aside, n_unused: prompts that were merged, set aside, and neither (they repeat a text that is
            set aside, or have no label of a model of the probe).
        models: what changed for each model.
        decisions, certificate, tuning: what changed in a policy; None without one.
        notes: what a reader must know.
    """

    out: str
    old_identity: str
    identity: str
    n_merged: int
    n_set_aside: int
    n_unused: int
    models: dict[str, RecalibratedModel]
    decisions: DecisionChange | None
    certificate: list[dict[str, Any]] | None
    tuning: TuningResult | None
    notes: tuple[str, ...]

    @property
    def certified(self) -> bool:
        """Return whether everything that was to be certified again is."""
        return self.tuning is None or self.tuning.certified

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        rest = {key: value for key, value in vars(self).items() if key not in {"models", "decisions", "tuning"}}
        return {
            **rest,
            "models": {name: asdict(one) for name, one in self.models.items()},
            "decisions": None if self.decisions is None else asdict(self.decisions),
            "tuning": None if self.tuning is None else result_to_dict(self.tuning),
        }


def recalibrate_files(options: RecalibrateOptions, on_progress: Progress | None) -> RecalibrationSummary:
    """Merge labels into a probe, certify a policy on it again, and write both to a new folder, all of it or nothing.

    Raises DataError, ConfigError, EncoderError or ArtifactError. Nothing that is there is changed, except that the log
    of attempts beside the old probe counts this one.
    """
    old = PriorProbe.load(options.probe)
    policy = None if options.policy is None else load_certified(options.policy, old.probe)
    outcomes = read_outcomes(*options.labels)
    held_out, holdout = choose_holdout(outcomes, "0" if options.calibration else options.holdout, options.seed)
    merged, notes = labels_to_merge(old, outcomes.take(np.flatnonzero(rows_to_fit(outcomes, held_out))))
    if policy is not None and not options.calibration:
        _require_enough_aside(policy, outcomes.take(np.flatnonzero(held_out)))
    features = _features(old.probe, options, merged, on_progress)
    found = recalibrate(old, merged, features, title=options.out.resolve().name, seed=options.seed)
    probe = _with_figures(found, merged)
    if held_out.any():
        probe = holdout.recorded_in(probe)
    notes = (*notes, *signature_note(options.probe))
    summary = RecalibrationSummary(
        out=str(options.out),
        old_identity=old.probe.identity,
        identity=probe.identity,
        n_merged=len(merged),
        n_set_aside=int(held_out.sum()),
        n_unused=len(outcomes) - int(held_out.sum()) - len(merged),
        models=found.models,
        decisions=None,
        certificate=None,
        tuning=None,
        notes=notes,
    )
    staging = options.out.with_name(f".{options.out.name}.{uuid.uuid4().hex}")
    try:
        staging.mkdir()
        artifact.save(probe, staging / PROBE, found.statistics)
        if policy is not None:
            summary = _certify_again(summary, options, policy, outcomes, staging)
        staging.rename(options.out)
    except OSError as error:
        raise DataError(f"--out {options.out} must be writable: {os_fault(error)}. Choose another place.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return summary


def _certify_again(
    summary: RecalibrationSummary,
    options: RecalibrateOptions,
    policy: ServedPolicy,
    outcomes: Outcomes,
    staging: Path,
) -> RecalibrationSummary:
    """Tune the old targets on the new probe in `staging`, and return the summary with what changed."""
    assert options.policy is not None  # noqa: S101  (the caller has looked)
    settings = settings_of(
        options.policy,
        policy,
        calibration=options.calibration,
        max_request_usd=options.max_request_usd,
        allow_uncertified=options.allow_uncertified,
    )
    data = () if options.calibration else options.labels
    # The log of the old probe counts, or certifying the same labels again under another seed would not be counted.
    files = TuneFiles(staging / PROBE, data, staging / POLICY, options.encoder_dir, log_path(options.probe))
    result = tune_command(files, settings)
    probe = artifact.load(staging / PROBE)
    new = same_rule(policy, probe)
    if result.policy_file is not None:
        take_over(staging / POLICY, policy, result)
        new = load_policy(staging / POLICY)
    features = _features(probe, options, outcomes, None)
    return replace(
        summary,
        decisions=compare_decisions(policy, new, outcomes, features, by_new_rule=result.policy_file is not None),
        certificate=certificates(policy, result),
        tuning=moved_to(result, options.out),
    )


def _features(
    probe: DifficultyProbe, options: RecalibrateOptions, outcomes: Outcomes, on_progress: Progress | None
) -> Any:
    if probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so prompts cannot be judged."
        )
    spec = EncoderSpec.from_dict(probe.encoder)
    return FeatureCache().features(spec, outcomes.texts, encoder_dir=options.encoder_dir, on_progress=on_progress)


def _require_enough_aside(policy: ServedPolicy, aside: Outcomes) -> None:
    """Raise DataError if the rows that are set aside are too few for any certificate."""
    models = [one.name_in_probe for one in policy.rules.file.candidates]
    if missing := sorted(set(models) - set(aside.models)):
        raise DataError(f"LABELS must hold scores of every candidate to certify again; {', '.join(missing)} missing.")
    columns = [aside.models.index(model) for model in models]
    complete = int(np.isfinite(aside.scores[:, columns]).all(axis=1).sum())
    if complete < MIN_CALIBRATION:
        raise DataError(
            f"certifying again needs at least {MIN_CALIBRATION} prompts with a score of every candidate among those "
            f"that are set aside, got {complete}. Add labels, set more aside with --holdout, or give --calibration."
        )


def _with_figures(found: RecalibratedProbe, merged: Outcomes) -> DifficultyProbe:
    """Return the new probe with its figures on the new labels on its card, in the place of the old ones."""
    losses = losses_by_model(found.probe, merged)
    figures = {
        model: asdict(model_figures(found.predicted[:, j], found.risk[:, j], losses[:, j]))
        for j, model in enumerate(found.probe.models)
        if found.models[model].labels_merged
    }
    old = {key: value for key, value in found.probe.card.metrics.items() if not key.startswith("pair")}
    before = old.get("models")
    models = {**(before if isinstance(before, dict) else {}), **figures}
    metrics = {**old, "split": "new labels, each predicted without the labels of its text", "models": models}
    return replace(found.probe, card=replace(found.probe.card, metrics=metrics))


def print_recalibration(summary: RecalibrationSummary, console: Console) -> None:
    """Print what changed: the labels, the models, the decisions, and the certificate."""

    def say(text: str) -> None:
        console.print(text, highlight=False)

    say(f"{summary.n_merged:,} prompts merged, {summary.n_set_aside:,} set aside, {summary.n_unused:,} not used.")
    for name, one in summary.models.items():
        say(_model_line(name, one))
    if (change := summary.decisions) is not None:
        rule = "The new policy" if change.by_new_rule else "The old rule with the new risks"
        say(
            f"{rule} decides {change.changed:,} of {change.n:,} prompts ({change.changed / change.n:.1%}) otherwise: "
            f"{change.cheaper:,} go to a cheaper tier, {change.stronger:,} to a stronger one."
        )
        shares = [
            f"{name} {before:.1%} -> {change.shares_after[name]:.1%}" for name, before in change.shares_before.items()
        ]
        say(f"Shares of the candidates: {', '.join(shares)}.")
    for row in summary.certificate or ():
        head = f"Profile {row['profile']}: " if row["profile"] else ""
        old, new = row["before"], row["after"]
        say(
            f"{head}{row['kind']} {row['limit']:g}: bound {old['bound']:.4g} on {old['n']:,} prompts -> "
            f"{new['bound']:.4g} on {new['n']:,}, {'certified' if new['certified'] else 'NOT certified'}."
        )
    if summary.tuning is not None:
        print_tuning_result(summary.tuning, console)
    for note in summary.notes:
        say(f"Note: {note}.")
    names = f"probe {summary.identity[:12]}, before {summary.old_identity[:12]}"
    say(f"Wrote {summary.out} ({names}). Nothing is activated.")


def _model_line(name: str, one: RecalibratedModel) -> str:
    counts = f"{name}: {one.labels_before:,} labels + {one.labels_merged:,}, calibration map {one.calibration}"
    if one.mean_risk_before is None:
        return f"{counts}."
    return (
        f"{counts}; mean risk {one.mean_risk_before:.3f} -> {one.mean_risk_after:.3f} where the mean loss is "
        f"{one.mean_loss:.3f}, calibration error (ECE) {one.ece_before:.3f} -> {one.ece_after:.3f}."
    )
