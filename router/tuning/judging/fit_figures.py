"""Measure a fit on prompts left out: how well it predicts each model's loss, and how well it ranks one gain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.grouping import group_numbers
from probes.measures.prediction import auroc, brier, ece, pearson_r
from probes.probe import DifficultyProbe
from router.tuning.fitting.fit import FittedProbe
from router.tuning.fitting.recipe import FOLDS, MIN_PROMPTS
from router.tuning.judging.baselines import PromptLength, Random
from router.tuning.judging.cross_validation import score_baselines, split_folds
from router.tuning.judging.probe_evaluation import PROBE
from router.tuning.judging.ranking import Ranking, RouterScores, Truth, measure
from router.tuning.outcomes.datasets import GRADED, Outcomes

FloatArray = npt.NDArray[np.float64]

#: Baselines that need neither labels nor features.
_BASELINES = (Random(), PromptLength())

#: Draws of the bootstrap from which the intervals of a pair's figures come.
RESAMPLES = 1000

#: Mean scores closer than this are equal: the same sum in another order differs by as much.
_EQUAL = 1e-12


@dataclass(frozen=True)
class ModelFigures:
    """Says how well the loss of one model is predicted on n prompts left out; an undefined figure is None.

    Attributes:
        mean_score: mean of the labels, 0 to 1. pearson_r: correlation of predicted and true loss.
        auroc: of the predicted loss, if the labels are 0 and 1. brier, ece: of the calibrated risk.
    """

    n: int
    mean_score: float
    pearson_r: float | None
    auroc: float | None
    brier: float
    ece: float


@dataclass(frozen=True)
class PairFigures:
    """Says how well the probe and baselines rank n prompts left out by the gain of `strong` over `weak`."""

    weak: str
    strong: str
    n: int
    ranking: Ranking
    baselines: Mapping[str, Ranking]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values. Only the APGR has its interval, because the model card prints every number."""
        return {
            "weak": self.weak,
            "strong": self.strong,
            "n": self.n,
            "ranking": _numbers(self.ranking),
            "baselines": {name: _numbers(ranking) for name, ranking in self.baselines.items()},
        }


def _numbers(ranking: Ranking) -> dict[str, Any]:
    details = {"intervals", "probe_ahead_by"}
    return {name: value for name, value in ranking.to_dict().items() if name not in details}


@dataclass(frozen=True)
class ChosenPair:
    """Names the columns (weak, strong) of the pair that is measured, or None, with a note that says why."""

    columns: tuple[int, int] | None
    note: str | None = None


def choose_pair(outcomes: Outcomes) -> ChosenPair:
    """Choose the two models whose mean scores lie furthest apart on the prompts that both answered.

    Only pairs with MIN_PROMPTS prompts in common count. If several pairs are equally far apart, the first by name is
    chosen, and the note says so.
    """
    models = outcomes.models
    if len(models) < 2:
        return ChosenPair(None, f"{models[0]} is the only model, so there is no pair to rank for")
    known = np.isfinite(outcomes.scores).astype(np.float64)
    common = known.T @ known
    np.fill_diagonal(common, 0.0)
    if common.max() < MIN_PROMPTS:
        return ChosenPair(None, _too_few(int(common.max())))
    # Entry (i, j) sums the scores of model i on the prompts that j answered too.
    sums = np.nan_to_num(outcomes.scores).T @ known
    gaps = np.where(common >= MIN_PROMPTS, (sums.T - sums) / np.maximum(common, 1.0), -np.inf)
    weak, strong = (int(column) for column in np.unravel_index(np.argmax(gaps), gaps.shape))
    if gaps[weak, strong] < _EQUAL:
        return ChosenPair(None, "no two models differ in their mean score on the prompts they share")
    tied = [(models[i], models[j]) for i, j in np.argwhere(gaps > gaps[weak, strong] - _EQUAL)]
    # Rounding may put the largest gap on any of them.
    weak, strong = (models.index(name) for name in tied[0])
    note = None
    if len(tied) > 1:
        listed = ", ".join(f"{w} and {s}" for w, s in tied[1:4])
        note = f"{listed} lie as far apart as {models[weak]} and {models[strong]}, which are first by name"
    return ChosenPair((weak, strong), note)


