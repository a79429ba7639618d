"""Estimate how many labels a certificate needs, and how a figure grows with labels (its learning curve)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.certificates.bounds import TERNARY, MeanBound, check_delta, excludes, loss_sample
from probes.certificates.human_grades import GradedLosses
from probes.errors import DataError

_POWER = 0.8  # the usual one of study planning
_DRAWS = 100  # resampled data sets per sample size tried: one standard error of the power is 4 points
_TOLERANCE = 1.03  # the answer is bracketed to within 3 %
_RATES = np.linspace(0.05, 2.0, 196)


def labels_needed(
    losses: npt.ArrayLike | GradedLosses,
    limit: float,
    delta: float = 0.05,
    bound: MeanBound = TERNARY,
    *,
    max_labels: int = 100_000,
) -> int | None:
    """Return how many calibration prompts certify a policy with such losses with a probability of 0.8.

    losses: (n,) observed losses of that policy, within the bound's range. Samples of growing size are drawn from them
    with replacement and put to the very test that the certificate uses, so the answer is for that bound. It is within
    3 % of the smallest size at which at least 80 of 100 draws pass. It trusts the observed mean: if the policy was
    luckier than it is, the answer is too small. The answer is None if the observed mean is not below the limit, or if
    `max_labels` are not enough. With `GradedLosses` labels are human grades, while the draws that only the judge scored
    stay as many as they are. Raises DataError as `bounds.excludes`.
    """
    sample = loss_sample(losses, bound)[:1]
    check_delta(delta)
    if (mean := float(sample.mean(axis=1)[0])) >= limit:
        return None
    rng = np.random.default_rng(0)

    def enough(n: int) -> bool:
        return float(excludes(_redraw(sample, n, rng), limit, delta, bound).mean()) >= _POWER

    labels = sample.human[0, sample.graded] if isinstance(sample, GradedLosses) else sample[0]
    few, many = 0, _first_guess(labels, limit - mean, max_labels)
    while not enough(many):
        if many == max_labels:
            return None
        few, many = many, min(2 * many, max_labels)
    while many - few > 1 and many > _TOLERANCE * few:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _redraw(sample: Float64 | GradedLosses, n: int, rng: np.random.Generator) -> Float64 | GradedLosses:
    """Return _DRAWS data sets with n labels, drawn with replacement from one policy's losses."""
    if not isinstance(sample, GradedLosses):
        return rng.choice(sample[0], size=(_DRAWS, n))
    part = sample.graded
    labelled = rng.choice(np.flatnonzero(part), size=(_DRAWS, n))
    rest = sample.judged[0, ~part]
    others = rng.choice(rest, size=(_DRAWS, rest.size)) if rest.size else np.empty((_DRAWS, 0))
    human = np.concatenate([sample.human[0][labelled], np.full(others.shape, np.nan)], axis=1)
    return GradedLosses(human, np.concatenate([sample.judged[0][labelled], others], axis=1))


def _first_guess(labels: Float64, gap: float, max_labels: int) -> int:
    """Return half of what a normal approximation asks for at level .05 and power .8: (1.64 + .84)^2 var / gap^2."""
    normal = 6.2 * float(labels.var()) / gap**2
    return int(min(max(normal / 2, 16), max_labels))


@dataclass(frozen=True, slots=True, eq=False)
class LearningCurve:
    """Holds a power law metric(n) = floor + scale n^-rate, with its bootstrap replicates.

    `floor` is the value that the metric approaches with unlimited labels, if the law goes on; scale is negative for a
    metric that grows. replicates: (b, 3), floor, scale and rate of each bootstrap fit.
    """

    floor: float
    scale: float
    rate: float
    replicates: Float64

    def predict(self, n: npt.ArrayLike) -> Float64:
        """Return the fitted metric at n > 0 labels, in the shape of n."""
        return np.asarray(self.floor + self.scale * np.asarray(n, dtype=float) ** -self.rate)

    def interval(self, n: npt.ArrayLike, level: float = 0.95) -> tuple[Float64, Float64]:
        """Return the lower and upper percentile limits of the curve at each n, assuming that the law goes on."""
        sizes = np.atleast_1d(np.asarray(n, dtype=float))
        floor, scale, rate = (column[:, None] for column in self.replicates.T)
        curves = floor + scale * sizes[None, :] ** -rate
        tail = (1 - level) / 2
        low, high = np.quantile(curves, [tail, 1 - tail], axis=0)
        return low.reshape(np.shape(n)), high.reshape(np.shape(n))


def fit_learning_curve(
    n_labels: npt.ArrayLike, metric: npt.ArrayLike, *, n_bootstrap: int = 500, seed: int = 0
) -> LearningCurve:
    """Fit a power law to a metric measured at several label counts in several independent repetitions.

    n_labels: (k,) different counts, k >= 4. metric: (r, k), one row per repetition (another split), r >= 3. The fit is
    by least squares on the mean curve: the rate is searched on a grid of 0.05 to 2, and for each rate floor and scale
    are solved exactly (variable projection). The interval comes from resampling repetitions. Raises DataError for too
    few counts or repetitions, or numbers that are not finite.
    """
    sizes, values = np.asarray(n_labels, dtype=float), np.asarray(metric, dtype=float)
    if sizes.ndim != 1 or len(set(sizes.tolist())) < 4 or (sizes <= 0).any():
        raise DataError(
            f"n_labels must be at least 4 different positive counts; got {sizes.tolist()}. Measure at more sizes."
        )
    if values.ndim != 2 or values.shape[1] != sizes.size or len(values) < 3:
        raise DataError(
            f"metric must be (repetitions >= 3, {sizes.size} counts); got shape {values.shape}. "
            "Repeat the measurement on other splits."
        )
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise DataError(f"metric must be finite; repetition {row} is not. Drop or repair it.")
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(values), size=(n_bootstrap, len(values)))
    fits = _fit_curves(sizes, np.vstack([values.mean(axis=0)[None], values[picks].mean(axis=1)]))
    floor, scale, rate = (float(v) for v in fits[0])
    return LearningCurve(floor, scale, rate, fits[1:])


def _fit_curves(sizes: Float64, curves: Float64) -> Float64:
    """Return (c, 3) least-squares floor, scale and rate for each of the (c, k) curves."""
    best = np.full(len(curves), np.inf)
    fits = np.empty((len(curves), 3))
    for rate in _RATES:
        basis = sizes**-rate
        centred = basis - basis.mean()
        scale = curves @ centred / (centred @ centred)
        floor = curves.mean(axis=1) - scale * basis.mean()
        error = ((curves - floor[:, None] - scale[:, None] * basis) ** 2).sum(axis=1)
        better = error < best
        best[better] = error[better]
        fits[better] = np.column_stack([floor, scale, np.full(len(curves), rate)])[better]
    return fits
