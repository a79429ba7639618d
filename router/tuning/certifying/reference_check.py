"""Refuse a reference that is worse than another model: a loss measured against it would promise nothing useful."""

from __future__ import annotations

import numpy as np

from probes.certificates.bounds import MeanBound, choose_method, excludes
from probes.errors import DataError
from router.tuning.certifying.calibration_set import CalibrationSet
from router.tuning.outcomes.datasets import FloatArray

#: The probability, at most, that a reference is refused although it is as good as every other model.
REFUSAL_LEVEL = 0.01


def check_reference(calibration: CalibrationSet, reference: str, human: FloatArray | None = None) -> None:
    """Raise DataError if another model is significantly better than the reference, as when two options are swapped.

    A loss of at most 0.02 against a reference that is 0.14 worse than the other model is worth nothing. The null
    hypothesis that the reference is at least as good is tested for each other model, at REFUSAL_LEVEL / (number of
    other models), on all rows with a score of every model, rows of the fit included. The test may look at the scores
    that certify, because a refusal makes no certificate false.

    human: (n, m) what people say, NaN in rows without, for a certificate about people; None tests all scores of the
    data.
    """
    models = calibration.outcomes.models
    scores = (
        np.concatenate([calibration.seen.scores, calibration.outcomes.scores])
        if human is None
        else human[np.isfinite(human).all(axis=1)]
    )
    column = models.index(reference)
    others = [number for number in range(len(models)) if number != column]
    ahead = scores[:, column] - scores[:, others].T
    worse = excludes(ahead, 0.0, REFUSAL_LEVEL / len(others), MeanBound(choose_method(scores)))
    if not worse.any():
        return
    means = scores.mean(axis=0)
    best = max((number for number, is_worse in zip(others, worse, strict=True) if is_worse), key=lambda m: means[m])
    swapped = "Are --weak and --strong swapped? " if len(models) == 2 else ""
    raise DataError(
        f"the reference must be the better model: on {len(scores):,} prompts {reference} scores {means[column]:.3f} "
        f"and {models[best]} {means[best]:.3f}. {swapped}To measure losses against the better one without "
        f"renaming, give --reference {models[best]}."
    )