def _too_few(common: int) -> str:
    if common:
        return (
            f"no two models share {MIN_PROMPTS} prompts, only {common}: too few to measure a gain of one over another"
        )
    return (
        "the models have no common prompts: their mean scores are of different prompts, and no gain of one over "
        "another can be measured"
    )


@dataclass(frozen=True)
class FitFigures:
    """Holds what a fit achieves on prompts left out.

    Attributes:
        models: figures by model name.
        pair: figures of the two models whose mean scores lie furthest apart on the prompts that both answered; None if
            no pair can be measured.
        pair_note: why there is no pair, or a remark on its choice; None if there is nothing to say.
    """

    models: dict[str, ModelFigures]
    pair: PairFigures | None
    pair_note: str | None


def measure_fit(fitted: FittedProbe, outcomes: Outcomes, seed: int = 0) -> FitFigures:
    """Measure a fit by its own predictions for prompts left out; `outcomes` are those that it was fitted to."""
    maps, losses = fitted.maps, 1.0 - outcomes.scores
    models = {
        model: model_figures(maps.predicted[:, column], maps.risk[:, column], losses[:, column])
        for column, model in enumerate(outcomes.models)
    }
    return FitFigures(models, *_pair_figures(outcomes, maps.risk, seed))


def with_figures(probe: DifficultyProbe, figures: FitFigures) -> DifficultyProbe:
    """Return the probe with the figures of its fit on its card."""
    written = dict(probe.card.metrics)
    metrics: dict[str, object] = {
        "split": written.pop("split"),
        "models": {name: asdict(one) for name, one in figures.models.items()},
        "pair": figures.pair.to_dict() if figures.pair else None,
        GRADED: written.pop(GRADED),
    }
    if figures.pair_note is not None:
        metrics["pair_note"] = figures.pair_note
    return replace(probe, card=replace(probe.card, metrics=metrics | written))


def model_figures(predicted: FloatArray, risk: FloatArray, losses: FloatArray) -> ModelFigures:
    """Return the figures of one model from predictions, risks and losses (n,) of prompts left out; NaN is no label."""
    rows = np.isfinite(losses)
    predicted, risk, loss = predicted[rows], risk[rows], losses[rows]
    varies = bool(loss.min() < loss.max())
    binary = varies and bool(np.isin(loss, (0.0, 1.0)).all())
    return ModelFigures(
        n=int(rows.sum()),
        mean_score=1.0 - float(loss.mean()),
        pearson_r=pearson_r(predicted, loss) if varies and predicted.min() < predicted.max() else None,
        auroc=auroc(predicted, loss) if binary else None,
        brier=brier(risk, loss),
        ece=ece(risk, loss),
    )


def _pair_figures(outcomes: Outcomes, risk: FloatArray, seed: int) -> tuple[PairFigures | None, str | None]:
    """Return the figures of the chosen pair, by the risk (n, m) of prompts left out, and the note of `FitFigures`."""
    chosen = choose_pair(outcomes)
    if chosen.columns is None:
        return None, chosen.note
    weak, strong = chosen.columns
    rows = np.flatnonzero(np.isfinite(outcomes.scores[:, [weak, strong]]).all(axis=1))
    pair = outcomes.take(rows, [weak, strong])
    if len(set(pair.texts)) < FOLDS:
        return None, f"{pair.models[0]} and {pair.models[1]} share only {len(set(pair.texts))} different prompts"
    baselines = score_baselines(
        pair, np.empty((len(rows), 0), dtype=np.float32), split_folds(pair, FOLDS, "random", seed), _BASELINES, seed
    )
    own = RouterScores(risk[rows, weak] - risk[rows, strong], risk[rows, weak])
    truth = Truth(pair.scores, group_numbers(pair.texts))
    rankings = measure({PROBE: own, **baselines.by_name}, truth, reference=PROBE, resamples=RESAMPLES, seed=seed)
    ranking = rankings.pop(PROBE)
    if "apgr" not in ranking.figures:
        # The strong model is not the better one on some resample, or on all of them, so there is no gap to rank for.
        names = f"{pair.models[0]} and {pair.models[1]}"
        return None, f"the mean scores of {names}, furthest apart of all, differ too little to rank prompts by the gain"
    return PairFigures(outcomes.models[weak], outcomes.models[strong], len(rows), ranking, rankings), chosen.note
