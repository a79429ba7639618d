"""Define `Beta`, which is beta calibration as a calibration map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.calibration.base import LEAST_STEP, MapState, checked_rows, finite_scores
from probes.calibration.logistic import fit_increasing_logistic, logistic, platt_targets


@dataclass(frozen=True, slots=True, eq=False)
class Beta(MapState):
    """Beta calibration (Kull, Silva Filho and Flach 2017): logit p = a ln u - b ln(1 - u) + c, a, b >= 0.

    u is the score scaled into (0, 1) by the range seen in fitting, widened by a quarter on each side, because the
    predictions of a ridge are not confined to [0, 1]. Out of that range the map is constant. It applies Platt's prior
    correction as `Sigmoid` does.

    parameters: (5,) low, high, a, b, c.
    """

    kind: ClassVar[str] = "beta"
    parameters: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Beta:
        """See `Calibrator.fit`."""
        s, y, w = checked_rows(scores, losses, sample_weight)
        margin = 0.25 * float(np.ptp(s)) if np.ptp(s) > LEAST_STEP else 1.0
        low, high = float(s.min()) - margin, float(s.max()) + margin
        a, b, c = fit_increasing_logistic(_beta_features(s, low, high), platt_targets(y, w), w)
        return cls(np.array([low, high, a, b, c]))

    def moved(self, shift: float, scores: npt.ArrayLike, losses: npt.ArrayLike) -> Beta:
        """Return this map for another task: the same shape, moved right by `shift`, at the new task's mean loss.

        Only the offset c is fitted, so that the mean probability of `scores` (n,) is the mean of `losses` (n,) and of
        two pseudo-rows of loss 0 and 1. Raises the errors of `fit`.
        """
        s, y, w = checked_rows(scores, losses, None)
        low, high, a, b, c = self.parameters
        shape = _beta_features(s, low + shift, high + shift) @ np.array([a, b])
        mean = (float(w @ y) + 1.0) / (float(w.sum()) + 2.0)
        below, above = -shape.max() + np.log(mean / (1 - mean)), -shape.min() + np.log(mean / (1 - mean))
        for _ in range(60):
            c = (below + above) / 2.0
            below, above = (c, above) if np.average(logistic(shape + c), weights=w) < mean else (below, c)
        return Beta(np.array([low + shift, high + shift, a, b, c]))

    def _check(self) -> None:
        self._require(self.parameters.shape == (5,), "five parameters")
        self._require(bool(self.parameters[0] < self.parameters[1]), "low < high")
        self._require(bool((self.parameters[2:4] >= 0).all()), "a >= 0 and b >= 0")

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        low, high, a, b, c = self.parameters.tolist()
        u = _unit(finite_scores(scores), low, high)
        return logistic(a * np.log(u) + b * -np.log1p(-u) + c)

    def predict_one(self, score: float) -> float:
        """See `Calibrator.predict_one`: the same steps without arrays take a sixth of the time of a request."""
        if not math.isfinite(score):
            return float(self.predict(score))
        low, high, a, b, c = self.parameters.tolist()
        u = min(max((score - low) / (high - low), 1e-6), 1.0 - 1e-6)
        # These are numpy's functions because the standard library's differ in the last bits.
        logit = float(a * np.log(u) + b * -np.log1p(-u) + c)
        decay = float(np.exp(-abs(logit)))
        return (1.0 if logit >= 0 else decay) / (1.0 + decay)


def _unit(s: Float64, low: float, high: float) -> Float64:
    return np.asarray(np.minimum(np.maximum((s - low) / (high - low), 1e-6), 1.0 - 1e-6))


def _beta_features(s: Float64, low: float, high: float) -> Float64:
    u = _unit(s, low, high)
    return np.stack([np.log(u), -np.log1p(-u)], axis=-1)
