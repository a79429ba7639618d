"""Define `Sigmoid`, which is Platt scaling as a calibration map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.calibration.base import MapState, checked_rows, finite_scores
from probes.calibration.logistic import fit_increasing_logistic, logistic, platt_targets


@dataclass(frozen=True, slots=True, eq=False)
class Sigmoid(MapState):
    """Platt scaling (Platt 1999; Lin, Lin and Weng 2007): 1 / (1 + exp(-(slope (score - centre) + offset))).

    It applies Platt's prior correction, so that separable data give finite coefficients: a loss of 1 counts as
    (N1 + 1) / (N1 + 2), a loss of 0 as 1 / (N0 + 2), and a soft loss lies in between. The slope is never negative: if
    the scores rank backwards, every score gets the base rate. Out of range the same curve goes on, strictly within
    (0, 1) up to rounding.

    parameters: (3,) slope, centre, offset.
    """

    kind: ClassVar[str] = "sigmoid"
    parameters: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Sigmoid:
        """See `Calibrator.fit`."""
        s, y, w = checked_rows(scores, losses, sample_weight)
        centre, scale = _location(s, w)
        beta = fit_increasing_logistic(((s - centre) / scale)[:, None], platt_targets(y, w), w)
        return cls(np.array([beta[0] / scale, centre, beta[1]]))

    def _check(self) -> None:
        self._require(self.parameters.shape == (3,), "three parameters")
        self._require(bool(self.parameters[0] >= 0), "a slope >= 0")

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """See `Calibrator.predict`."""
        slope, centre, offset = self.parameters
        return logistic(slope * (finite_scores(scores) - centre) + offset)


def _location(s: Float64, w: Float64) -> tuple[float, float]:
    centre = float(np.average(s, weights=w))
    scale = float(np.sqrt(np.average((s - centre) ** 2, weights=w)))
    return centre, scale if scale > 1e-12 * max(1.0, abs(centre)) else 1.0
