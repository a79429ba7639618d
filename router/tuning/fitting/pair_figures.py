"""Of the models of a fit the two that lie furthest apart, and how well their gain is ranked on prompts left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from router.tuning.fitting.recipe import FOLDS, MIN_PROMPTS
from router.tuning.judging.baselines import PromptLength, Random
from router.tuning.judging.cross_validation import judge_baselines, split_folds
from router.tuning.judging.evaluate import PROBE
from router.tuning.judging.ranking import Judgement, Ranking, Truth, measure
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.distinct_texts import text_numbers

FloatArray = npt.NDArray[np.float64]

#: Baselines that need neither labels nor features.
_BESIDE = (Random(), PromptLength())

#: Mean scores closer than this are equal: sums in another order differ by as much.
_EQUAL = 1e-12


@dataclass(frozen=True)
class PairFigures:
    """The ranking by predicted gain of `strong` over `weak` on prompts left out, and chance and length beside it."""

    weak: str
    strong: str
    n: int
    ranking: Ranking
    baselines: Mapping[str, Ranking]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; only the APGR with its interval, as the model card prints every number."""
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
    """The columns of the pair that is measured; None where there is none. note: why not, or what else to know."""

    columns: tuple[int, int] | None
    note: str | None = None


def choose_pair(outcomes: Outcomes) -> ChosenPair:
    """Choose the two models whose mean scores lie furthest apart on the prompts that both answered.

    Only pairs with MIN_PROMPTS prompts in common count. Of equally distant pairs the first by name is taken, and the
    note says so.
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


def pair_figures(outcomes: Outcomes, risk: FloatArray, seed: int) -> tuple[PairFigures | None, str | None]:
    """Return the figures of the chosen pair, by risk (n, m) of prompts left out; and why there are none, or a note."""
    chosen = choose_pair(outcomes)
    if chosen.columns is None:
        return None, chosen.note
    weak, strong = chosen.columns
    rows = np.flatnonzero(np.isfinite(outcomes.scores[:, [weak, strong]]).all(axis=1))
    pair = outcomes.take(rows, [weak, strong])
    if len(set(pair.texts)) < FOLDS:
        return None, f"{pair.models[0]} and {pair.models[1]} share only {len(set(pair.texts))} different prompts"
    others = judge_baselines(
        pair, np.empty((len(rows), 0), dtype=np.float32), split_folds(pair, FOLDS, "random", seed), _BESIDE, seed
    )
    own = Judgement(risk[rows, weak] - risk[rows, strong], risk[rows, weak])
    truth = Truth(pair.scores, text_numbers(pair.texts))
    rankings = measure({PROBE: own, **others.judgements}, truth, reference=PROBE, seed=seed)
    ranking = rankings.pop(PROBE)
    if "apgr" not in ranking.figures:
        # On some resample, or on all, the strong model is not the better one: no gap to rank for.
        names = f"{pair.models[0]} and {pair.models[1]}"
        return None, f"the mean scores of {names}, furthest apart of all, differ too little to rank prompts by the gain"
    return PairFigures(outcomes.models[weak], outcomes.models[strong], len(rows), ranking, rankings), chosen.note
