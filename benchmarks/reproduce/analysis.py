"""What is asked of every (embedding, loss) set: Pearson r with interval, controls, scaling, dimensions,
held-out groups."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.losses import LossPairs
from probes.ridge import RidgeFitter

HELD_OUT = 0.2
SIZES = (300, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000)
RESAMPLES = 1_000
SUBSETS = 5
SHUFFLES = 20


@dataclass(frozen=True)
class Correlation:
    """Pearson r with a 95 % percentile-bootstrap interval over the held-out samples."""

    r: float
    low: float
    high: float

    @classmethod
    def of(cls, x: NDArray[Any], y: NDArray[Any], seed: int = 0) -> Correlation:
        """Resample the n pairs (x, y) 1,000 times."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        rng = np.random.default_rng(seed)
        draws = [pearson(x[rows], y[rows]) for rows in rng.integers(len(x), size=(RESAMPLES, len(x)))]
        low, high = np.quantile(draws, [0.025, 0.975])
        return cls(pearson(x, y), float(low), float(high))


def pearson(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Pearson correlation of two vectors; 0 where one of them is constant."""
    a, b = x - x.mean(), y - y.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def random_split(n: int, seed: int = 42) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to fit on and the 20 % held out."""
    order = np.random.default_rng(seed).permutation(n)
    held_out = int(n * HELD_OUT)
    return order[held_out:], order[:held_out]


def group_split(groups: NDArray[np.int64], seed: int = 42) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `random_split`, but whole groups are held out until they make up about 20 % of the rows."""
    order = np.random.default_rng(seed).permutation(groups.max() + 1)
    share = np.cumsum(np.bincount(groups, minlength=groups.max() + 1)[order]) / len(groups)
    # The group that crosses the line is held out too, so that there always is one.
    out = order[: int(np.searchsorted(share, HELD_OUT)) + 1]
    held_out = np.isin(groups, out)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def predict(
    X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], held_out: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Losses of the held-out rows from a ridge on the others; the penalty by exact leave-one-out on those."""
    fitter = RidgeFitter(X.shape[1]).update(X[fit], y[fit])
    return np.asarray(fitter.solve().probe.predict(X[held_out])[:, 0], dtype=np.float64)


def analyse(
    pairs: LossPairs, groups: NDArray[np.int64], compressible: Sequence[bytes] | None
) -> tuple[dict[str, Any], tuple[NDArray[Any], NDArray[Any]]]:
    """Every figure of one row, and (actual, predicted) losses of the held-out samples for the figure."""
    X, y = pairs.embeddings, pairs.losses
    fit, out = random_split(len(y))
    predicted = predict(X, y, fit, out)
    norms = np.linalg.norm(X.astype(np.float64), axis=1)
    group_fit, group_out = group_split(groups)
    result: dict[str, Any] = {
        "n": len(y),
        "d": X.shape[1],
        "n_held_out": len(out),
        "loss_mean": float(y.mean()),
        "loss_sd": float(y.std()),
        "probe": vars(Correlation.of(predicted, y[out])),
        "l2_norm": vars(Correlation.of(norms[out], y[out])),
        "shuffled": vars(shuffled(X, y, fit, out)),
        "held_out_groups": {
            "n_groups": len(np.unique(groups)),
            "n_held_out": len(group_out),
            **vars(Correlation.of(predict(X, y, group_fit, group_out), y[group_out])),
        },
        "scaling": scaling(X, y, fit, out),
        "dimensions": dimensions(X, y, fit, out),
    }
    if compressible is not None:
        lengths = np.array([len(gzip.compress(sample, 9)) for sample in compressible], dtype=np.float64)
        result["gzip_length"] = vars(Correlation.of(lengths[out], y[out]))
        both = np.column_stack([X, lengths])
        result["probe_and_gzip_length"] = vars(Correlation.of(predict(both, y, fit, out), y[out]))
    return result, (y[out], predicted)


def shuffled(X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]) -> Correlation:
    """The same probe on losses that belong to other samples: mean r of 20 shuffles and the range of 95 % of
    them."""
    rng = np.random.default_rng(7)
    Y = np.column_stack([rng.permutation(y) for _ in range(SHUFFLES)])
    probe = RidgeFitter(X.shape[1], SHUFFLES).update(X[fit], Y[fit]).solve(per_target=True).probe
    predicted = np.asarray(probe.predict(X[out]), dtype=np.float64)
    r = [pearson(predicted[:, k], Y[out, k]) for k in range(SHUFFLES)]
    low, high = np.quantile(r, [0.025, 0.975])
    return Correlation(float(np.mean(r)), float(low), float(high))


def scaling(
    X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]
) -> list[dict[str, float]]:
    """r by the number of fitting samples, always on the same held-out rows."""
    sizes = [size for size in SIZES if size < len(fit)] + [len(fit)]
    return [{"n": size, "r": pearson(predict(X, y, fit[:size], out), y[out])} for size in sizes]


def dimensions(
    X: NDArray[Any], y: NDArray[Any], fit: NDArray[np.int64], out: NDArray[np.int64]
) -> list[dict[str, float]]:
    """r from the first k dimensions against k random ones (mean and standard deviation over five subsets)."""
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
