"""Measure tasks that the fit never saw, with no label of the task and with a few: the recipe against a plain ridge.

Two tiers of models are the candidates: economy, the models between 10 and 40 % of the order by mean rank, and frontier,
the best quarter. The score of a tier on a prompt is the mean of its models' scores. Whole tasks are left out; the
penalty, the calibration maps and how much tasks differ are chosen inside the tasks that are left, again by whole tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from benchmarks.quality.figures import signed_with_interval, with_interval
from probes.measures.bootstrap import bootstrap
from probes.measures.prediction import ece
from probes.measures.routing import apgr
from probes.regression.crossfit import assign_folds
from probes.regression.fit import fit_ridge
from router.tuning.fitting.recipe import FittedMaps, risk_through
from router.tuning.fitting.task_recipe import fit_task_maps
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

FOLDS = 5

#: Where the tiers begin and end in the order of the models by mean rank, as shares of their number.
ECONOMY, FRONTIER = (0.10, 0.40), (0.75, 1.00)

NAMES = {
    "recipe": "**ELLE, fitted on tasks**",
    "task_means": "mean of ELLE over all prompts of the task",
    "plain": "plain ridge",
    "labels": "mean of the task's labels alone",
    "prompt_length": "prompt length",
    "random": "random",
    "linear": "best line on labels and predictions, fitted on these very tasks",
    "known": "mean gain of each task, known exactly",
}


@dataclass(frozen=True)
class Tiers:
    """Holds the names of the models of both tiers, and the mean loss of each tier on each prompt, (n, 2)."""

    economy: tuple[str, ...]
    frontier: tuple[str, ...]
    losses: FloatArray


def tiers_of(outcomes: Outcomes) -> Tiers:
    """Return the tiers of outcomes that every model has answered."""
    order = np.argsort(rankdata(outcomes.scores, axis=1).mean(axis=0), kind="stable")
    place = (np.arange(len(order)) + 0.5) / len(order)
    cheap, best = (order[(place >= low) & (place <= high)] for low, high in (ECONOMY, FRONTIER))
    losses = 1.0 - np.stack([outcomes.scores[:, columns].mean(axis=1) for columns in (cheap, best)], axis=1)
    return Tiers(tuple(outcomes.models[i] for i in cheap), tuple(outcomes.models[i] for i in best), losses)


@dataclass(frozen=True)
class Fold:
    """Holds one fold of tasks left out: its rows, the fit on the other tasks, and the predictions of a plain ridge."""

    rows: Rows
    maps: FittedMaps
    predicted: FloatArray
    plain: FloatArray

    def risk(self, tasks: npt.NDArray[np.object_], labelled: npt.NDArray[np.bool_], losses: FloatArray) -> FloatArray:
        """Return the risk (rows, 2) of the fold's prompts after the labels of these rows of all prompts (n,)."""
        if self.maps.tasks is None:
            raise ValueError("the fit has no tasks")
        moved = self.predicted.copy()
        for task in set(tasks[self.rows]):
            own = np.flatnonzero(tasks[self.rows] == task)
            known = own[labelled[self.rows[own]]]
            if known.size:
                residuals = losses[self.rows[known]] - self.predicted[known]
                moved[own] += self.maps.tasks.add(task, residuals).offset(task)
        return risk_through(self.maps.calibrators, moved)


