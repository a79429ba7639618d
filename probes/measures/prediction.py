"""Measure predictions, each by a stated formula: correlation, ranking (AUROC) and calibration (Brier, ECE)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, unit_interval, vector
from probes.errors import DataError
from probes.measures.bootstrap import Interval
from probes.measures.sorted_rows import SortedRows, share_of_pairs


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Holds one bin of a reliability curve: n rows, mean prediction, mean loss, and the latter's Wilson interval."""

    n: int
    predicted: float
    observed: float
    low: float
    high: float


def pearson_r(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return the Pearson correlation sum (a - mean a)(b - mean b) / (n sd(a) sd(b)), in [-1, 1].

    Raises DataError for fewer than two rows or a constant input, for which it is not defined. `fisher_interval` gives
    an interval that is good for normal data, `bootstrap(pearson_r, a, b)` one for any data.
    """
    x, y = _pair("a", a, "b", b)
    x, y = x - x.mean(), y - y.mean()
    norm = math.sqrt(float(x @ x)) * math.sqrt(float(y @ y))
    if x.shape[0] < 2 or norm == 0.0:
        raise DataError(
            f"a correlation needs at least 2 rows and two inputs that vary; got {x.shape[0]} rows, standard "
            f"deviations {x.std():g} and {y.std():g}."
        )
    return float(np.clip(x @ y / norm, -1.0, 1.0))


def fisher_interval(r: float, n: int, confidence: float = 0.95) -> Interval:
    """Return the interval of a correlation by Fisher's transform, tanh(artanh r -+ z / sqrt(n - 3)) (Fisher 1921)."""
    if n < 4 or not -1.0 <= r <= 1.0:
        raise DataError(f"Fisher's interval needs n >= 4 and r in [-1, 1]; got n = {n}, r = {r}.")
    if abs(r) == 1.0:
        return Interval(r, r, r, confidence)
    half = _normal_quantile(confidence) / math.sqrt(n - 3)
    return Interval(r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half), confidence)


def auroc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, P(score of a 1 > score of a 0) + P(equal) / 2 (Mann and Whitney), in [0, 1].

    labels: 0 or 1, both present. Anything else raises DataError.
    """
    s, y = _pair("scores", scores, "labels", labels)
    if not np.isin(y, (0.0, 1.0)).all() or y.min() == y.max():
        raise DataError("labels must be 0 or 1 with both present; threshold soft labels first.")
    rows = SortedRows(s)
    return share_of_pairs(rows, y[rows.order], np.ones(len(s)))


def brier(predicted: npt.ArrayLike, losses: npt.ArrayLike) -> float:
    """Return the Brier score, mean (p - y)^2, in [0, 1] (Brier 1950)."""
    p, y = _probabilities(predicted, losses)
    return float(np.mean((p - y) ** 2))


def ece(predicted: npt.ArrayLike, losses: npt.ArrayLike, n_bins: int = 15, debias: bool = True) -> float:
    """Return the expected calibration error, sum_b n_b/n |mean p - mean y| over bins of equal mass, debiased, >= 0.

    Even a perfect map shows |difference| > 0 in a finite bin. With d_b the difference and s_b the standard error of
    mean y in bin b, the bias of the plug-in estimate is taken to be E|N(d_b, s_b^2)| - |d_b| and subtracted. This is
    the estimator of Kumar, Liang and Ma 2019, section 5, with their normal draws integrated in closed form:
    E|N(d, s^2)| = s sqrt(2/pi) exp(-d^2 / 2s^2) + d erf(d / s sqrt 2). `debias=False` gives the plug-in estimate, which
    is larger by about 0.8 s_b. Equal predictions are always in one bin. losses may be soft, in [0, 1].
    """
    p, y = _probabilities(predicted, losses)
    order, begins = _equal_mass_bins(p, n_bins)
    count = np.diff(begins, append=len(p))
    y = y[order]
    mean = np.add.reduceat(y, begins) / count
    gaps = np.abs(np.add.reduceat(p[order], begins) / count - mean)
    spread = np.sqrt(np.add.reduceat((y - np.repeat(mean, count)) ** 2, begins) / count)
    errors = spread / np.sqrt(np.maximum(count - 1, 1))
    total = 0.0
    for n, gap, error in zip(count.tolist(), gaps.tolist(), errors.tolist(), strict=True):
        excess = _folded_normal_mean(gap, error) - gap if debias else 0.0
        total += n / len(p) * (gap - excess)
    return max(total, 0.0)


def reliability_curve(
    predicted: npt.ArrayLike, losses: npt.ArrayLike, n_bins: int = 10, confidence: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """Return mean loss and mean prediction in bins of equal mass, each with its Wilson interval (Wilson 1927).

    centre = (y + z^2/2n) / (1 + z^2/n), half width = z sqrt(y(1 - y)/n + z^2/4n^2) / (1 + z^2/n). For soft
    losses, whose variance is at most y(1 - y), the interval is conservative.
    """
    p, y = _probabilities(predicted, losses)
    z = _normal_quantile(confidence)
    curve = []
    order, begins = _equal_mass_bins(p, n_bins)
    for rows in np.split(order, begins[1:]):
        n, mean = len(rows), float(y[rows].mean())
        centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
        half = z * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        # A mean of 0 or 1 is an end of its interval; rounding must not move that end.
        low, high = max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
        curve.append(ReliabilityBin(n, float(p[rows].mean()), mean, low, high))
    return tuple(curve)


def _equal_mass_bins(p: Float64, n_bins: int) -> tuple[Array, Array]:
    """Return the rows sorted by prediction, (n,), and the place in this order at which each bin begins.

    The order is cut at i n/n_bins for i = 1, 2, ..., and each cut is moved past equal predictions.
    """
    if n_bins < 1:
        raise DataError(f"n_bins must be >= 1; got {n_bins}.")
    order = np.argsort(p, kind="stable")
    ascending = p[order]
    ends = np.rint(np.arange(1, n_bins + 1) * len(p) / n_bins).astype(np.int64)
    cuts = np.searchsorted(ascending, ascending[np.maximum(ends, 1) - 1], side="right")
    return order, np.concatenate([[0], np.unique(cuts)[:-1]])


def _folded_normal_mean(mean: float, sd: float) -> float:
    if sd == 0.0:
        return abs(mean)
    ratio = mean / sd
    return sd * math.sqrt(2.0 / math.pi) * math.exp(-ratio * ratio / 2.0) + mean * math.erf(ratio / math.sqrt(2.0))


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise DataError(f"confidence must lie in (0, 1); got {confidence}.")
    return NormalDist().inv_cdf(0.5 + confidence / 2.0)


def _pair(name_a: str, a: npt.ArrayLike, name_b: str, b: npt.ArrayLike) -> tuple[Float64, Float64]:
    first = vector(name_a, a)
    second = vector(name_b, b, first.shape[0])
    if first.shape[0] == 0:
        raise DataError(f"{name_a} must hold at least one row; got none.")
    return first, second


def _probabilities(predicted: npt.ArrayLike, losses: npt.ArrayLike) -> tuple[Float64, Float64]:
    p = unit_interval("predicted", predicted)
    y = unit_interval("losses", losses, p.shape[0])
    if p.shape[0] == 0:
        raise DataError("predicted must hold at least one row; got none.")
    return p, y
