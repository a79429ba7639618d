"""Calibration maps: a raw predicted loss in, a probability in [0, 1] out, never decreasing.

Each map is a frozen value made by `Kind.fit(scores, losses)` on scores that the ridge predicted for rows
it did not see. Serving needs numpy only; `state()` is plain arrays. Out of range every map continues as
its class says. Losses may be soft (anything in [0, 1]); scores are any finite numbers, larger meaning a
larger loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from probes._checks import Array, Float64, matrix, unit_interval, vector, weights
from probes.calibration.pava import pool, pooled_with_one_more
from probes.errors import DataError
from probes.regression.crossfit import fold_numbers


class Calibrator(Protocol):
    """What every calibration map can do; `kind` is its name in an artifact."""

    kind: ClassVar[str]

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Return the map fitted on scores (n,), losses (n,) in [0, 1] and weights (n,) >= 0."""
        ...

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """Return the probability for each score, of the scores' shape."""
        ...

    def predict_one(self, score: float) -> float:
        """Return what `predict` says of one score, to the last bit."""
        ...

    def state(self) -> dict[str, Float64]:
        """Return the map as named float64 arrays, from which `from_state` makes it again."""
        ...


class _State(ABC):
    """Checks and storage that the maps share: their dataclass fields are float64 arrays."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            array = np.array(getattr(self, item.name), dtype=np.float64, copy=True)
            if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
                raise DataError(
                    f"{item.name} of a {self.kind} calibration must be a vector of finite numbers; got shape "
                    f"{array.shape}, finite: {bool(np.isfinite(array).all())}. Fit the map again."
                )
            array.flags.writeable = False
            object.__setattr__(self, item.name, array)
        self._check()

    @abstractmethod
    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""

    def predict_one(self, score: float) -> float:
        """See `Calibrator.predict_one`."""
        return float(self.predict(score))

    @abstractmethod
    def _check(self) -> None:
        """Raise DataError when the fields contradict each other."""

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise DataError(f"a calibration of kind {self.kind} must have {what}. Fit the map again.")

    def state(self) -> dict[str, Float64]:
        """Return the map as named float64 arrays, from which `from_state` makes it again."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]


#: Scores closer than this count as equal: dividing by the step between them would overflow.
_LEAST_STEP = 1e-200


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic(_State):
    """Centred isotonic regression (Oron and Flournoy 2017): pool adjacent violators, join the pools' centres.

    Between the centres of its pools the map is linear, so that it is strictly increasing where the data
    allow it and keeps the ranking that a step function would tie. Beyond the first and the last centre it
    goes on in a straight line to 0 and to 1, reached one whole range of scores further out, and is
    constant from there on.

    knots: (k,) ascending scores; values: (k,) non-decreasing probabilities.
    """

    kind: ClassVar[str] = "isotonic"
    knots: Float64
    values: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Isotonic:
        """See `Calibrator.fit`."""
        s, y, w = _grouped(*_rows(scores, losses, sample_weight))
        starts = pool(y, w)
        mass = np.add.reduceat(w, starts)
        centres = np.add.reduceat(w * s, starts) / mass
        # Rounding may turn two neighbours around by their last bit.
        values = np.clip(np.maximum.accumulate(np.add.reduceat(w * y, starts) / mass), 0.0, 1.0)
        ascending = np.append(True, np.diff(np.maximum.accumulate(centres)) > _LEAST_STEP)
        centres, values = centres[ascending], values[ascending]
        reach = max(s[-1] - s[0], 1e-6 * np.abs(s).max())
        reach = reach if reach > _LEAST_STEP else 1.0
        return cls(
            np.concatenate([[centres[0] - reach], centres, [centres[-1] + reach]]),
            np.concatenate([[0.0], values, [1.0]]),
        )

    def _check(self) -> None:
        self._require(self.knots.shape == self.values.shape, "as many knots as values")
        self._require(bool((np.diff(self.knots) > 0).all()), "strictly ascending knots")
        self._require(bool((np.diff(self.values) >= 0).all()), "non-decreasing values")
        self._require(self.values[0] >= 0.0 and self.values[-1] <= 1.0, "values in [0, 1]")

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        return np.asarray(np.interp(_finite(scores), self.knots, self.values))