def task_results(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    *,
    labels: Sequence[int] = (1, 2, 3, 5),
    draws: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the APGR over tasks left out, without labels and with so many labelled prompts of each task.

    The groups of the outcomes are the tasks. Labelled prompts are drawn `draws` times and are not judged. Intervals are
    by bootstrap over tasks.
    """
    tiers, tasks = tiers_of(outcomes), np.array(outcomes.groups, dtype=object)
    folds = list(_folds(outcomes, features, tiers.losses, tasks, seed))
    judged = _Judged(tiers.losses, tasks, resamples, seed)
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {
        "n": len(outcomes),
        "n_tasks": len(set(outcomes.groups)),
        "economy": {"models": tiers.economy, "score": 1.0 - float(tiers.losses[:, 0].mean())},
        "frontier": {"models": tiers.frontier, "score": 1.0 - float(tiers.losses[:, 1].mean())},
        "draws": draws,
        "alphas": {"recipe": [float(one.maps.linear.alpha[0]) for one in folds]},
        "by_labels": {},
    }
    for count in (0, *labels):
        draws_of_labels = [_drawn(tasks, count, rng) for _ in range(draws if count else 1)]
        found["by_labels"][str(count)] = _measured(outcomes, folds, judged, draws_of_labels)
    return found


def _folds(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    losses: FloatArray,
    tasks: npt.NDArray[np.object_],
    seed: int,
) -> Iterator[Fold]:
    fold = assign_folds(tasks.tolist(), FOLDS, seed)
    for number in range(FOLDS):
        rest, rows = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        texts = [outcomes.texts[row] for row in rest]
        maps = fit_task_maps(features[rest], losses[rest], texts, tasks[rest].tolist(), seed)
        plain = fit_ridge(features[rest], losses[rest]).probe
        predicted, raw = (one.predict(features[rows]).astype(np.float64) for one in (maps.linear, plain))
        yield Fold(rows, maps, predicted, raw)


def _drawn(tasks: npt.NDArray[np.object_], count: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which rows (n,) are labelled: `count` of each task, but never all of a task."""
    labelled = np.zeros(len(tasks), dtype=np.bool_)
    for task in sorted(set(tasks)):
        rows = np.flatnonzero(tasks == task)
        labelled[rng.permutation(rows)[: min(count, len(rows) - 1)]] = True
    return labelled


@dataclass(frozen=True)
class _Judged:
    losses: FloatArray
    tasks: npt.NDArray[np.object_]
    resamples: int
    seed: int

    def interval(self, scores: Sequence[FloatArray], labelled: Sequence[npt.NDArray[np.bool_]]) -> dict[str, float]:
        """Return the APGR of rankings (n,), one for each draw of labels, as a mean over draws with its interval."""
        return self._over_tasks(lambda rows: self._mean_apgr(scores, labelled, rows))

    def ahead(
        self, scores: Sequence[FloatArray], others: Sequence[FloatArray], labelled: Sequence[npt.NDArray[np.bool_]]
    ) -> dict[str, float]:
        """Return by how much the APGR of some rankings is above that of others, on the same draws and tasks."""
        return self._over_tasks(
            lambda rows: self._mean_apgr(scores, labelled, rows) - self._mean_apgr(others, labelled, rows)
        )

    def _over_tasks(self, statistic: Any) -> dict[str, float]:
        rows = np.arange(len(self.losses))
        names = self.tasks.astype(str)
        return asdict(bootstrap(statistic, rows, groups=names, n_resamples=self.resamples, seed=self.seed))

    def _mean_apgr(self, scores: Sequence[FloatArray], labelled: Sequence[npt.NDArray[np.bool_]], rows: Rows) -> float:
        kept = (rows[~known[rows]] for known in labelled)
        quality = 1.0 - self.losses
        pairs = zip(scores, kept, strict=True)
        return float(np.mean([apgr(one[own], quality[own, 0], quality[own, 1]) for one, own in pairs]))


def _measured(
    outcomes: Outcomes, folds: Sequence[Fold], judged: _Judged, labelled: Sequence[npt.NDArray[np.bool_]]
) -> dict[str, Any]:
    losses, tasks = judged.losses, judged.tasks
    risks = [np.empty_like(losses) for _ in labelled]
    plain = np.empty(len(losses))
    for fold in folds:
        plain[fold.rows] = fold.plain[:, 0] - fold.plain[:, 1]
        for risk, known in zip(risks, labelled, strict=True):
            risk[fold.rows] = fold.risk(tasks, known, losses)
    repeat = len(labelled)
    rankings: dict[str, list[FloatArray]] = {
        "recipe": [risk[:, 0] - risk[:, 1] for risk in risks],
        "task_means": [_mean_of_task(risk[:, 0] - risk[:, 1], tasks) for risk in risks],
        "plain": [plain] * repeat,
        "prompt_length": [np.array([float(len(text)) for text in outcomes.texts])] * repeat,
        "random": [np.zeros(len(losses))] * repeat,
    }
    if labelled[0].any():
        rankings["labels"] = [_mean_of_labels(losses, tasks, known) for known in labelled]
        rankings["linear"] = _best_line(folds, losses, tasks, labelled)
        rankings["known"] = [_mean_of_labels(losses, tasks, np.ones(len(tasks), dtype=np.bool_))] * repeat
    return {
        "apgr": {name: judged.interval(scores, labelled) for name, scores in rankings.items()},
        "ahead_of": {
            name: judged.ahead(rankings["recipe"], scores, labelled)
            for name, scores in rankings.items()
            if name in {"plain", "labels"}
        },
        "ece": {
            tier: float(
                np.mean(
                    [
                        ece(risk[~known, column], losses[~known, column])
                        for risk, known in zip(risks, labelled, strict=True)
                    ]
                )
            )
            for column, tier in enumerate(("economy", "frontier"))
        },
    }


def _mean_of_task(gain: FloatArray, tasks: npt.NDArray[np.object_]) -> FloatArray:
    """Return for each prompt (n,) the mean gain of all prompts of its task, which no label is needed for."""
    found = np.empty(len(gain))
    for task in set(tasks):
        found[tasks == task] = gain[tasks == task].mean()
    return found


def _mean_of_labels(losses: FloatArray, tasks: npt.NDArray[np.object_], known: npt.NDArray[np.bool_]) -> FloatArray:
    gain, scores = losses[:, 0] - losses[:, 1], np.zeros(len(losses))
    for task in set(tasks):
        own = tasks == task
        scores[own] = gain[own & known].mean()
    return scores


def _best_line(
    folds: Sequence[Fold],
    losses: FloatArray,
    tasks: npt.NDArray[np.object_],
    labelled: Sequence[npt.NDArray[np.bool_]],
) -> list[FloatArray]:
    """Return the rankings (n,) by the best linear prediction of the gain, fitted to the answers that judge it.

    It reads the mean losses of the task's labels, what was predicted for these prompts, and what was predicted for the
    prompt itself. Least squares on the answers: no shrinkage of labels towards predictions does better but by chance.
    """
    predicted = np.empty_like(losses)
    for fold in folds:
        predicted[fold.rows] = fold.predicted
    designs, weights = [], []
    for known in labelled:
        means, weight = np.zeros((len(tasks), 4)), np.zeros(len(tasks))
        for task in set(tasks):
            own = np.flatnonzero(tasks == task)
            given = own[known[own]]
            if given.size:
                means[own] = np.hstack([losses[given], predicted[given]]).mean(axis=0)
                weight[np.setdiff1d(own, given)] = 1.0 / (own.size - given.size)
        designs.append(np.hstack([np.ones((len(tasks), 1)), means, predicted - means[:, 2:]]))
        weights.append(weight)
    scale, design = np.sqrt(np.concatenate(weights)), np.concatenate(designs)
    gain = np.tile(losses[:, 0] - losses[:, 1], len(labelled))
    line = np.linalg.lstsq(design * scale[:, None], gain * scale, rcond=None)[0]
    return [one @ line for one in designs]


def task_section(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the section of docs/results.md on tasks that were never seen."""
    economy, frontier = found["economy"], found["frontier"]
    yield "## Tasks never seen, with few labels"
    yield ""
    yield f"{found['n_tasks']} puzzle tasks, {found['n']:,} prompts. The candidates are two tiers, each the mean of its"
    yield f"models: economy ({', '.join(economy['models'])}; mean score {economy['score']:.3f})"
    yield f"and frontier ({', '.join(frontier['models'])}; {frontier['score']:.3f})."
    yield f"Whole tasks are left out in {FOLDS} folds, and everything that is chosen is chosen inside the others, again"
    yield "by whole tasks. *Labels*: prompts of each task left out whose scores are given to it (`elle label-task`),"
    yield f"drawn at random, mean of {found['draws']} draws; they are not judged. *Plain ridge*: its penalty is chosen"
    yield "by leaving single prompts out, and it knows no tasks. Figures are the APGR of the ranking by predicted gain;"
    yield "brackets are 95 % bootstrap intervals over tasks, paired for *ahead of*. The last two rankings are"
    yield "fitted to the answers themselves: they say what a linear rule, and what the mean of a task, can give."
    yield ""
    counts = list(found["by_labels"])
    yield "| ranking by | " + " | ".join(f"{n} label{'' if n == '1' else 's'}" for n in counts) + " |"
    yield "|---" * (len(counts) + 1) + "|"
    for name, label in NAMES.items():
        cells = (found["by_labels"][n]["apgr"].get(name) for n in counts)
        yield f"| {label} | " + " | ".join("" if one is None else with_interval(one) for one in cells) + " |"
    for name in ("plain", "labels"):
        cells = (found["by_labels"][n]["ahead_of"].get(name) for n in counts)
        row = ("" if one is None else signed_with_interval(one) for one in cells)
        yield f"| ELLE ahead of {NAMES[name]} | " + " | ".join(row) + " |"
    for tier in ("economy", "frontier"):
        cells = (f"{found['by_labels'][n]['ece'][tier]:.3f}" for n in counts)
        yield f"| ECE of ELLE, {tier} | " + " | ".join(cells) + " |"
