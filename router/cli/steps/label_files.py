"""The steps of `elle label-task`: check the key, read probe and labels, move the offsets, and write the new version."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from probes.artifacts import store as artifact
from probes.artifacts.signature import signature_note
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError, StatisticsNotFoundError
from probes.regression.prior import Prior
from router.tuning.fitting.task_labels import TaskChange, check_task, label_task, labels_of
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress


@dataclass(frozen=True)
class LabelFiles:
    """Names the files of `elle label-task`: the probe, the labels, the folder to write, and the encoder's."""

    probe: Path
    labels: Path
    out: Path
    encoder_dir: Path | None = None


def label_files(files: LabelFiles, task: str, withdraw: bool, on_progress: Progress | None) -> TaskChange:
    """Add the labels of a task to a probe, or withdraw them, and write the new version of the probe.

    Raises DataError, EncoderError or ArtifactError. The whole probe is written, or nothing.
    """
    probe = artifact.load(files.probe)
    check_task(probe, task)
    if probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so prompts cannot be judged."
        )
    outcomes, notes = labels_of(probe, task, read_outcomes(files.labels))
    features = FeatureCache().features(
        EncoderSpec.from_dict(probe.encoder), outcomes.texts, encoder_dir=files.encoder_dir, on_progress=on_progress
    )
    changed, change = label_task(probe, task, outcomes, features, withdraw=withdraw, notes=notes)
    statistics = _statistics(files.probe)
    change = replace(change, notes=(*change.notes, *signature_note(files.probe)))
    artifact.save(changed, files.out, statistics)
    return change


def _statistics(probe: Path) -> Prior | None:
    """Return the sums of the fit, which the new version keeps, or None if the probe keeps none."""
    try:
        return artifact.load_prior(probe)
    except StatisticsNotFoundError:
        return None
