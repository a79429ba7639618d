"""Whether the reference that losses are measured against is one worth measuring against."""

from __future__ import annotations

import numpy as np

from probes.certificates.bounds import MeanBound, choose_method, excludes
from probes.errors import DataError
from router.tuning.certifying.calibration_set import CalibrationSet

#: Chance that a reference which is as good as every other model is refused.
REFUSAL_LEVEL = 0.01


def check_reference(calibration: CalibrationSet, reference: str) -> None:
    """Raise DataError if another model is better than the reference beyond doubt, as when two options are swapped.

    "At most 0.02 lost" against a reference that is 14 points worse promises nothing that anybody wants. The difference
    of mean scores is tested exactly, on all rows that have a score of every model, those of the fit included, each
    other model at REFUSAL_LEVEL / (number of other models). A refusal can make no certificate false, so it may look at
    the scores that certify.
    """
    models = calibration.outcomes.models
    scores = np.concatenate([calibration.seen.scores, calibration.outcomes.scores])
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
        f"and {models[best]} {means[best]:.3f}. {swapped}To measure losses against the better one as the models stand, "
        f"give --reference {models[best]}."
    )
