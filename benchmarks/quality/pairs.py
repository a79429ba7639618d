"""Judge one pair of models by cross-validation: all baselines, on random folds and on whole groups left out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from router.tuning.judging.baselines import all_baselines
from router.tuning.judging.cross_validation import Split
from router.tuning.judging.probe_evaluation import PROBE, EvaluationOptions, ScoredRouters, score_routers
from router.tuning.judging.ranking import measure
from router.tuning.judging.slices import measure_slices, slice_labels
from router.tuning.outcomes.datasets import Outcomes

FOLDS = 5


def pair_results(
    outcomes: Outcomes, features: npt.NDArray[np.float32], *, resamples: int, seed: int = 0
) -> dict[str, Any]:
    """Return the rankings on each split (`group` only if the data have groups), and slices on the strictest split."""
    splits: tuple[Split, ...] = ("random", "group") if len(set(outcomes.groups)) > 1 else ("random",)
    found: dict[str, Any] = {
        "n": len(outcomes),
        "n_texts": len(set(outcomes.texts)),
        "models": {model: float(outcomes.scores[:, i].mean()) for i, model in enumerate(outcomes.models)},
        "splits": {},
    }
    for split in splits:
        options = EvaluationOptions(folds=FOLDS, split=split, baselines=all_baselines(), seed=seed)
        scored = score_routers(None, outcomes, features, options)
        found["splits"][split] = _rankings(scored, resamples, seed)
        labels = slice_labels(outcomes.texts, outcomes.groups)
        slices = measure_slices(scored.routers[PROBE], scored.truth, labels, resamples=resamples, seed=seed)
        found["splits"][split]["slices"] = {
            by: {label: asdict(one) for label, one in parts.items()} for by, parts in slices.items()
        }
    return found


def _rankings(scored: ScoredRouters, resamples: int, seed: int) -> dict[str, Any]:
    rankings = measure(scored.routers, scored.truth, reference=PROBE, resamples=resamples, seed=seed)
    named = {name.replace(PROBE, "probe"): ranking.to_dict() for name, ranking in rankings.items()}
    return {"rankings": named, "not_run": dict(scored.skipped)}
