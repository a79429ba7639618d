"""Fit a calibrated probe to outcomes and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from probes.encoders.spec import EncoderSpec
from probes.errors import DataError
from probes.probe import DifficultyProbe, ProbeCard, fingerprints, software_versions, utc_now
from probes.tasks.keys import MAX_TASKS
from router.tuning.fitting.adaptation import AdaptedFrom, PriorProbe, adapt_maps
from router.tuning.fitting.recipe import MIN_PROMPTS, MIN_TEXTS, FittedMaps, FloatArray, enough_texts, fit_maps
from router.tuning.fitting.task_recipe import fit_task_maps, task_fault
from router.tuning.outcomes.datasets import GRADED, Outcomes, graded_models


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """Holds a fitted probe, and what its recipe predicts for each prompt if that prompt is left out of the fit.

    Attributes:
        probe: the probe. Its card holds no figures yet; `judging.fit_figures.with_figures` adds them.
        maps: the same fit as arrays, with the predictions for prompts left out.
        adapted_from: the probe that this one was adapted from; None if it was fitted from scratch.
    """

    probe: DifficultyProbe
    maps: FittedMaps
    adapted_from: AdaptedFrom | None


def fit_probe(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    spec: EncoderSpec,
    *,
    title: str,
    seed: int = 0,
    prior: PriorProbe | None = None,
) -> FittedProbe:
    """Fit a calibrated probe of all models of `outcomes` to the features (n, d) of its prompts.

    The linear map is fitted on all prompts. The calibration maps are fitted on out-of-fold predictions, so that no
    prompt calibrates itself. With `prior` the probe is adapted from another one instead, see `adapt_maps`; `outcomes`
    must have passed `prior.check`.

    Raises DataError for fewer than MIN_PROMPTS prompts.
    """
    losses = 1.0 - outcomes.scores
    if prior is None:
        maps, adapted_from = _fit_maps(outcomes, features, losses, seed), None
    else:
        maps, adapted_from = adapt_maps(prior, features, losses, outcomes.texts, seed)
    seen = fingerprints(outcomes.texts)
    probe = DifficultyProbe(
        encoder=spec.to_dict(),
        encoder_identity=spec.identity,
        models=outcomes.models,
        linear=maps.linear,
        leverage=maps.leverage,
        leverage_limit=maps.leverage_limit,
        calibrators=maps.calibrators,
        card=_card(outcomes, title, maps, prior, adapted_from),
        fitted_on=seen if prior is None else np.union1d(prior.probe.fitted_on, seen),
        tasks=maps.tasks,
        kinds=None if prior is None else prior.probe.kinds,
    )
    return FittedProbe(probe, maps, adapted_from)


def _fit_maps(outcomes: Outcomes, features: npt.NDArray[np.float32], losses: FloatArray, seed: int) -> FittedMaps:
    """Fit the recipe, with an offset for each task if the data name enough tasks."""
    if any(outcomes.tasks) and task_fault(losses, outcomes.tasks) is None:
        return fit_task_maps(features, losses, outcomes.texts, outcomes.tasks, seed)
    return fit_maps(features, losses, outcomes.texts, seed, groups=outcomes.groups)


def with_enough_labels(outcomes: Outcomes, asked_for: Sequence[str] = ()) -> tuple[Outcomes, list[str]]:
    """Return the outcomes without the models that have labels of too few prompts, and a note on each of these models.

    Raises DataError if no model is left, or if such a model was asked for by name.
    """
    enough = enough_texts(1.0 - outcomes.scores, outcomes.texts)
    counts = np.isfinite(outcomes.scores).sum(axis=0).tolist()
    notes = [
        f"{model} is left out of the probe: it has labels of fewer than {MIN_TEXTS} different prompts ({count} in all)"
        for model, count, kept in zip(outcomes.models, counts, enough, strict=True)
        if not kept
    ]
    if refused := [
        model for model, kept in zip(outcomes.models, enough, strict=True) if model in asked_for and not kept
    ]:
        raise DataError(f"every model needs labels of {MIN_TEXTS} different prompts; {', '.join(refused)} has fewer.")
    if not enough.any():
        raise DataError(f"no model has labels of {MIN_TEXTS} different prompts; add outcomes.")
    kept_models = [model for model, kept in zip(outcomes.models, enough, strict=True) if kept]
    return (outcomes if enough.all() else outcomes.select_models(kept_models)), notes


def notes_on_labels(outcomes: Outcomes) -> list[str]:
    """Return a note on each model with few labels, and on each model whose labels are all equal."""
    notes = []
    for model, column in zip(outcomes.models, outcomes.scores.T, strict=True):
        labels = column[np.isfinite(column)]
        if len(labels) < MIN_PROMPTS:
            notes.append(f"{model} has {len(labels)} labels; its figures and its calibration rest on these few")
        if labels.min() == labels.max():
            notes.append(f"every score of {model} is {labels[0]:g}, so nothing tells its prompts apart")
    return notes


def notes_on_tasks(outcomes: Outcomes, prior: PriorProbe | None) -> list[str]:
    """Return notes on the column `task` of the data, and on the tasks of a prior, where they are not used."""
    notes = []
    if prior is not None and prior.probe.tasks is not None:
        notes.append("the tasks of the prior are not kept, because its losses have moved; label them again")
    if any(outcomes.tasks):
        fault = task_fault(1.0 - outcomes.scores, outcomes.tasks) if prior is None else "a prior is adapted as a whole"
        if fault:
            notes.append(f"the column task is not used: {fault}")
        elif (count := len(set(outcomes.tasks) - {""})) > MAX_TASKS:
            notes.append(f"of {count:,} tasks, the {MAX_TASKS:,} with the most prompts have offsets")
    return notes


def _card(
    outcomes: Outcomes, title: str, maps: FittedMaps, prior: PriorProbe | None, adapted_from: AdaptedFrom | None
) -> ProbeCard:
    summary = ["Expected loss (1 - score) of each model on a prompt, from the prompt's embedding."]
    metrics: dict[str, object] = {
        "split": maps.split,
        # `elle tune` chooses its bound by this entry, so that it need not look at the scores that certify.
        GRADED: graded_models(outcomes),
    }
    if maps.tasks is not None:
        summary.append(f"It holds offsets of the loss for {len(maps.tasks):,} tasks of the caller.")
    if adapted_from is not None:
        summary.append(adapted_from.describe())
        metrics["adapted_from"] = asdict(adapted_from)
    counts = np.isfinite(outcomes.scores).sum(axis=0).tolist()
    return ProbeCard(
        title=title,
        created=utc_now(),
        summary=" ".join(summary),
        data=(*(prior.probe.card.data if prior else ()), *outcomes.sources),
        n_samples=dict(zip(outcomes.models, counts, strict=True)),
        metrics=metrics,
        # The versions of the encoder's libraries; these may be absent if the features come from the cache.
        versions=software_versions("onnxruntime", "tokenizers", "torch", "transformers"),
    )
