"""Compute a learning curve: the recipe is fitted on more and more prompts and measured on the same others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.grouping import group_numbers
from probes.measures.bootstrap import Interval
from router.tuning.fitting.recipe import fit_maps
from router.tuning.judging.cross_validation import split_folds
from router.tuning.judging.ranking import RouterScores, Truth, measure
from router.tuning.outcomes.datasets import Outcomes

#: Numbers of labelled prompts that are tried, as far as there are so many. The last point uses all of them.
SIZES = (100, 300, 1000, 3000, 10000)


@dataclass(frozen=True)
class LearningPoint:
    """Holds the number of labelled prompts in a fit, and its lift and APGR on prompts left out.

    APGR is None if the two models have no gap in quality.
    """

    n_labels: int
    lift: Interval
    apgr: Interval | None


def learning_points(
    outcomes: Outcomes, features: npt.NDArray[np.float32], *, resamples: int = 500, seed: int = 0
) -> tuple[LearningPoint, ...]:
    """Return one point of the curve for each size of fit.

    A fifth of the prompts is left out by text; smaller fits use part of larger ones.

    outcomes: of exactly two models, weak and strong in this order; every score is known.
    """
    fold = split_folds(outcomes, 5, "random", seed)
    test = fold == 0
    train = np.random.default_rng(seed).permutation(np.flatnonzero(~test))
    truth = Truth(outcomes.scores[test], group_numbers([outcomes.texts[row] for row in np.flatnonzero(test)]))
    points = []
    for size in (*(size for size in SIZES if size < len(train)), len(train)):
        rows = train[:size]
        part = outcomes.take(rows)
        maps = fit_maps(features[rows], 1.0 - part.scores, part.texts, seed, groups=part.groups)
        risk = maps.risk_of(features[test])
        router = RouterScores(risk[:, 0] - risk[:, 1])
        figures = measure({"": router}, truth, resamples=resamples, seed=seed)[""].figures
        points.append(LearningPoint(int(size), figures["lift"], figures.get("apgr")))
    return tuple(points)
