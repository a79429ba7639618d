"""Define `Calibrator`, the interface of every calibration map, and `MapState`, the base class that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from probes._checks import Float64, read_only, unit_interval, vector, weights
from probes.errors import DataError

#: Scores closer than this count as equal, because a division by the step between them would overflow.
LEAST_STEP = 1e-200


class Calibrator(Protocol):
    """The interface of every calibration map; `kind` is its name in a saved probe."""

    kind: ClassVar[str]

    @classmethod
    def fit(cls, scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Return the map fitted on scores (n,), losses (n,) in [0, 1] and weights (n,) >= 0."""
        ...

    def predict(self, scores: npt.ArrayLike) -> Float64:
        """Return the probability for each score, of the scores' shape."""
        ...

    def predict_one(self, score: float) -> float:
        """Return exactly what `predict` returns for this one score."""
        ...

    def state(self) -> dict[str, Float64]:
        """Return the map as named float64 arrays; `choice.from_state` restores it."""
        ...


class MapState(ABC):
    """Base of the calibration maps: checks that their dataclass fields are finite vectors, and freezes them."""

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for item in fields(self):  # type: ignore[arg-type]
            array = read_only(getattr(self, item.name), np.float64)
            if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
                raise DataError(
                    f"{item.name} of a {self.kind} calibration must be a vector of finite numbers; got shape "
                    f"{array.shape}, finite: {bool(np.isfinite(array).all())}. Fit the map again."
                )
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
        """Raise DataError if the fields contradict each other."""

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise DataError(f"a calibration of kind {self.kind} must have {what}. Fit the map again.")

    def state(self) -> dict[str, Float64]:
        """Return the map as named float64 arrays; `choice.from_state` restores it."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]


def finite_scores(scores: npt.ArrayLike) -> Float64:
    """Return the scores as float64; raise DataError if one is not finite."""
    array = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(array).all():
        raise DataError("scores must be finite; got NaN or infinity. Check the features they were predicted from.")
    return array


def checked_rows(
    scores: npt.ArrayLike, losses: npt.ArrayLike, sample_weight: npt.ArrayLike | None
) -> tuple[Float64, Float64, Float64]:
    """Return scores, losses and weights (n,) of the rows of positive weight; raise DataError for fewer than 2."""
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


def group_equal_scores(s: Float64, y: Float64, w: Float64) -> tuple[Float64, Float64, Float64]:
    """Merge rows of equal score: return ascending scores with the weighted mean loss and total weight of each."""
    order = np.argsort(s, kind="stable")
    s, y, w = s[order], y[order], w[order]
    starts = np.flatnonzero(np.append(True, np.diff(s) > 0))
    mass = np.add.reduceat(w, starts)
    return s[starts], np.add.reduceat(w * y, starts) / mass, mass
