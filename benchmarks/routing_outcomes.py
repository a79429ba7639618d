"""Real routing outcomes for certificate studies: predicted gains and drops of prompts never fitted on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "routellm_mmlu.parquet"
WEAK, STRONG = "Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
SHARES = np.arange(1, 200) / 200
FEATURES_VARIABLE = "ELLE_MMLU_FEATURES"


class OutcomesUnavailableError(Exception):
    """The data or the features are not on this machine; the message says what to do."""


@dataclass(frozen=True)
class RoutingOutcomes:
    """gain, drop: (n,) of prompts the probe never saw. thresholds: (p,) from the fit split, ascending."""

    gain: Float64
    drop: Float64
    thresholds: Float64


def load_mmlu() -> tuple[Float64, Float64]:
    """Return features (n, d) and the drop strong minus weak (n,), one row per prompt text in file order.

    The features come from the npz file named by ELLE_MMLU_FEATURES, key `features`: mean-pooled layers 0, 3
    and 6 of MiniLM side by side, rows in order of first appearance of the prompt text in the parquet file.
    """
    if not DATA.is_file():
        raise OutcomesUnavailableError("no ../shared/data/routellm_mmlu.parquet beside this checkout")
    path = os.environ.get(FEATURES_VARIABLE)
    if not path:
        raise OutcomesUnavailableError(f"set {FEATURES_VARIABLE} to an npz file of encoded MMLU prompts")
    import pyarrow.parquet as pq

    table = pq.read_table(DATA, columns=["prompt", "model", "score"]).to_pydict()
    place = {prompt: i for i, prompt in enumerate(dict.fromkeys(table["prompt"]))}
    total, count = np.zeros((len(place), 2)), np.zeros((len(place), 2))
    for prompt, model, score in zip(table["prompt"], table["model"], table["score"], strict=True):
        cell = place[prompt], (WEAK, STRONG).index(model)
        total[cell] += score
        count[cell] += 1
    scores = total / count
    features = np.load(path, allow_pickle=False)["features"].astype(np.float64)
    if len(features) != len(place):
        raise OutcomesUnavailableError(f"{FEATURES_VARIABLE} has {len(features)} rows for {len(place)} prompts")
    return features, scores[:, 1] - scores[:, 0]


def split_and_fit(features: Float64, drop: Float64, n_calibration: int, seed: int) -> RoutingOutcomes:
    """Fit ridge on all but a random `n_calibration` prompts; return the outcomes of those.

    Penalty by exact leave-one-out; thresholds are the 0.5, 1, ... 99.5 % quantiles of the leave-one-out gains
    of the fit split.
    """
    order = np.random.default_rng(seed).permutation(len(drop))
    fit, held = order[:-n_calibration], order[-n_calibration:]
    mean, spread = features[fit].mean(axis=0), features[fit].std(axis=0)
    z, y = (features[fit] - mean) / spread, drop[fit] - drop[fit].mean()
    values, vectors = np.linalg.eigh(z.T @ z)
    scores = z @ vectors
    moments = scores.T @ y
    best_error, best_alpha, best_gain = np.inf, 0.0, y
    for alpha in np.geomspace(3e3, 3e5, 9):
        leverage = (scores**2) @ (1 / (values + alpha)) + 1 / len(fit)
        residual = (y - scores @ (moments / (values + alpha))) / (1 - leverage)
        if (error := float(residual @ residual)) < best_error:
            best_error, best_alpha, best_gain = error, alpha, drop[fit] - residual
    weights = vectors @ (moments / (values + best_alpha))
    gain = (features[held] - mean) / spread @ weights + drop[fit].mean()
    return RoutingOutcomes(gain, drop[held], np.quantile(best_gain, SHARES))


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
