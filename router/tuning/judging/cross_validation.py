"""Score prompts by fits that did not see them: the recipe and every baseline are refitted on the other folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import cross_calibrate
from probes.errors import DataError
from probes.grouping import group_numbers
from probes.regression.crossfit import assign_folds
from router.tuning.fitting.recipe import fit_maps
from router.tuning.judging.baselines import Baseline, Prompts
from router.tuning.judging.litellm_baseline import LiteLLMMissingError
from router.tuning.judging.ranking import RouterScores
from router.tuning.outcomes.datasets import Outcomes

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Split = Literal["random", "group"]

#: Folds in which baselines are trained when the probe itself is not refitted.
BASELINE_FOLDS = 5


@dataclass(frozen=True)
class BaselineScores:
    """Holds what each baseline says of every prompt, by the baseline's name, without having seen the prompt.

    Attributes:
        by_name: the scores; their risks are calibrated.
        skipped: why a baseline could not be run.
    """

    by_name: dict[str, RouterScores]
    skipped: dict[str, str] = field(default_factory=dict)


def split_folds(outcomes: Outcomes, folds: int, split: Split, seed: int = 0) -> IntArray:
    """Return a fold number for each prompt (n,), drawn by prompt text or by whole groups.

    A split by group makes as many folds as there are groups, if those are fewer. Raises DataError for a split by group
    if the data have fewer than two groups.
    """
    if split == "random":
        return assign_folds(group_numbers(outcomes.texts), folds, seed)
    n_groups = len(set(outcomes.groups))
    if n_groups < 2:
        raise DataError(f"a split by group needs at least 2 groups in the column `group`; got {n_groups}.")
    return assign_folds(outcomes.groups, min(folds, n_groups), seed)


def probe_risk(outcomes: Outcomes, features: npt.NDArray[np.float32], fold: IntArray, seed: int = 0) -> FloatArray:
    """Return the calibrated risk (n, m) of every prompt, by the recipe of `elle fit` on the other folds."""
    losses = 1.0 - outcomes.scores
    risk = np.empty(losses.shape)
    for train, test in _sides(outcomes.texts, fold):
        part = outcomes.take(np.flatnonzero(train))
        maps = fit_maps(features[train], losses[train], part.texts, seed, groups=part.groups)
        risk[test] = maps.risk_of(features[test])
    return risk


def score_baselines(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    fold: IntArray,
    baselines: Sequence[Baseline],
    seed: int = 0,
) -> BaselineScores:
    """Score every prompt with every baseline; a trained one is trained on the other folds.

    Risks are calibrated by cross-fitting afterwards, on these very prompts. Only the baselines have this advantage.
    """
    prompts = Prompts(outcomes.texts, outcomes.groups, features, outcomes.scores)
    folds = assign_folds(group_numbers(outcomes.texts), BASELINE_FOLDS, seed)
    found = BaselineScores({})
    for baseline in baselines:
        try:
            raw = _score(baseline, prompts, fold)
        except LiteLLMMissingError as error:
            found.skipped[baseline.name] = str(error)
            continue
        except ModuleNotFoundError as error:
            found.skipped[baseline.name] = f"{error.name} is not installed: `pip install 'elle-router[train]'`"
            continue
        found.by_name[baseline.name] = _calibrated(raw, outcomes.scores, folds)
    return found


def _score(baseline: Baseline, prompts: Prompts, fold: IntArray) -> RouterScores:
    if not baseline.trained:
        return baseline.score(prompts, prompts)
    gain, difficulty = np.empty(len(fold)), np.empty(len(fold))
    for train, test in _sides(prompts.texts, fold):
        found = baseline.score(prompts.take(train), prompts.take(test))
        gain[test], difficulty[test] = found.gain, found.gain if found.difficulty is None else found.difficulty
    return RouterScores(gain, difficulty=difficulty)


def _calibrated(raw: RouterScores, scores: FloatArray, folds: IntArray) -> RouterScores:
    difficulty = raw.gain if raw.difficulty is None else raw.difficulty
    _, risk = cross_calibrate("sigmoid", difficulty[:, np.newaxis], 1.0 - scores[:, :1], folds)
    return RouterScores(raw.gain, risk[:, 0], difficulty)


def _sides(texts: Sequence[str], fold: IntArray) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield (train, test) rows of each fold; a text of the test fold is not trained on under another group either."""
    numbers = group_numbers(texts)
    for number in np.unique(fold):
        test = fold == number
        yield ~test & ~np.isin(numbers, numbers[test]), test
