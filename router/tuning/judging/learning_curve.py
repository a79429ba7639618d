"""How the ranking gets better with labels: the recipe fitted on ever more prompts, judged on the same held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.measures.bootstrap import Interval
from router.tuning.fitting.recipe import fit_maps
from router.tuning.judging.cross_validation import split_folds
from router.tuning.judging.ranking import Judgement, Truth, measure
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.distinct_texts import text_numbers

#: Numbers of labelled prompts tried, as far as there are so many; the last point is all of them.
SIZES = (100, 300, 1000, 3000, 10000)


@dataclass(frozen=True)
class LearningPoint:
    """Labelled prompts fitted on, and the lift over random choice on prompts left out (apgr None without a gap)."""

    n_labels: int
    lift: Interval
    apgr: Interval | None


def learning_points(
    outcomes: Outcomes, features: npt.NDArray[np.float32], *, resamples: int = 500, seed: int = 0
) -> tuple[LearningPoint, ...]:
    """One point per size, on a fifth of the prompts held out by text; smaller fits are on part of the larger ones'.

    outcomes: exactly two models, weak and strong in this order, without gaps.
    """
    fold = split_folds(outcomes, 5, "random", seed)
    test = fold == 0
    train = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
    truth = Truth(outcomes.scores[test], text_numbers([outcomes.texts[row] for row in np.flatnonzero(test)]))
    points = []
    for size in (*(size for size in SIZES if size < len(train)), len(train)):
        rows = train[:size]
        texts = [outcomes.texts[row] for row in rows]
        risk = fit_maps(features[rows], 1.0 - outcomes.scores[rows], texts, seed).risk_of(features[test])
        judgement = Judgement(risk[:, 0] - risk[:, 1])
        figures = measure({"": judgement}, truth, resamples=resamples, seed=seed)[""].figures
        points.append(LearningPoint(int(size), figures["lift"], figures.get("apgr")))
    return tuple(points)
