"""Remove labels from a saved probe exactly, as if its fit had never had them, and say what cannot be removed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DifficultyProbe, Fingerprints, fingerprints, utc_now
from probes.regression.prior import Prior
from probes.tasks.offsets import TaskOffsets
from router.tuning.fitting.adaptation import PriorProbe
from router.tuning.fitting.recipe import MIN_TEXTS
from router.tuning.fitting.task_labels import labels_of_models, losses_by_model
from router.tuning.outcomes.datasets import Outcomes

#: The key under which a model card says how many rows were removed from the fit.
FORGOTTEN = "forgotten"

#: What rounding may leave of a sum over losses of n rows, for each row.
_ROUNDING = 1e-9

#: What is never removed, because a fit that has lost its rows cannot be measured again.
_ALWAYS_KEPT = (
    "the calibration maps are kept: they have a few numbers for each model, which all rows of the fit moved a little; "
    "`elle recalibrate` with 300 new labels of a model fits its map anew",
    "the limit on unfamiliar prompts and the figures on the model card are kept: they are figures over all rows",
)


@dataclass(frozen=True)
class RemovedLabels:
    """Says what was removed from a probe.

    Attributes:
        old_identity, identity: of the probe before and after.
        n_prompts: the rows that were removed, and n_left those that the statistics still hold.
        labels: by model, the labels that were removed. left: by model, the labels that are left.
        tasks: the tasks whose offsets were dropped whole.
        kept: what could not be removed, in words. notes: what was odd, in words.
    """

    old_identity: str
    identity: str
    n_prompts: int
    n_left: int
    labels: dict[str, int]
    left: dict[str, int]
    tasks: tuple[str, ...]
    kept: tuple[str, ...]
    notes: tuple[str, ...]


def labels_to_forget(old: PriorProbe, outcomes: Outcomes, *, skip_unknown: bool = False) -> tuple[Outcomes, list[str]]:
    """Return the rows to remove, and notes on what is odd about them.

    skip_unknown: leave out rows whose text the fit never saw. Such a row was held out, or never given.

    Raises DataError if no model is one of the probe's, for rows that the fit never saw, and if the fit has fewer rows
    of a text than are to be removed.
    """
    if not old.probe.fitted_on.size:
        raise DataError("the probe does not know which prompts it was fitted on, so nothing says that it has these.")
    outcomes, found = labels_of_models(old.probe, outcomes)
    seen = fingerprints(outcomes.texts)
    known = np.isin(seen, old.probe.fitted_on)
    notes = list(found)
    if not known.all():
        missing = [one for one, has in zip(outcomes.ids, known, strict=True) if not has]
        if not skip_unknown or not known.any():
            raise DataError(
                f"LABELS must be of the fit; it never saw the text of {len(missing):,} of {len(outcomes):,} prompts. "
                "Such rows were held out or are of another file: nothing of them is in the probe"
                + (", so --skip-unknown leaves them out." if known.any() else ".")
            )
        notes.append(f"{len(missing):,} prompts are skipped, because the fit never saw their text")
        outcomes = outcomes.take(np.flatnonzero(known))
    if _counts_rows(old):
        held = Counter(old.probe.fitted_on.tolist())
        if more := [key for key, n in Counter(fingerprints(outcomes.texts).tolist()).items() if n > held[key]]:
            raise DataError(
                f"LABELS must hold each row as often as the fit had it; {len(more):,} texts occur more often. Give the "
                "rows with the prompt_id that the fit read, so that labels of one request stay together."
            )
    return outcomes, notes


def forget(
    old: PriorProbe,
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    notes: Iterable[str] = (),
) -> tuple[DifficultyProbe, Prior, RemovedLabels]:
    """Return the probe and the statistics of its fit without these rows, and what was removed.

    outcomes: as `labels_to_forget` returns them, with every label of each row. features: (n, d) of their prompts. The
    statistics are those of a fit without the rows, up to rounding, and the linear map is solved from them with the
    same penalty.

    Raises DataError for rows that cannot have been part of the statistics, and if too few rows would be left.
    """
    probe, losses = old.probe, losses_by_model(old.probe, outcomes)
    left = old.statistics.n_labels - np.isfinite(losses).sum(axis=0)
    if left.min() < MIN_TEXTS:
        model = probe.models[int(left.argmin())]
        raise DataError(
            f"at least {MIN_TEXTS} labels of each model must be left; {model} would have {max(int(left.min()), 0)}. "
            "Fit a new probe on the other outcomes instead."
        )
    rest = old.statistics.without(features, losses)
    _require_possible(rest, probe.models)
    solution = rest.solve(probe.linear.alpha)
    tasks, dropped = _without_tasks(probe.tasks, outcomes)
    changed = replace(
        probe,
        linear=solution.probe,
        leverage=solution.leverage,
        fitted_on=_without_texts(old, outcomes),
        tasks=tasks,
    )
    counts = dict(zip(probe.models, np.isfinite(losses).sum(axis=0).tolist(), strict=True))
    changed = _with_card(changed, probe, len(outcomes), counts)
    return (
        changed,
        rest,
        RemovedLabels(
            old_identity=probe.identity,
            identity=changed.identity,
            n_prompts=len(outcomes),
            n_left=rest.everything.n_rows,
            labels=counts,
            left=dict(zip(probe.models, rest.n_labels.tolist(), strict=True)),
            tasks=dropped,
            kept=_what_is_kept(old, outcomes),
            notes=tuple(notes),
        ),
    )


def _counts_rows(old: PriorProbe) -> bool:
    """Return whether the probe has one fingerprint for each row of its statistics, and not one for each text."""
    return old.probe.fitted_on.size == old.statistics.everything.n_rows


def _without_texts(old: PriorProbe, outcomes: Outcomes) -> Fingerprints:
    """Return the fingerprints that are left: one less for each row, or none of these texts if rows are not counted."""
    gone, kept = fingerprints(outcomes.texts), old.probe.fitted_on
    if not _counts_rows(old):
        return kept[~np.isin(kept, gone)]
    to_drop, keep = Counter(gone.tolist()), np.ones(kept.size, dtype=np.bool_)
    for place, key in enumerate(kept.tolist()):
        if to_drop[key] > 0:
            to_drop[key] -= 1
            keep[place] = False
    return kept[keep]


def _without_tasks(tasks: TaskOffsets | None, outcomes: Outcomes) -> tuple[TaskOffsets | None, tuple[str, ...]]:
    """Return the offsets without the tasks that the rows name, and these tasks.

    The sums of a task are of predictions that left rows out, which nobody can repeat without the other rows.
    """
    named = tuple(sorted({task for task in outcomes.tasks if task and tasks is not None and task in tasks}))
    if tasks is None or not named:
        return tasks, ()
    rows = [row for row, key in enumerate(tasks.keys) if key not in named]
    keys = tuple(tasks.keys[row] for row in rows)
    return replace(tasks, keys=keys, counts=tasks.counts[rows], sums=tasks.sums[rows]), named


def _require_possible(rest: Prior, models: tuple[str, ...]) -> None:
    """Raise DataError if no losses between 0 and 1 have the sums that are left: then other rows were taken out."""
    everything, counts = rest.everything.n_rows, rest.n_labels
    if counts.max() > everything or counts.sum() < everything:
        raise DataError(
            "LABELS must hold all labels of each prompt, as the fit read them; without these, the numbers of labels "
            "and of prompts contradict each other."
        )
    for columns, fitter in rest.parts:
        mean, slack = fitter.target_mean, _ROUNDING * fitter.n_rows
        most = fitter.weight * mean * (1.0 - mean)
        wrong = (mean * (1.0 - mean) < -_ROUNDING) | (fitter.target_scatter > most + slack)
        wrong |= fitter.target_scatter < -slack
        if wrong.any():
            raise DataError(
                f"LABELS must be those of the fit; without them no scores from 0 to 1 of {models[columns[wrong][0]]} "
                "have the sums that are left. Give the rows with exactly the scores that the fit read."
            )


def _what_is_kept(old: PriorProbe, outcomes: Outcomes) -> tuple[str, ...]:
    kept = list(_ALWAYS_KEPT)
    if old.probe.kinds is not None:
        kept.append("the known kinds of request are kept: they hold the mean features of each kind over all its rows")
    if old.probe.tasks is not None:
        kept.append("how much tasks differ is kept: it is a figure over all tasks")
        if not any(outcomes.tasks):
            kept.append("the labels name no task; if the fit read them with one, give the column task")
    if not _counts_rows(old):
        kept.append(
            "the probe does not count how often it saw a text, so it no longer knows these texts at all; if other rows "
            "of the fit have the same text, keep that text out of what certifies a policy"
        )
    return tuple(kept)


def _with_card(
    changed: DifficultyProbe, old: DifficultyProbe, n_prompts: int, counts: dict[str, int]
) -> DifficultyProbe:
    card = old.card
    before = card.metrics.get(FORGOTTEN)
    total = n_prompts + (before if isinstance(before, int) else 0)
    n_samples = {name: max(0, n - counts.get(name, 0)) for name, n in card.n_samples.items()}
    metrics = {**card.metrics, FORGOTTEN: total}
    return replace(changed, card=replace(card, created=utc_now(), n_samples=n_samples, metrics=metrics))
