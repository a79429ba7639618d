"""Merge new labels into a saved probe exactly, and refit its calibration maps on them (`recalibrate`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.calibration.base import Calibrator
from probes.calibration.beta import Beta
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.measures.prediction import ece
from probes.probe import DifficultyProbe, fingerprints, utc_now
from probes.regression.crossfit import assign_folds
from probes.regression.prior import Prior
from probes.tasks.offsets import TaskOffsets
from router.tuning.fitting.adaptation import MIN_LABELS, PriorProbe, familiarity
from router.tuning.fitting.addition import LABELS_FOR_A_MAP
from router.tuning.fitting.recipe import FOLDS, FloatArray, enough_texts, risk_through
from router.tuning.fitting.task_labels import labels_of_models, losses_by_model
from router.tuning.outcomes.datasets import GRADED, Outcomes, graded_models

#: The key under which a model card says what was merged into the probe.
RECALIBRATED = "recalibrated"

#: What became of a calibration map: fitted anew, moved to the mean loss of the new labels, or kept.
MapChange = Literal["fitted", "moved", "kept"]


@dataclass(frozen=True)
class RecalibratedModel:
    """Says what new labels changed for one model.

    The figures are of the new labels: before by the old probe, after by fits that did not see the label.

    Attributes:
        labels_before, labels_merged: rows with a label of the model in the statistics before, and new ones.
        calibration: what became of its calibration map.
        mean_loss: of the new labels. mean_risk_before, mean_risk_after: the calibrated risk of the same prompts.
        ece_before, ece_after: the expected calibration error. All four are None if there is no new label.
    """

    labels_before: int
    labels_merged: int
    calibration: MapChange
    mean_loss: float | None = None
    mean_risk_before: float | None = None
    mean_risk_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None


@dataclass(frozen=True, eq=False)
class RecalibratedProbe:
    """Holds a probe with n new labels merged.

    Attributes:
        probe: its card holds no new figures yet. statistics: the sums of its fit, the new labels included.
        models: what changed for each model, by name.
        predicted, risk: (n, m) of the new labels, by fits and maps that did not see them.
    """

    probe: DifficultyProbe
    statistics: Prior
    models: dict[str, RecalibratedModel]
    predicted: FloatArray
    risk: FloatArray


def labels_to_merge(old: PriorProbe, outcomes: Outcomes) -> tuple[Outcomes, tuple[str, ...]]:
    """Return the labels of the probe's models among outcomes, and notes on what is odd about them.

    Raises DataError if no model is one of the probe's, if the probe was fitted on one of the files already, and if
    every model has fewer than MIN_LABELS labels or labels of too few different prompts.
    """
    probe = old.probe
    known = {source.sha256 for source in probe.card.data}
    if both := [source.name for source in outcomes.sources if source.sha256 in known]:
        raise DataError(
            f"LABELS must be new; the probe was fitted on {', '.join(both)}, and a label must not count twice. Give "
            "only labels that came after."
        )
    outcomes, found = labels_of_models(probe, outcomes)
    counts = np.isfinite(outcomes.scores).sum(axis=0)
    if not _enough(1.0 - outcomes.scores, outcomes.texts).any():
        named = ", ".join(f"{model} {count:,}" for model, count in zip(outcomes.models, counts.tolist(), strict=True))
        raise DataError(
            f"recalibrating needs at least {MIN_LABELS} labels of some model, of {FOLDS} different prompts, beside "
            f"those that are set aside; got {named}. Add labels, or set fewer aside."
        )
    notes = list(found)
    if seen := int(np.isin(fingerprints(outcomes.texts), probe.fitted_on).sum()):
        notes.append(f"{seen:,} prompts repeat a text that the probe was fitted on; they count as further requests")
    if any(outcomes.tasks) and probe.tasks is None:
        notes.append("the column task is not used, because the probe was fitted without tasks")
    if probe.tasks is not None:
        notes.append("the offsets of tasks keep their old labels, whose losses the old fit predicted")
    return outcomes, tuple(notes)


def recalibrate(
    old: PriorProbe, outcomes: Outcomes, features: npt.NDArray[np.float32], *, title: str, seed: int = 0
) -> RecalibratedProbe:
    """Merge labels into the statistics of a probe exactly, each with weight 1, and refit its calibration maps on them.

    outcomes: as `labels_to_merge` returns them. features: (n, d) of their prompts. The penalty stays: it is the ratio
    of the noise to the size of the coefficients, which does not depend on the number of rows, and the fit chose it on
    rows (or groups, or tasks) left out, which sums do not hold. The labels are predicted by folds that miss them, with
    the old rows. A model's map is fitted anew from LABELS_FOR_A_MAP labels on, moved to their mean loss from MIN_LABELS
    on, and kept below that.

    Raises DataError if the offsets of tasks cannot take the labels.
    """
    probe, losses = old.probe, losses_by_model(old.probe, outcomes)
    folds = assign_folds(group_numbers(outcomes.texts), FOLDS, seed)
    plain = _left_out(old, features, losses, folds)
    predicted = plain + _offsets(probe, outcomes)
    merged = old.statistics.merged(features, losses)
    shift = merged.target_mean - old.statistics.target_mean
    maps, changes = _maps(probe.calibrators, predicted, losses, outcomes.texts, shift)
    risk = np.empty(losses.shape)
    for number in np.unique(folds):
        inside = folds == number
        texts = [text for text, out in zip(outcomes.texts, inside, strict=True) if not out]
        others, _ = _maps(probe.calibrators, predicted[~inside], losses[~inside], texts, shift)
        risk[inside] = risk_through(others, predicted[inside])
    leverage, limit = familiarity(old, features)
    changed = replace(
        probe,
        linear=merged.solve(probe.linear.alpha).probe,
        leverage=leverage,
        leverage_limit=limit,
        calibrators=maps,
        # One for each row, so that `elle forget` can tell how often a text was fitted.
        fitted_on=np.concatenate([probe.fitted_on, fingerprints(outcomes.texts)]),
        tasks=None if probe.tasks is None else _with_tasks(probe.tasks, outcomes, losses - plain),
    )
    before = probe.predict(features, outcomes.tasks or None).risk
    counts = old.statistics.n_labels.tolist()
    columns = enumerate(zip(probe.models, counts, changes, strict=True))
    models = {m: _figures(n, how, losses[:, j], before[:, j], risk[:, j]) for j, (m, n, how) in columns}
    return RecalibratedProbe(_with_card(changed, probe, outcomes, models, title), merged, models, predicted, risk)


def _left_out(
    old: PriorProbe, features: npt.NDArray[np.float32], losses: FloatArray, folds: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the loss (n, m) that is predicted for each new row from the old rows and the other folds."""
    predicted = np.empty(losses.shape)
    for number in np.unique(folds):
        inside = folds == number
        others = old.statistics.merged(features[~inside], losses[~inside])
        predicted[inside] = others.solve(old.probe.linear.alpha).probe.predict(features[inside])
    return predicted


