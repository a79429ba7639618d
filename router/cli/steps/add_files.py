"""The steps of `elle fit --add`: read probe and labels, add the model, measure it, and write the new probe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.artifacts import store as artifact
from probes.artifacts.signature import signature_note
from probes.encoders.spec import EncoderSpec, parse_spec
from probes.errors import DataError, StatisticsNotFoundError
from probes.probe import DifficultyProbe
from router.cli.steps.fit_files import identity_at
from router.tuning.fitting.addition import add_model, check_name, labels_to_add, with_added_card
from router.tuning.judging.fit_figures import model_figures
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.reporting.add_summary import AddSummary

#: The share of unfamiliar prompts among the labelled ones up to which nothing is said.
_FEW_UNFAMILIAR = 0.1


@dataclass(frozen=True)
class AddOptions:
    """Holds the options of `elle fit` that go with `--add`.

    Attributes:
        add: name of the model to add. prior: folder of the probe to add it to.
        encoder: built-in name, or path of a JSON encoder spec, which must be the probe's; None takes the probe's.
        encoder_dir: folder of its files; None looks for them.
        name: of the new probe; None takes the name of the folder that it is written to.
        seed: of the folds of the figures.
    """

    add: str
    prior: Path
    encoder: str | None = None
    encoder_dir: Path | None = None
    name: str | None = None
    seed: int = 0


def add_files(data: Sequence[Path], out: Path, options: AddOptions, on_progress: Progress | None) -> AddSummary:
    """Add a model to a probe from its labels in `data`, write the new probe to `out`, and return what was done.

    Raises DataError, EncoderError or ArtifactError. The whole probe is written, or nothing.
    """
    probe = artifact.load(options.prior)
    spec = _encoder_of(probe, options.encoder)
    check_name(probe, options.add)
    outcomes, notes = labels_to_add(probe, options.add, read_outcomes(*data))
    started = time.perf_counter()
    features = FeatureCache().features(spec, outcomes.texts, encoder_dir=options.encoder_dir, on_progress=on_progress)
    encoded = time.perf_counter()
    added = add_model(probe, outcomes, features, options.seed)
    figures = model_figures(added.predicted, added.risk, 1.0 - outcomes.scores[:, 0])
    changed = with_added_card(added, outcomes, options.name or out.resolve().name, asdict(figures))
    replaced = identity_at(out)
    artifact.save(changed, out)
    return AddSummary(
        out=str(out),
        replaced=replaced,
        identity=changed.identity,
        models=changed.models,
        added=added.addition,
        figures=figures,
        notes=(*notes, *_notes_on_prompts(probe, features), *_notes_on_files(options.prior)),
        encode_s=encoded - started,
        fit_s=time.perf_counter() - encoded,
    )


def _encoder_of(probe: DifficultyProbe, named: str | None) -> EncoderSpec:
    """Return the spec of the probe's encoder; raise DataError for a probe that names none or has no calibration."""
    if probe.encoder is None:
        raise DataError(
            "the probe was fitted on precomputed features and names no encoder, so the labelled prompts cannot be "
            "encoded for it."
        )
    if not probe.calibrators:
        raise DataError("the probe predicts losses that are no probabilities, so no model can be added to it.")
    spec = EncoderSpec.from_dict(probe.encoder)
    if named is not None and parse_spec(named).pinned().identity not in {spec.identity, spec.pinned().identity}:
        probe.check_encoder(parse_spec(named).pinned().identity)
    return spec


def _notes_on_prompts(probe: DifficultyProbe, features: npt.NDArray[np.float32]) -> list[str]:
    """Return a note on labelled prompts that are unlike those of the old fit, if there are more than a few."""
    unfamiliar = int(probe.predict(features).unfamiliar.sum())
    if unfamiliar <= _FEW_UNFAMILIAR * len(features):
        return []
    return [
        f"{unfamiliar:,} of {len(features):,} labelled prompts are unlike those that the probe was fitted on; a policy "
        "may send such prompts to its safe default"
    ]


def _notes_on_files(prior: Path) -> list[str]:
    """Return notes on what lies beside the old probe and not beside the new one."""
    notes = list(signature_note(prior))
    try:
        artifact.load_prior(prior)
    except StatisticsNotFoundError:
        pass
    else:
        notes.append("the sums of the old fit are not kept; adapt the old probe, and add the model to the result")
    return notes
