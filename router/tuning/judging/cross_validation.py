"""Judgements of prompts left out: the probe's recipe and every baseline refitted on the other folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import cross_calibrate
from probes.errors import DataError
from probes.regression.crossfit import assign_folds
from router.tuning.fitting.recipe import fit_maps
from router.tuning.judging.baselines import Baseline, Prompts
from router.tuning.judging.litellm_baseline import LiteLLMMissingError
from router.tuning.judging.ranking import Judgement
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.distinct_texts import text_numbers

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Split = Literal["random", "group"]

#: Folds in which baselines are trained when the probe itself is not refitted.
BASELINE_FOLDS = 5


@dataclass(frozen=True)
class HeldOut:
    """What routers say of every prompt without having seen it.

    Attributes:
        judgements: by name, risks calibrated.
        skipped: why a baseline could not be run, by its name.
    """

    judgements: dict[str, Judgement]
    skipped: dict[str, str] = field(default_factory=dict)


def split_folds(outcomes: Outcomes, folds: int, split: Split, seed: int = 0) -> IntArray:
    """A fold number per prompt: by prompt text, or by whole groups (as many folds as groups if those are fewer).

    Raises DataError when the data have fewer than two groups.
    """
    if split == "random":
        return assign_folds(text_numbers(outcomes.texts), folds, seed)
    n_groups = len(set(outcomes.groups))
    if n_groups < 2:
        raise DataError(f"a split by group needs at least 2 groups in the column `group`; got {n_groups}.")
    return assign_folds(outcomes.groups, min(folds, n_groups), seed)


def probe_risk(outcomes: Outcomes, features: npt.NDArray[np.float32], fold: IntArray, seed: int = 0) -> FloatArray:
    """Calibrated risk (n, m) of every prompt by the recipe of `elle fit` on the other folds."""
    losses = 1.0 - outcomes.scores
    risk = np.empty(losses.shape)
    for train, test in _sides(outcomes.texts, fold):
        texts = [outcomes.texts[row] for row in np.flatnonzero(train)]
        risk[test] = fit_maps(features[train], losses[train], texts, seed).risk_of(features[test])
    return risk


def judge_baselines(
    outcomes: Outcomes,
    features: npt.NDArray[np.float32],
    fold: IntArray,
    baselines: Sequence[Baseline],
    seed: int = 0,
) -> HeldOut:
    """Every baseline on every prompt; trained ones on the other folds, risks calibrated by cross-fitting afterwards.

    The calibration is done on these very prompts, an advantage that only the baselines have.
    """
    prompts = Prompts(outcomes.texts, outcomes.groups, features, outcomes.scores)
    folds = assign_folds(text_numbers(outcomes.texts), BASELINE_FOLDS, seed)
    found = HeldOut({})
    for baseline in baselines:
        try:
            raw = _judge(baseline, prompts, fold)
        except (LiteLLMMissingError, ModuleNotFoundError) as error:
            found.skipped[baseline.name] = str(error)
            continue
        found.judgements[baseline.name] = _calibrated(raw, outcomes.scores, folds)
    return found


def _judge(baseline: Baseline, prompts: Prompts, fold: IntArray) -> Judgement:
    if not baseline.trained:
        return baseline.judge(prompts, prompts)
    gain, difficulty = np.empty(len(fold)), np.empty(len(fold))
    for train, test in _sides(prompts.texts, fold):
        found = baseline.judge(prompts.take(train), prompts.take(test))
        gain[test], difficulty[test] = found.gain, found.gain if found.difficulty is None else found.difficulty
    return Judgement(gain, difficulty=difficulty)


def _calibrated(raw: Judgement, scores: FloatArray, folds: IntArray) -> Judgement:
    difficulty = raw.gain if raw.difficulty is None else raw.difficulty
    _, risk = cross_calibrate("sigmoid", difficulty[:, np.newaxis], 1.0 - scores[:, :1], folds)
    return Judgement(raw.gain, risk[:, 0], difficulty)


def _sides(texts: Sequence[str], fold: IntArray) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Yield (train, test) rows; a text that is also in the test fold, under another group, is left out of training."""
    numbers = text_numbers(texts)
    for number in np.unique(fold):
        test = fold == number
        yield ~test & ~np.isin(numbers, numbers[test]), test