@dataclass(frozen=True, slots=True, eq=False)
class Sigmoid(_State):
    """Platt scaling (Platt 1999; Lin, Lin and Weng 2007): 1 / (1 + exp(-(slope (score - centre) + offset))).

    Platt's prior correction is kept: a loss of 1 counts as (N1 + 1) / (N1 + 2) and a loss of 0 as 1 / (N0
    + 2), a soft loss in between, so that separable data give finite coefficients. The slope is never
    negative: scores that rank backwards get the base rate. Out of range the same curve goes on, strictly
    within (0, 1) up to rounding.

    parameters: (3,) slope, centre, offset.
    """

    kind: ClassVar[str] = "sigmoid"
    parameters: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Sigmoid:
        """See `Calibrator.fit`."""
        s, y, w = _rows(scores, losses, sample_weight)
        centre, scale = _location(s, w)
        beta = _increasing_logistic(((s - centre) / scale)[:, None], _platt_targets(y, w), w)
        return cls(np.array([beta[0] / scale, centre, beta[1]]))

    def _check(self) -> None:
        self._require(self.parameters.shape == (3,), "three parameters")
        self._require(bool(self.parameters[0] >= 0), "a slope >= 0")

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        slope, centre, offset = self.parameters
        return _sigmoid(slope * (_finite(scores) - centre) + offset)


@dataclass(frozen=True, slots=True, eq=False)
class Beta(_State):
    """Beta calibration (Kull, Silva Filho and Flach 2017): logit p = a ln u - b ln(1 - u) + c, a, b >= 0.

    u is the score brought into (0, 1): the range seen in fitting, widened by a quarter of itself on each
    side, since a ridge's predictions are not confined to [0, 1]. Out of range the map is constant, at its
    value at the widened ends. Platt's prior correction as in `Sigmoid`.

    parameters: (5,) low, high, a, b, c.
    """

    kind: ClassVar[str] = "beta"
    parameters: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Beta:
        """See `Calibrator.fit`."""
        s, y, w = _rows(scores, losses, sample_weight)
        margin = 0.25 * float(np.ptp(s)) if np.ptp(s) > _LEAST_STEP else 1.0
        low, high = float(s.min()) - margin, float(s.max()) + margin
        a, b, c = _increasing_logistic(_beta_features(s, low, high), _platt_targets(y, w), w)
        return cls(np.array([low, high, a, b, c]))

    def moved(self, shift: float, scores: npt.ArrayLike, losses: npt.ArrayLike) -> Beta:
        """Return this map for another task: its shape, `shift` further right, at the new task's mean loss.

        Only the offset c is fitted, so that the mean probability of `scores` (n,) is the mean of `losses` (n,), two
        made-up rows of loss 0 and 1 added. Errors as `fit`.
        """
        s, y, w = _rows(scores, losses, None)
        low, high, a, b, c = self.parameters
        shape = _beta_features(s, low + shift, high + shift) @ np.array([a, b])
        mean = (float(w @ y) + 1.0) / (float(w.sum()) + 2.0)
        below, above = -shape.max() + np.log(mean / (1 - mean)), -shape.min() + np.log(mean / (1 - mean))
        for _ in range(60):
            c = (below + above) / 2.0
            below, above = (c, above) if np.average(_sigmoid(shape + c), weights=w) < mean else (below, c)
        return Beta(np.array([low + shift, high + shift, a, b, c]))

    def _check(self) -> None:
        self._require(self.parameters.shape == (5,), "five parameters")
        self._require(bool(self.parameters[0] < self.parameters[1]), "low < high")
        self._require(bool((self.parameters[2:4] >= 0).all()), "a >= 0 and b >= 0")

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        low, high, a, b, c = self.parameters.tolist()
        u = _unit(_finite(scores), low, high)
        return _sigmoid(a * np.log(u) + b * -np.log1p(-u) + c)

    def predict_one(self, score: float) -> float:
        """See `Calibrator.predict_one`: the same steps without arrays, a sixth of the time on the way of a request."""
        if not math.isfinite(score):
            return float(self.predict(score))
        low, high, a, b, c = self.parameters.tolist()
        u = min(max((score - low) / (high - low), 1e-6), 1.0 - 1e-6)
        # numpy's, because the last bits of the standard library's are others.
        logit = float(a * np.log(u) + b * -np.log1p(-u) + c)
        decay = float(np.exp(-abs(logit)))
        return (1.0 if logit >= 0 else decay) / (1.0 + decay)


