"""Define `Isotonic`, which is centred isotonic regression as a calibration map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.calibration.base import LEAST_STEP, MapState, checked_rows, finite_scores, group_equal_scores
from probes.calibration.pava import pool_starts


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic(MapState):
    """Centred isotonic regression (Oron and Flournoy 2017): straight lines between the centres of the pools.

    The pools come from the pool-adjacent-violators algorithm. Because the map is linear between their centres, it is
    strictly increasing if the data allow it, and keeps a ranking that a step function would tie. Beyond the first and
    the last centre it goes on in a straight line to 0 and to 1, which it reaches one whole range of scores further
    out; from there it is constant.

    knots: (k,) ascending scores; values: (k,) non-decreasing probabilities.
    """

    kind: ClassVar[str] = "isotonic"
    knots: Float64
    values: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Isotonic:
        """See `Calibrator.fit`."""
        s, y, w = group_equal_scores(*checked_rows(scores, losses, sample_weight))
        starts = pool_starts(y, w)
        mass = np.add.reduceat(w, starts)
        centres = np.add.reduceat(w * s, starts) / mass
        # Rounding may put two neighbours out of order by their last bit.
        values = np.clip(np.maximum.accumulate(np.add.reduceat(w * y, starts) / mass), 0.0, 1.0)
        ascending = np.append(True, np.diff(np.maximum.accumulate(centres)) > LEAST_STEP)
        centres, values = centres[ascending], values[ascending]
        reach = max(s[-1] - s[0], 1e-6 * np.abs(s).max())
        reach = reach if reach > LEAST_STEP else 1.0
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
        return np.asarray(np.interp(finite_scores(scores), self.knots, self.values))
