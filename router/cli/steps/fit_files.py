"""The steps of `elle fit`: read outcomes, hold some out, fit a probe, measure it and write it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from probes.artifacts import store as artifact
from probes.encoders.exported import pinned_here
from probes.encoders.spec import parse_spec
from probes.errors import ArtifactError, DataError
from probes.regression.prior import Prior
from probes.shards.work import Engine
from router.tuning.fitting.adaptation import PriorProbe
from router.tuning.fitting.fit import fit_probe, notes_on_labels, notes_on_tasks, with_enough_labels
from router.tuning.fitting.kinds_of_groups import read_kind_names, with_kinds
from router.tuning.judging.fit_figures import measure_fit, with_figures
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache, Progress
from router.tuning.outcomes.holdout import rows_to_fit
from router.tuning.outcomes.holdout_by_time import choose_holdout
from router.tuning.reporting.fit_summary import FitSummary


@dataclass(frozen=True)
class FitOptions:
    """Holds the options that the user gives to `elle fit`.

    Attributes:
        models: names of the data's models to fit; None fits all.
        encoder: built-in name, or path of a JSON encoder spec. encoder_dir: folder of its files; None looks for them.
        name: of the probe; None takes the name of the folder that it is written to.
        seed: of the folds and of the rows held out.
        holdout: share of the rows held out for `elle tune`, 0 or more and below 1; or the latest ones, as `latest:20%`.
        prior: folder of a probe to adapt; None fits from scratch.
        keep_statistics: whether to write the sums of the fit, so that the probe can be adapted later.
        kind_names: file of names in words for the kinds of request, by group; None takes the groups as names.
        engine: what encodes the prompts, in shards; None encodes them in this process.
    """

    models: tuple[str, ...] | None = None
    encoder: str = "minilm-l6"
    encoder_dir: Path | None = None
    name: str | None = None
    seed: int = 0
    holdout: str = "0"
    prior: Path | None = None
    keep_statistics: bool = False
    kind_names: Path | None = None
    engine: Engine | None = None


def fit_files(data: Sequence[Path], out: Path, options: FitOptions, on_progress: Progress | None) -> FitSummary:
    """Fit a probe to the outcomes in `data`, write it to the folder `out`, and return what was done.

    Raises DataError, EncoderError or ArtifactError. The whole probe is written, or nothing.
    """
    if options.prior is not None and options.keep_statistics:
        raise DataError("an adapted probe keeps no statistics: to adapt again, give its prior and all new labels.")
    spec = pinned_here(parse_spec(options.encoder), options.encoder_dir)
    prior = None if options.prior is None else PriorProbe.load(options.prior)
    outcomes = read_outcomes(*data)
    kind_names = read_kind_names(options.kind_names, outcomes) if options.kind_names else {}
    if options.models is not None:
        outcomes = outcomes.select_models(options.models)
    held_out, holdout = choose_holdout(outcomes, options.holdout, options.seed)
    usable = rows_to_fit(outcomes, held_out)
    outcomes = outcomes.take(np.flatnonzero(usable))
    if prior is None:
        outcomes, notes = with_enough_labels(outcomes, asked_for=options.models or ())
    else:
        outcomes, notes = prior.check(spec, outcomes), []
    started = time.perf_counter()
    features = FeatureCache(engine=options.engine).features(
        spec, outcomes.texts, encoder_dir=options.encoder_dir, on_progress=on_progress
    )
    encoded = time.perf_counter()
    title = options.name or out.resolve().name
    fitted = fit_probe(outcomes, features, spec, title=title, seed=options.seed, prior=prior)
    figures = measure_fit(fitted, outcomes, options.seed)
    probe, notes_on_kinds = with_kinds(with_figures(fitted.probe, figures), outcomes, features, kind_names)
    replaced = identity_at(out)
    if held_out.any():
        probe = holdout.recorded_in(probe)
    artifact.save(probe, out, Prior.of(features, 1.0 - outcomes.scores) if options.keep_statistics else None)
    return FitSummary(
        out=str(out),
        replaced=replaced,
        identity=probe.identity,
        n_prompts=len(outcomes),
        n_held_out=int(held_out.sum()),
        n_set_aside=int((~held_out & ~usable).sum()),
        n_texts=len(set(outcomes.texts)),
        n_features=probe.n_features,
        alpha=float(probe.linear.alpha[0]),
        figures=figures,
        notes=(*notes, *notes_on_labels(outcomes), *notes_on_tasks(outcomes, prior), *notes_on_kinds),
        data=outcomes.sources,
        adapted_from=fitted.adapted_from,
        split=fitted.maps.split,
        encode_s=encoded - started,
        fit_s=time.perf_counter() - encoded,
    )


def identity_at(out: Path) -> str | None:
    """Return the identity of the probe at `out`, or None if there is none that can be read."""
    try:
        return artifact.load(out).identity
    except ArtifactError:
        return None  # `out` holds nothing, or nothing that is a probe; `save` refuses what it must not replace.
