"""The steps of `elle forget`: read probe and labels, remove the labels, and write the new probe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from probes.artifacts import store as artifact
from probes.artifacts.signature import signature_note
from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from router.tuning.fitting.adaptation import PriorProbe
from router.tuning.fitting.forgetting import RemovedLabels, forget, labels_to_forget
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress


@dataclass(frozen=True)
class ForgetOptions:
    """Holds the arguments of `elle forget`.

    Attributes:
        probe, labels, out: the old probe, files of the labels to remove, and the folder to write.
        skip_unknown: whether to skip rows that the fit never saw, instead of refusing them.
        encoder_dir: folder of the encoder's files; None looks for them.
    """

    probe: Path
    labels: Sequence[Path]
    out: Path
    skip_unknown: bool = False
    encoder_dir: Path | None = None


def forget_files(options: ForgetOptions, on_progress: Progress | None) -> RemovedLabels:
    """Remove labels from a probe and write the new probe, all of it or nothing; the old one stays.

    Raises DataError, EncoderError or ArtifactError.
    """
    old = PriorProbe.load(options.probe)
    if old.probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so prompts cannot be judged."
        )
    outcomes, notes = labels_to_forget(old, read_outcomes(*options.labels), skip_unknown=options.skip_unknown)
    spec = EncoderSpec.from_dict(old.probe.encoder)
    features = FeatureCache().features(spec, outcomes.texts, encoder_dir=options.encoder_dir, on_progress=on_progress)
    probe, statistics, found = forget(old, outcomes, features, notes)
    found = replace(found, notes=(*found.notes, *signature_note(options.probe)))
    artifact.save(probe, options.out, statistics)
    return found


def say_forgotten(found: RemovedLabels, out: Path) -> None:
    """Print what was removed and what could not be."""
    click.echo(f"Removed {found.n_prompts:,} prompts; the statistics hold {found.n_left:,}.")
    for name, count in found.labels.items():
        click.echo(f"{name}: {count:,} labels removed, {found.left[name]:,} left.")
    if found.tasks:
        click.echo(f"Dropped the offsets of {len(found.tasks):,} tasks whole; label them again with `elle label-task`.")
    for kept in found.kept:
        click.echo(f"Not removed: {kept}.")
    for note in found.notes:
        click.echo(f"Note: {note}.")
    click.echo(
        f"Wrote {out} (probe {found.identity[:12]}, before {found.old_identity[:12]}). Tune policies with a "
        "certificate again. Delete the old probe, the data and the cache of features yourself."
    )