def _offsets(probe: DifficultyProbe, outcomes: Outcomes) -> FloatArray:
    """Return the offset (n, m) of each prompt's task, which the new labels have not moved yet; 0 without one."""
    offsets = np.zeros((len(outcomes), len(probe.models)))
    for row, task in enumerate(outcomes.tasks):
        if (found := probe.offset_of(task)) is not None:
            offsets[row] = found
    return offsets


def _with_tasks(tasks: TaskOffsets, outcomes: Outcomes, residuals: FloatArray) -> TaskOffsets:
    keys = np.array(outcomes.tasks, dtype=object)
    for task in sorted(set(outcomes.tasks) - {""}):
        tasks = tasks.add(task, residuals[keys == task])
    return tasks


def _enough(losses: FloatArray, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return for each model (m,) whether a map can follow its finite losses (n, m)."""
    counts = np.isfinite(losses).sum(axis=0)
    return np.asarray(enough_texts(losses, texts) & (counts >= MIN_LABELS))


def _maps(
    calibrators: Sequence[Calibrator],
    predicted: FloatArray,
    losses: FloatArray,
    texts: Sequence[str],
    shift: FloatArray,
) -> tuple[tuple[Calibrator, ...], list[MapChange]]:
    """Return the map of each model after new labels (n, m), and what became of it.

    predicted: (n, m) losses of rows left out. shift: (m,) by how much the mean loss of the fit has moved, and with it
    the predictions.
    """
    maps: list[Calibrator] = []
    changes: list[MapChange] = []
    for column, (one, enough) in enumerate(zip(calibrators, _enough(losses, texts), strict=True)):
        rows = np.flatnonzero(np.isfinite(losses[:, column]))
        guess, known = predicted[rows, column], losses[rows, column]
        if not enough:
            maps.append(one)
        elif rows.size >= LABELS_FOR_A_MAP:
            maps.append(Beta.fit(guess, known))
        else:
            maps.append(Beta(one.state()["parameters"]).moved(float(shift[column]), guess, known))
        changes.append("kept" if not enough else "fitted" if rows.size >= LABELS_FOR_A_MAP else "moved")
    return tuple(maps), changes


def _figures(
    n_old: int, how: MapChange, losses: FloatArray, before: FloatArray, after: FloatArray
) -> RecalibratedModel:
    known = np.isfinite(losses)
    if not known.any():
        return RecalibratedModel(n_old, 0, how)
    loss, old, new = losses[known], before[known], after[known]
    return RecalibratedModel(
        labels_before=n_old,
        labels_merged=int(known.sum()),
        calibration=how,
        mean_loss=float(loss.mean()),
        mean_risk_before=float(old.mean()),
        mean_risk_after=float(new.mean()),
        ece_before=ece(old, loss),
        ece_after=ece(new, loss),
    )


def _with_card(
    changed: DifficultyProbe,
    old: DifficultyProbe,
    outcomes: Outcomes,
    models: dict[str, RecalibratedModel],
    title: str,
) -> DifficultyProbe:
    """Return the probe with a card that says what was merged, into which probe, and how well the new labels fit."""
    card, graded = old.card, old.card.metrics.get(GRADED)
    entry = {
        "old_identity": old.identity,
        "n_prompts": len(outcomes),
        "models": {name: {"labels": one.labels_merged, "map": one.calibration} for name, one in models.items()},
    }
    metrics = {**card.metrics, RECALIBRATED: entry}
    if isinstance(graded, list | tuple):
        metrics[GRADED] = sorted({*graded, *graded_models(outcomes)})
    says = f"{len(outcomes):,} labelled prompts were merged into the probe {card.title!r} ({old.identity[:12]})."
    merged = {name: card.n_samples.get(name, 0) + one.labels_merged for name, one in models.items()}
    return replace(
        changed,
        card=replace(
            card,
            title=title,
            created=utc_now(),
            summary=f"{card.summary} {says}".strip(),
            data=(*card.data, *outcomes.sources),
            n_samples={**card.n_samples, **merged},
            metrics=metrics,
        ),
    )
