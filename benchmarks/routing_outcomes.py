"""Load real routing outcomes for studies of certificates: predicted gains and drops of prompts not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.encoders.spec import MINILM_L6
from probes.grouping import group_numbers
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from router.tuning.outcomes.datasets import read_outcomes
from router.tuning.outcomes.feature_cache import FeatureCache

Float64 = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "routellm_mmlu.parquet"
WEAK, STRONG = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
SHARES = np.arange(1, 200) / 200


class OutcomesUnavailableError(Exception):
    """The data or the features are not on this machine; the message says what to do."""


@dataclass(frozen=True)
class RoutingOutcomes:
    """gain, drop: (n,) of prompts the probe never saw. thresholds: (p,) from the fit split, ascending."""

    gain: Float64
    drop: Float64
    thresholds: Float64


def load_mmlu() -> tuple[Float64, Float64]:
    """Load features (n, d) of the default encoder and losses (n, 2), weak and strong, one row per prompt text.

    Encodes on first use, minutes; later runs read the feature cache.
    """
    if not DATA.is_file():
        raise OutcomesUnavailableError("no ../shared/data/routellm_mmlu.parquet beside this checkout")
    outcomes = read_outcomes(DATA).select_models((WEAK, STRONG)).complete_rows()
    numbers = group_numbers(outcomes.texts)
    count = np.bincount(numbers)
    losses = np.column_stack([np.bincount(numbers, 1.0 - scores) / count for scores in outcomes.scores.T])
    features = FeatureCache().features(MINILM_L6, tuple(dict.fromkeys(outcomes.texts)))
    return features.astype(np.float64), losses


def split_and_fit(features: Float64, losses: Float64, n_calibration: int, seed: int) -> RoutingOutcomes:
    """Fit the shipped recipe on all but a random `n_calibration` prompts; return the outcomes of those.

    Ridge on both losses with the penalty by exact leave-one-out, calibration cross-fitted; thresholds are the 0.5,
    1, ... 99.5 % quantiles of the out-of-fold gains of the fit split.
    """
    order = np.random.default_rng(seed).permutation(len(losses))
    fit, held = order[:-n_calibration], order[-n_calibration:]
    solution = fit_ridge(features[fit], losses[fit])
    folds = assign_folds(fit, 5, seed)
    left_out = out_of_fold(features[fit], losses[fit], folds, alpha=solution.alpha)
    maps, risk = cross_calibrate(DEFAULT_KIND, left_out.prediction, losses[fit], folds)
    predicted = solution.probe.predict(features[held])
    weak, strong = (one.predict(predicted[:, column]) for column, one in enumerate(maps))
    drop = losses[held, 0] - losses[held, 1]
    return RoutingOutcomes(weak - strong, drop, np.quantile(risk[:, 0] - risk[:, 1], SHARES))


def policy_drops(gain: npt.ArrayLike, drop_if_weak: npt.ArrayLike, thresholds: npt.ArrayLike) -> Float64:
    """Return (p, n) drops of the threshold policies: `drop_if_weak` if gain < threshold, otherwise exactly 0.

    gain, drop_if_weak: (n,). thresholds: (p,).
    """
    scores, drops = np.asarray(gain, dtype=np.float64), np.asarray(drop_if_weak, dtype=np.float64)
    return np.where(scores[None, :] < np.asarray(thresholds, dtype=np.float64)[:, None], drops[None, :], 0.0)


def synthetic_truth(share: npt.ArrayLike) -> Float64:
    """Return the true drop when the fraction `share` of `synthetic_outcomes` goes to the weak model."""
    s = np.asarray(share, dtype=float)
    return np.asarray(0.01 * s + 0.125 * s**2)


def synthetic_outcomes(n: int, rng: np.random.Generator) -> RoutingOutcomes:
    """Draw prompts whose gain g is uniform on [0, 1], P(drop = 1) = .05 + .25 g and P(drop = -1) = .04."""
    gain = rng.random(n)
    draw = rng.random(n)
    drop = np.where(draw < 0.04, -1.0, np.where(draw < 0.09 + 0.25 * gain, 1.0, 0.0))
    return RoutingOutcomes(gain, drop, SHARES)