@dataclass(frozen=True, slots=True, eq=False)
class VennAbers(_State):
    """Inductive Venn-Abers prediction (Vovk, Petej and Fedorova 2015): a probability and an interval.

    For a score, p0 and p1 are what isotonic regression on the calibration rows says of it when it is
    added with loss 0 and with loss 1. For 0/1 losses and exchangeable rows one of the two is perfectly
    calibrated, whatever the distribution; `predict` returns p1 / (1 - p0 + p1), which minimises the worst
    log loss. For soft losses p0 <= p1 remain a bracket without that theorem. Both are tabulated, so that
    serving is one binary search. The maps are steps and tie many scores: use them for intervals, not to
    rank. Out of range the first and last steps go on.

    thresholds: (k,) ascending. below: (2, k + 1) flattened, p0 and p1 strictly between thresholds; at: (2, k)
    flattened, on them.
    """

    kind: ClassVar[str] = "venn_abers"
    thresholds: Float64
    below: Float64
    at: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> VennAbers:
        """See `Calibrator.fit`."""
        s, y, w = _grouped(*_rows(scores, losses, sample_weight))
        tables = [pooled_with_one_more(y, w, label) for label in (0.0, 1.0)]
        below = np.clip(np.stack([between for between, _ in tables]), 0.0, 1.0)
        at = np.clip(np.stack([on for _, on in tables]), 0.0, 1.0)
        # A threshold matters only where something changes at it.
        matters = ((below[:, :-1] != at) | (at != below[:, 1:])).any(axis=0)
        matters[0] = True
        edges = np.append(True, matters)
        return cls(s[matters], below[:, edges].ravel(), at[:, matters].ravel())

    def _check(self) -> None:
        k = self.thresholds.shape[0]
        self._require(bool((np.diff(self.thresholds) > 0).all()), "strictly ascending thresholds")
        self._require(self.below.shape == (2 * k + 2,) and self.at.shape == (2 * k,), "tables of matching size")
        values = np.concatenate([self.below, self.at])
        self._require(bool(values.min() >= 0.0 and values.max() <= 1.0), "probabilities in [0, 1]")

    def interval(self, scores: npt.ArrayLike) -> tuple[Float64, Float64]:
        """Return (p0, p1), the lower and upper probability for each score, each of the scores' shape."""
        s = _finite(scores)
        k = self.thresholds.shape[0]
        left = np.searchsorted(self.thresholds, s, side="left")
        on = np.minimum(left, k - 1)
        hit = self.thresholds[on] == s
        below, at = self.below.reshape(2, -1), self.at.reshape(2, -1)
        low, high = (np.where(hit, at[label][on], below[label][left]) for label in (0, 1))
        return np.asarray(np.minimum(low, high)), np.asarray(high)

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        low, high = self.interval(scores)
        return np.asarray(high / (1.0 - low + high))


DEFAULT_KIND = "beta"
"""Smooth, so it neither ties nor overfits; on MMLU it ranked RouteLLM's pair best of the four."""

KINDS: Mapping[str, type[Isotonic] | type[Sigmoid] | type[Beta] | type[VennAbers]] = {
    map_type.kind: map_type for map_type in (Isotonic, Sigmoid, Beta, VennAbers)
}
"""Every calibration map by the name it has in an artifact."""


def kind_named(kind: str) -> type[Isotonic] | type[Sigmoid] | type[Beta] | type[VennAbers]:
    """Return the class of this name, or raise DataError listing the names."""
    if kind not in KINDS:
        raise DataError(f"a calibration must be one of {', '.join(KINDS)}; got {kind!r}.")
    return KINDS[kind]


def state_names(kind: str) -> frozenset[str]:
    """Return the names of the arrays that `state()` of this kind holds."""
    return frozenset(item.name for item in fields(kind_named(kind)))


def from_state(kind: str, state: Mapping[str, Array]) -> Calibrator:
    """Return the map that `state()` described; DataError for an unknown kind or contradicting arrays."""
    names = state_names(kind)
    if set(state) != names:
        raise DataError(f"a {kind} calibration must hold exactly {sorted(names)}; got {sorted(state)}.")
    return kind_named(kind)(**state)


def fit_calibrators(
    kind: str, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
) -> tuple[Calibrator, ...]:
    """Return one map per column of scores and losses, both (n, m); NaN in losses is a missing pair."""
    S, Y = matrix("scores", scores), matrix("losses", losses)
    if S.shape != Y.shape:
        raise DataError(f"scores and losses must have the same shape; got {S.shape} and {Y.shape}.")
    w = weights(sample_weight, S.shape[0])
    maps: list[Calibrator] = []
    for column in range(S.shape[1]):
        rows = ~np.isnan(Y[:, column])
        maps.append(kind_named(kind).fit(S[rows, column], Y[rows, column], None if w is None else w[rows]))
    return tuple(maps)


def cross_calibrate(
    kind: str,
    scores: npt.ArrayLike,
    losses: npt.ArrayLike,
    fold: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None = None,
) -> tuple[tuple[Calibrator, ...], Float64]:
    """Calibrate out-of-fold scores (n, m) so that no row calibrates itself.

    Returns the maps to serve, fitted on all rows, and the calibrated scores (n, m) where each row goes
    through the maps of the other folds only: those are the ones to measure calibration on, and to tune
    thresholds with.
    """
    S, Y = matrix("scores", scores), matrix("losses", losses)
    folds = fold_numbers(fold, S.shape[0])
    w = weights(sample_weight, S.shape[0])
    calibrated = np.empty(S.shape)
    for number in np.unique(folds):
        inside = folds == number
        maps = fit_calibrators(kind, S[~inside], Y[~inside], None if w is None else w[~inside])
        for column, one in enumerate(maps):
            calibrated[inside, column] = one.predict(S[inside, column])
    return fit_calibrators(kind, S, Y, w), calibrated


