"""From one task to another: with none of the new task's labels, and with a few, alone and on top of the old ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from probes.crossfit import assign_folds
from probes.ridge import DEFAULT_ALPHAS, RidgeFitter
from probes.routing_metrics import apgr
from router.tuning.datasets import Outcomes
from router.tuning.ranking import Judgement, Truth, measure, text_numbers
from router.tuning.recipe import fit_maps

FloatArray = npt.NDArray[np.float64]

#: Weights tried for the old task's statistics, relative to one label of the new task; 0 is the new labels alone.
WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def transfer_results(
    old: Outcomes,
    old_features: npt.NDArray[np.float32],
    new: Outcomes,
    new_features: npt.NDArray[np.float32],
    *,
    n_labels: int,
    draws: int,
    resamples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """APGR on the new task: old labels only; `n_labels` new ones alone; both; over `draws` draws of the new labels.

    Both data sets hold the same two models, weak and strong. Each draw is judged on the new task's other texts.
    """
    maps = fit_maps(old_features, 1.0 - old.scores, old.texts, seed)
    risk = maps.risk_of(new_features)
    truth = Truth(new.scores, text_numbers(new.texts))
    zero = measure({"": Judgement(risk[:, 0] - risk[:, 1], risk[:, 0])}, truth, resamples=resamples, seed=seed)[""]
    statistics = RidgeFitter(old_features.shape[1]).update(old_features, old.scores[:, 1] - old.scores[:, 0])
    rows = [
        _draw(statistics, new, new_features, risk[:, 0] - risk[:, 1], n_labels, seed + 1 + number)
        for number in range(draws)
    ]
    return {
        "old": [source.name for source in old.sources],
        "new": [source.name for source in new.sources],
        "n_old": len(old),
        "n_new": len(new),
        "no_new_labels": {"apgr": asdict(zero.apgr), "ece": zero.value("ece"), "auroc": zero.value("auroc")},
        "n_labels": n_labels,
        "draws": draws,
        "with_labels": {name: _over_draws([row[name] for row in rows]) for name in ("old", "new", "both")},
        "both_ahead_of": {name: _over_draws([row["both"] - row[name] for row in rows]) for name in ("old", "new")},
        "weight_of_old_labels": [row["weight"] for row in rows],
    }


def _draw(
    old: RidgeFitter, new: Outcomes, features: npt.NDArray[np.float32], old_gain: FloatArray, n_labels: int, seed: int
) -> dict[str, float]:
    # As many folds as make one of them about n_labels; no text is both a label and a test.
    fold = assign_folds(text_numbers(new.texts), max(2, round(len(new) / n_labels)), seed)
    labelled = fold == 0
    weak, strong = new.scores[~labelled].T
    few = RidgeFitter(features.shape[1]).update(features[labelled], (new.scores[:, 1] - new.scores[:, 0])[labelled])
    X, y = features[labelled], (new.scores[:, 1] - new.scores[:, 0])[labelled, np.newaxis]
    fits = {weight: _merged(old, few, weight, X, y) for weight in WEIGHTS}
    best = min(fits, key=lambda weight: fits[weight][0])
    gains = {
        name: fits[weight][1].predict(features[~labelled])[:, 0] for name, weight in (("new", 0.0), ("both", best))
    }
    gains["old"] = old_gain[~labelled]
    return {name: apgr(gain.astype(np.float64), weak, strong) for name, gain in gains.items()} | {"weight": best}


def _merged(old: RidgeFitter, few: RidgeFitter, weight: float, X: npt.NDArray[np.float32], y: FloatArray) -> Any:
    """(leave-one-out error on the new labels, linear probe) with the old statistics at this weight."""
    fitter = few if weight == 0.0 else old.copy().decay(weight) + few
    errors = fitter.spectrum(True).leave_one_out(DEFAULT_ALPHAS, [(X, y, None)])[:, 0]
    place = int(np.argmin(errors))
    return float(errors[place]), fitter.solve(DEFAULT_ALPHAS[place : place + 1]).probe


def _over_draws(values: list[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "low": float(np.min(values)), "high": float(np.max(values))}
