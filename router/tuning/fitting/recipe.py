"""The recipe of a probe: ridge on all rows, calibration on rows it did not see, a limit for what is unfamiliar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probes.calibration.base import Calibrator
from probes.calibration.choice import DEFAULT_KIND, cross_calibrate
from probes.errors import DataError
from probes.probe import FAMILIAR_QUANTILE
from probes.regression.crossfit import assign_folds, out_of_fold
from probes.regression.fit import fit_ridge
from probes.regression.linear import Leverage, LinearProbe
from router.tuning.judging.ranking import text_numbers

FloatArray = npt.NDArray[np.float64]

#: Folds by prompt text, for calibration and for the figures of the summary.
FOLDS = 5

#: Fewer prompts than this cannot be split into folds that mean anything.
MIN_PROMPTS = 50


@dataclass(frozen=True)
class FittedMaps:
    """The recipe of a probe, applied: linear map, calibration, and what they say of each row left out.

    Attributes:
        linear, leverage: of the ridge on all rows. calibrators: one per model. leverage_limit: beyond it a prompt is
            unfamiliar.
        predicted, risk: (n, m), loss and probability of rows that neither ridge nor calibration had seen.
        split: in words, how these rows were left out.
    """

    linear: LinearProbe
    leverage: Leverage
    calibrators: tuple[Calibrator, ...]
    leverage_limit: float | None
    predicted: FloatArray
    risk: FloatArray
    split: str = f"{FOLDS}-fold cross-validation by prompt text, random"

    def risk_of(self, features: npt.NDArray[np.float32]) -> FloatArray:
        """Calibrated risk (k, m) of other prompts by their features (k, d)."""
        return risk_through(self.calibrators, self.linear.predict(features).astype(np.float64))


def risk_through(calibrators: Sequence[Calibrator], predicted: FloatArray) -> FloatArray:
    """Risk (n, m) of predicted losses (n, m), each column through its own map."""
    return np.stack([one.predict(column) for one, column in zip(calibrators, predicted.T, strict=True)], axis=1)


def fit_maps(features: npt.NDArray[np.float32], losses: FloatArray, texts: Sequence[str], seed: int = 0) -> FittedMaps:
    """Fit the recipe to features (n, d) and losses (n, m), NaN where a model was not asked.

    Raises DataError for fewer than MIN_PROMPTS prompts.
    """
    if len(losses) < MIN_PROMPTS:
        raise DataError(f"fitting needs at least {MIN_PROMPTS} prompts, got {len(losses)}; add outcomes.")
    folds = assign_folds(text_numbers(texts), FOLDS, seed)
    solution = fit_ridge(features, losses)
    held_out = out_of_fold(features, losses, folds, alpha=solution.alpha)
    calibrators, risk = cross_calibrate(DEFAULT_KIND, held_out.prediction, losses, folds)
    limit = float(np.quantile(held_out.leverage, FAMILIAR_QUANTILE))
    return FittedMaps(solution.probe, solution.leverage, calibrators, limit, held_out.prediction, risk)