def _finite(scores: npt.ArrayLike) -> Float64:
    array = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError("scores must be finite; got NaN or infinity. Check the features they were predicted from.")
    return array


def _rows(
    scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Float64, Float64, Float64]:
    s = vector("scores", scores)
    y = unit_interval("losses", losses, s.shape[0])
    w = weights(sample_weight, s.shape[0])
    w = np.ones_like(s) if w is None else w
    keep = w > 0
    if np.count_nonzero(keep) < 2:
        raise DataError(
            f"a calibration needs at least 2 rows of positive weight; got {np.count_nonzero(keep)}. Add labels."
        )
    return s[keep], y[keep], w[keep]


def _grouped(s: Float64, y: Float64, w: Float64) -> tuple[Float64, Float64, Float64]:
    """Merge equal scores: ascending scores, the weighted mean loss and the total weight of each."""
    order = np.argsort(s, kind="stable")
    s, y, w = s[order], y[order], w[order]
    starts = np.flatnonzero(np.append(True, np.diff(s) > 0))
    mass = np.add.reduceat(w, starts)
    return s[starts], np.add.reduceat(w * y, starts) / mass, mass


def _location(s: Float64, w: Float64) -> tuple[float, float]:
    centre = float(np.average(s, weights=w))
    scale = float(np.sqrt(np.average((s - centre) ** 2, weights=w)))
    return centre, scale if scale > 1e-12 * max(1.0, abs(centre)) else 1.0


def _platt_targets(y: Float64, w: Float64) -> Float64:
    positive, negative = float(w @ y), float(w @ (1.0 - y))
    return y * ((positive + 1.0) / (positive + 2.0)) + (1.0 - y) / (negative + 2.0)


def _unit(s: Float64, low: float, high: float) -> Float64:
    return np.asarray(np.minimum(np.maximum((s - low) / (high - low), 1e-6), 1.0 - 1e-6))


def _beta_features(s: Float64, low: float, high: float) -> Float64:
    u = _unit(s, low, high)
    return np.stack([np.log(u), -np.log1p(-u)], axis=-1)


def _sigmoid(logit: Float64) -> Float64:
    # Each branch sees only the sign for which its exponential cannot overflow.
    decay = np.exp(-np.abs(logit))
    return np.asarray(np.where(logit >= 0, 1.0, decay) / (1.0 + decay))


def _increasing_logistic(F: Float64, t: Float64, w: Float64) -> Float64:
    """Return (slopes >= 0, offset), (p + 1,), of logistic regression of soft targets t (n,) on F (n, p).

    The loss is convex: a slope that comes out negative is 0 at the constrained optimum of what remains,
    for the one or two slopes we have (Kull et al. 2017, section 4).
    """
    kept = list(range(F.shape[1]))
    while True:
        beta = _logistic(F[:, kept], t, w)
        worst = int(np.argmin(beta[:-1])) if kept else -1
        if not kept or beta[worst] >= 0.0:
            slopes = np.zeros(F.shape[1] + 1)
            slopes[[*kept, -1]] = beta
            return slopes
        kept.pop(worst)


def _logistic(F: Float64, t: Float64, w: Float64) -> Float64:
    """Newton's method with step halving on the mean cross-entropy, (p + 1,) with the offset last."""
    design = np.column_stack([F, np.ones(F.shape[0])])
    share = w / w.sum()
    mean = float(share @ t)
    beta = np.zeros(design.shape[1])
    beta[-1] = np.log(mean / (1.0 - mean))
    loss = _cross_entropy(design @ beta, t, share)
    for _ in range(100):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (share * (p - t))
        hessian = (design * (share * p * (1.0 - p))[:, None]).T @ design
        # The jitter only matters where a feature does not vary, and its slope then stays at 0.
        step = np.linalg.solve(hessian + 1e-12 * np.eye(beta.shape[0]), gradient)
        size = 1.0
        while (new := _cross_entropy(design @ (beta - size * step), t, share)) > loss and size > 1e-10:
            size /= 2.0
        beta, previous, loss = beta - size * step, loss, min(new, loss)
        if previous - loss <= 1e-15 * max(1.0, abs(loss)):
            break
    return beta


def _cross_entropy(logit: Float64, t: Float64, share: Float64) -> float:
    return float(share @ (np.logaddexp(0.0, logit) - t * logit))
