"""Add labels of one task to a saved probe, or withdraw them: its offsets move, and everything else stays to the bit."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DifficultyProbe, fingerprints, utc_now
from probes.tasks.keys import key_fault
from probes.tasks.offsets import TaskOffsets
from router.tuning.outcomes.datasets import Outcomes


@dataclass(frozen=True)
class ModelChange:
    """Says how many labels of one model a task had and has, and the offset of its loss before and after."""

    labels_before: int
    labels: int
    offset_before: float
    offset: float


@dataclass(frozen=True)
class TaskChange:
    """Says what labels changed in a probe.

    Attributes:
        task: the key of the task. is_new: True if the probe did not know it. is_forgotten: True if no label is left.
        models: the change of every model of the probe, by name.
        old_identity, identity: of the probe before and after.
        n_tasks: the tasks that the probe knows now.
        notes: what was left out, averaged or contradicts itself, in words.
    """

    task: str
    is_new: bool
    is_forgotten: bool
    models: dict[str, ModelChange]
    old_identity: str
    identity: str
    n_tasks: int
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def check_task(probe: DifficultyProbe, task: str) -> TaskOffsets:
    """Return the offsets of a probe. Raise DataError for a key that cannot be one, and for a probe without tasks."""
    if fault := key_fault(task):
        raise DataError(f"TASK must {fault}.")
    if probe.tasks is None:
        raise DataError(
            "the probe must know how much tasks differ, and was fitted without tasks; fit it with `elle fit` on "
            "outcomes of at least 5 tasks that a column `task` names."
        )
    return probe.tasks


def labels_of(probe: DifficultyProbe, task: str, outcomes: Outcomes) -> tuple[Outcomes, tuple[str, ...]]:
    """Return the labels of the probe's models in outcomes of one task, and notes on what is odd about them.

    Raises DataError for labels of another task, and as `labels_of_models`.
    """
    if others := sorted(set(outcomes.tasks) - {"", task}):
        raise DataError(
            f"LABELS must be of the task that is labelled; the column task names {len(others):,} other "
            f"task{'s' if len(others) > 1 else ''}. Give the labels of one task at a time."
        )
    return labels_of_models(probe, outcomes)


def labels_of_models(probe: DifficultyProbe, outcomes: Outcomes) -> tuple[Outcomes, tuple[str, ...]]:
    """Return the labels of the probe's models, and notes on what is odd about them.

    Raises DataError if no model is one of the probe's.
    """
    common = [model for model in outcomes.models if model in probe.models]
    unknown = [model for model in outcomes.models if model not in probe.models]
    if not common:
        raise DataError(
            f"LABELS must be of models of the probe ({', '.join(probe.models)}), got only {', '.join(unknown)}."
        )
    notes = [f"{model} is no model of the probe, and its labels are left out" for model in unknown]
    outcomes = outcomes.select_models(common)
    if outcomes.n_averaged:
        notes.append(
            f"{outcomes.n_averaged:,} labels repeat the prompt_id and model of another, and are averaged with it"
        )
    if count := contradicted(outcomes):
        notes.append(f"{count:,} prompts have labels of one model that contradict each other; all of them count")
    return outcomes, tuple(notes)


def losses_by_model(probe: DifficultyProbe, outcomes: Outcomes) -> npt.NDArray[np.float64]:
    """Return the losses (n, m) of outcomes in the order of the probe's models, NaN for a model without a label."""
    losses = np.full((len(outcomes), len(probe.models)), np.nan)
    losses[:, [probe.models.index(model) for model in outcomes.models]] = 1.0 - outcomes.scores
    return losses


def contradicted(outcomes: Outcomes) -> int:
    """Return how many texts have two labels of one model that differ."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(outcomes.texts):
        rows[text].append(row)
    spread = (np.fmax.reduce(outcomes.scores[own]) - np.fmin.reduce(outcomes.scores[own]) for own in rows.values())
    return sum(bool((one > 0).any()) for one in spread)


def label_task(
    probe: DifficultyProbe,
    task: str,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    withdraw: bool = False,
    notes: tuple[str, ...] = (),
) -> tuple[DifficultyProbe, TaskChange]:
    """Return the probe with further labels of a task, or without labels that it had, and what changed.

    outcomes: as `labels_of` returns them. features: (n, d) of their prompts. The prompts count as seen by the fit from
    now on, so that they certify no policy of this probe.

    Raises DataError as `TaskOffsets.add` and `TaskOffsets.withdraw` do.
    """
    old = check_task(probe, task)
    residuals = losses_by_model(probe, outcomes) - probe.predict(features).loss
    new = old.withdraw(task, residuals) if withdraw else old.add(task, residuals)
    card = replace(probe.card, created=utc_now())
    if not withdraw:
        card = replace(card, data=tuple(dict.fromkeys((*card.data, *outcomes.sources))))
    changed = replace(probe, tasks=new, card=card, fitted_on=np.union1d(probe.fitted_on, fingerprints(outcomes.texts)))
    change = TaskChange(
        task=task,
        is_new=task not in old,
        is_forgotten=task not in new,
        models=_changes(probe.models, task, old, new),
        old_identity=probe.identity,
        identity=changed.identity,
        n_tasks=len(new),
        notes=notes,
    )
    return changed, change


def _changes(models: tuple[str, ...], task: str, old: TaskOffsets, new: TaskOffsets) -> dict[str, ModelChange]:
    def seen(offsets: TaskOffsets) -> tuple[list[int], list[float]]:
        moved = offsets.offset(task)
        if moved is None:
            return [0] * len(models), [0.0] * len(models)
        return offsets.counts[offsets.keys.index(task)].tolist(), moved.tolist()

    rows = zip(models, *seen(old), *seen(new), strict=True)
    return {name: ModelChange(n_old, n_new, b_old, b_new) for name, n_old, b_old, n_new, b_new in rows}
