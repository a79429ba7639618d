"""Add a model to a saved probe from few labels: the models that it has stay to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.calibration.base import Calibrator
from probes.calibration.beta import Beta
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.probe import DifficultyProbe, fingerprints, utc_now
from probes.regression.linear import LinearProbe
from probes.regression.shared import SharedFit, fit_by_shared
from probes.tasks.offsets import TaskOffsets
from router.quoting import quoted
from router.tuning.fitting.recipe import MIN_TEXTS, FloatArray, spread_folds
from router.tuning.fitting.task_labels import contradicted
from router.tuning.outcomes.datasets import GRADED, Outcomes, graded_models

#: Labels that a model needs to be added. Fewer were not measured.
MIN_LABELS_TO_ADD = 10

#: The most characters in the name of a model that is added.
MAX_NAME = 256

#: With fewer labels the calibration map has one parameter, its mean; a map of three needs more.
LABELS_FOR_A_MAP = 300

#: The key under which a model card lists the models that were added, and what an added model's loss follows.
ADDED = "added"

#: Losses are probabilities already, so this map leaves losses in (0, 1) as they are: low, high, a, b, c of `Beta`.
_SAME = Beta(np.array([0.0, 1.0, 1.0, 1.0, 0.0]))

_IN_WORDS: Mapping[str, str] = {
    "mean": "its mean alone, because neither the other models nor the prompts tell more",
    "shared": "the difficulty that the other models share",
    "shared and own": "the difficulty that the other models share, and a ridge of its own",
    "own": "a ridge of its own",
}


@dataclass(frozen=True)
class Addition:
    """Says how a model was added to a probe.

    Attributes:
        model: its name. old_identity, title: of the probe that it was added to.
        n_labels, n_texts: prompts with a label, and distinct texts among them.
        way, slope, penalty, errors: as in `probes.regression.shared.SharedFit`.
    """

    model: str
    old_identity: str
    title: str
    n_labels: int
    n_texts: int
    way: str
    slope: float
    penalty: float
    errors: Mapping[str, float]

    def describe(self) -> str:
        """Return a sentence that says what was added, to what, and what its loss follows."""
        return (
            f"{self.model} was added to the probe {self.title!r} ({self.old_identity[:12]}) from {self.n_labels:,} "
            f"labels: its loss follows {_IN_WORDS[self.way]}."
        )


@dataclass(frozen=True, eq=False)
class AddedModel:
    """Holds a probe with one more model, how it was added, and what is predicted for each of its n labelled prompts.

    predicted: (n,) losses, predicted without the labels of the prompt's text. risk: (n,) the same through a map that
    knows other folds only. The card holds no figures yet.
    """

    probe: DifficultyProbe
    addition: Addition
    predicted: FloatArray
    risk: FloatArray


def check_name(probe: DifficultyProbe, model: str) -> None:
    """Raise DataError for a name that no probe should hold, and for that of a model that the probe has already."""
    # Its length is looked at first: a name of many megabytes must cost nothing.
    if not model.strip() or len(model) > MAX_NAME or not model.isprintable():
        raise DataError(
            f"--add must be the name of a model, 1 to {MAX_NAME} printable characters, as the column `model` of the "
            f"labels has it; got {quoted(model)}."
        )
    if model in probe.models:
        raise DataError(
            f"the probe has the model {quoted(model)} already; give its labels another name to add it anew, or fit "
            "the probe again."
        )


def labels_to_add(probe: DifficultyProbe, model: str, outcomes: Outcomes) -> tuple[Outcomes, tuple[str, ...]]:
    """Return the labels of one new model among outcomes, and notes on what is odd about them.

    Raises DataError as `check_name`, and for a model with fewer than MIN_LABELS_TO_ADD labels, of fewer than MIN_TEXTS
    different prompts, or with none at all.
    """
    check_name(probe, model)
    if model not in outcomes.models:
        names = ", ".join(quoted(name) for name in outcomes.models[:5])
        more = f" and {len(outcomes.models) - 5:,} more" if len(outcomes.models) > 5 else ""
        raise DataError(
            f"the data must hold labels of the model to add, {quoted(model)}; they are of {names}{more}. Give --add "
            "the name that the column `model` has."
        )
    notes = [
        f"the labels of {quoted(other)} are left out, because only {quoted(model)} is added"
        for other in outcomes.models
        if other != model
    ]
    outcomes = outcomes.select_models([model])
    n_texts = len(set(outcomes.texts))
    if len(outcomes) < MIN_LABELS_TO_ADD or n_texts < MIN_TEXTS:
        raise DataError(
            f"adding a model needs at least {MIN_LABELS_TO_ADD} labels of at least {MIN_TEXTS} different prompts; "
            f"{quoted(model)} has {len(outcomes):,} of {n_texts:,}. Add labels; 50 are a good number."
        )
    if count := contradicted(outcomes):
        notes.append(f"{count:,} prompts have labels that contradict each other; all of them count")
    if outcomes.scores.min() == outcomes.scores.max():
        notes.append(f"every score of {quoted(model)} is {outcomes.scores[0, 0]:g}, so nothing tells its prompts apart")
    return outcomes, tuple(notes)


def add_model(
    probe: DifficultyProbe, outcomes: Outcomes, features: npt.NDArray[np.float32], seed: int = 0
) -> AddedModel:
    """Return the probe with one more model, from its labels as `labels_to_add` returns them.

    features: (n, d) of the labelled prompts. The linear map, the calibration and the task offsets of the other models
    stay to the bit, and so do the leverage and its limit. The labelled prompts count as seen by the fit.
    """
    losses = 1.0 - outcomes.scores[:, 0]
    found = fit_by_shared(probe.linear, probe.leverage.inverse_scale, features, losses, group_numbers(outcomes.texts))
    noise = float(np.var([*(losses - found.left_out), -0.5, 0.5]))
    changed = replace(
        probe,
        models=(*probe.models, *outcomes.models),
        linear=LinearProbe(
            np.vstack([probe.linear.coef, found.probe.coef]),
            np.append(probe.linear.intercept, found.probe.intercept),
            np.append(probe.linear.alpha, found.probe.alpha),
        ),
        calibrators=(*probe.calibrators, few_label_map(found.left_out, losses)),
        fitted_on=np.union1d(probe.fitted_on, fingerprints(outcomes.texts)),
        tasks=None if probe.tasks is None else _with_model(probe.tasks, found, noise),
    )
    addition = Addition(
        model=outcomes.models[0],
        old_identity=probe.identity,
        title=probe.card.title,
        n_labels=len(outcomes),
        n_texts=len(set(outcomes.texts)),
        way=found.way,
        slope=found.slope,
        penalty=found.penalty,
        errors=found.errors,
    )
    risk = _held_out_risk(found.left_out, losses, spread_folds(losses[:, None], outcomes.texts, seed))
    return AddedModel(changed, addition, found.left_out, risk)


def few_label_map(predicted: FloatArray, losses: FloatArray) -> Calibrator:
    """Return the map from predicted loss to risk of a model with n labels: its predictions (n,) left out, its losses.

    A predicted loss is a probability of failure already. With fewer than LABELS_FOR_A_MAP labels only the mean is
    fitted, with two pseudo-labels; with more the map is a beta map as in every fit.
    """
    return Beta.fit(predicted, losses) if len(losses) >= LABELS_FOR_A_MAP else _SAME.moved(0.0, predicted, losses)


def with_added_card(added: AddedModel, outcomes: Outcomes, title: str, figures: Mapping[str, Any]) -> DifficultyProbe:
    """Return the probe with a card that says what was added, with these figures of the new model; the rest is kept."""
    card, addition = added.probe.card, added.addition
    before = card.metrics.get(ADDED)
    graded = card.metrics.get(GRADED)
    entry = {**asdict(addition), "split": "each prompt text left out in turn", **figures}
    metrics: dict[str, object] = {
        **card.metrics,
        ADDED: {**(before if isinstance(before, Mapping) else {}), addition.model: entry},
    }
    if isinstance(graded, list | tuple):
        metrics[GRADED] = [*graded, *graded_models(outcomes)]
    return replace(
        added.probe,
        card=replace(
            card,
            title=title,
            created=utc_now(),
            summary=f"{card.summary} {addition.describe()}".strip(),
            data=tuple(dict.fromkeys((*card.data, *outcomes.sources))),
            n_samples={**card.n_samples, addition.model: addition.n_labels},
            metrics=metrics,
        ),
    )


def _with_model(tasks: TaskOffsets, found: SharedFit, noise: float) -> TaskOffsets:
    """Return task offsets in which the new model's follows the mean of the others' by its slope."""
    return tasks.with_model(np.full(tasks.n_models, found.slope / tasks.n_models), noise)


def _held_out_risk(predicted: FloatArray, losses: FloatArray, fold: npt.NDArray[np.int64]) -> FloatArray:
    """Return the risk (n,) of every row, through a map that knows the other folds only."""
    risk = np.empty(len(losses))
    for number in np.unique(fold):
        inside = fold == number
        risk[inside] = few_label_map(predicted[~inside], losses[~inside]).predict(predicted[inside])
    return risk
