"""Analyse every set of (embedding, loss) pairs: Pearson r, controls, scaling, dimensions, held-out groups."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.losses import LossPairs
from probes.measures.bootstrap import bootstrap
from probes.measures.prediction import pearson_r
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.ridge import RidgeFitter

HELD_OUT = 0.2
SIZES = (300, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000)
SUBSETS = 5
SHUFFLES = 20


def pearson(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Return `pearson_r`, or 0 for a probe that predicts the same loss for every sample."""
    return 0.0 if np.ptp(x) == 0 else pearson_r(x, y)


def figure(x: NDArray[Any], y: NDArray[Any], groups: NDArray[Any] | None = None) -> dict[str, float]:
    """Return Pearson r with its 95 % bootstrap interval; whole groups are resampled if they were held out."""
    found = bootstrap(pearson, x, y, groups=groups)
    return {"r": found.value, "low": found.low, "high": found.high}


def random_split(n: int, seed: int = 42) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows to fit on, and the 20 % that are held out."""
    order = np.random.default_rng(seed).permutation(n)
    held_out = int(n * HELD_OUT)
    return order[held_out:], order[:held_out]


def predict(
    X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], held_out: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Predict the losses of the held-out rows by a ridge on the others, with the penalty by exact leave-one-out."""
    fitter = RidgeFitter(X.shape[1]).update(X[fit], y[fit])
    return confined(fitter.solve().probe.predict(X[held_out])[:, 0], y[fit])


def confined(predicted: NDArray[Any], seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the predictions, kept within the losses seen in fitting.

    A sample far outside the fitting data (a drawing made of punctuation among sentences) can be sent to any number
    by a feature that hardly varied before; its leverage, in the millions, says so. One such row would decide r.
    """
    return np.clip(np.asarray(predicted, dtype=np.float64), seen.min(), seen.max())


def predict_held_out_groups(X: NDArray[Any], y: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the predicted loss of each row, by a fit on the other groups: it has seen no row of the same group."""
    folds = assign_folds(groups, 5)
    predicted = out_of_fold(X, y, folds).prediction[:, 0]
    for fold in range(5):
        rows = folds == fold
        predicted[rows] = confined(predicted[rows], y[~rows])
    return predicted


def analyse(
    pairs: LossPairs, groups: NDArray[np.int64], compressible: Sequence[bytes] | None
) -> tuple[dict[str, Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Return every figure of one row, and (actual, predicted) losses of the held-out samples for the plot."""
    X, y = pairs.embeddings, pairs.losses
    fit, out = random_split(len(y))
    predicted = predict(X, y, fit, out)
    norms = np.linalg.norm(X.astype(np.float64), axis=1)
    result: dict[str, Any] = {
        "n": len(y),
        "d": X.shape[1],
        "n_held_out": len(out),
        "loss_mean": float(y.mean()),
        "loss_sd": float(y.std()),
        "probe": figure(predicted, y[out]),
        "l2_norm": figure(norms[out], y[out]),
        "shuffled": shuffled(X, y, fit, out),
        "held_out_groups": {
            "n_groups": len(np.unique(groups)),
            **figure(predict_held_out_groups(X, y, groups), y, groups),
        },
        "scaling": scaling(X, y, fit, out),
        "dimensions": dimensions(X, y, fit, out),
    }
    if compressible is not None:
        lengths = np.array([len(gzip.compress(sample, 9)) for sample in compressible], dtype=np.float64)
        result["gzip_length"] = figure(lengths[out], y[out])
        both = np.column_stack([X, lengths])
        result["probe_and_gzip_length"] = figure(predict(both, y, fit, out), y[out])
    return result, (y[out], predicted)


def shuffled(X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]) -> dict[str, float]:
    """Fit the probe to shuffled losses; return the mean r of 20 shuffles and the range of 95 % of them."""
    rng = np.random.default_rng(7)
    Y = np.column_stack([rng.permutation(y) for _ in range(SHUFFLES)])
    probe = RidgeFitter(X.shape[1], SHUFFLES).update(X[fit], Y[fit]).solve(per_target=True).probe
    predicted = np.asarray(probe.predict(X[out]), dtype=np.float64)
    r = [pearson(predicted[:, k], Y[out, k]) for k in range(SHUFFLES)]
    low, high = np.quantile(r, [0.025, 0.975])
    return {"r": float(np.mean(r)), "low": float(low), "high": float(high)}


def scaling(X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]) -> list[dict[str, float]]:
    """Return r by the number of fitting samples, always on the same held-out rows."""
    sizes = [size for size in SIZES if size < len(fit)] + [len(fit)]
    return [{"n": size, "r": pearson(predict(X, y, fit[:size], out), y[out])} for size in sizes]


def dimensions(
    X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]
) -> list[dict[str, float]]:
    """Return r from the first k dimensions, and from k random ones (mean and deviation over five subsets)."""
    rng = np.random.default_rng(11)
    rows = []
    d = X.shape[1]
    # Ten thousand rows are enough to compare by, and keep the curve cheap.
    fit = fit[:10_000]
    for size in sorted({max(1, d // part) for part in (16, 8, 4, 2)} | {d}):
        subsets = [rng.permutation(d)[:size] for _ in range(SUBSETS if size < d else 1)]
        chance = [pearson(predict(X[:, subset], y, fit, out), y[out]) for subset in subsets]
        rows.append(
            {
                "k": size,
                "prefix": pearson(predict(X[:, :size], y, fit, out), y[out]),
                "random_mean": float(np.mean(chance)),
                "random_sd": float(np.std(chance)),
            }
        )
    return rows
