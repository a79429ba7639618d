"""Define `VennAbers`, which is inductive Venn-Abers prediction as a calibration map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.calibration.base import MapState, checked_rows, finite_scores, group_equal_scores
from probes.calibration.pava import pooled_with_one_more


@dataclass(frozen=True, slots=True, eq=False)
class VennAbers(MapState):
    """Inductive Venn-Abers prediction (Vovk, Petej and Fedorova 2015): a probability and an interval.

    For a score, p0 and p1 are the values of isotonic regression on the calibration rows after the score is added with
    loss 0 and with loss 1. For 0/1 losses and exchangeable rows one of the two is perfectly calibrated, whatever the
    distribution; `predict` returns p1 / (1 - p0 + p1), which minimises the worst log loss. For soft losses p0 and p1
    still bracket the prediction, but that theorem does not hold. Both are tabulated, so serving is one binary search.
    The maps are step functions that tie many scores: use them for intervals, not for ranking. Out of range the first
    and the last step go on.

    thresholds: (k,) ascending. below: (2, k + 1) flattened, p0 and p1 strictly between thresholds. at: (2, k)
    flattened, p0 and p1 exactly at the thresholds.
    """

    kind: ClassVar[str] = "venn_abers"
    thresholds: Float64
    below: Float64
    at: Float64

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> VennAbers:
        """See `Calibrator.fit`."""
        s, y, w = group_equal_scores(*checked_rows(scores, losses, sample_weight))
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
        s = finite_scores(scores)
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
