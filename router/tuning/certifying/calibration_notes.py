"""What is decided before calibration scores are looked at, and what a reader must know of the calibration prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from probes.certificates.bounds import choose_method
from probes.probe import DifficultyProbe
from router.tuning.certifying.calibration_set import MIN_CALIBRATION, CalibrationSet
from router.tuning.certifying.targets import Facts
from router.tuning.outcomes.datasets import GRADED

#: A reader is warned where calibration prompts misrepresent a larger share of the draws.
WARN_CHANGED = 0.01


def expects_graded(
    probe: DifficultyProbe, calibration: CalibrationSet, bound: Literal["ternary", "betting"] | None
) -> bool:
    """Return whether to certify with the bound for graded scores, without a look at the scores that certify.

    It is what `bound` says; else what the probe's fit recorded of these models' scores; else what the rows of the fit
    among the data show; else graded, because that bound is good for all scores.
    """
    if bound is not None:
        return bound == "betting"
    recorded = probe.card.metrics.get(GRADED)
    if isinstance(recorded, list | tuple):
        return any(model in recorded for model in calibration.outcomes.models)
    if len(calibration.seen) >= MIN_CALIBRATION:
        return choose_method(calibration.seen.scores) == "betting"
    return True


def notes_on(calibration: CalibrationSet, facts: Facts) -> Iterator[str]:
    """Yield what a reader of the report must know of the calibration prompts."""
    n = len(calibration.outcomes)
    if calibration.changed_share >= WARN_CHANGED:
        yield (
            f"WARNING: for {calibration.changed_share:.1%} of the rows the calibration prompts are not like the data, "
            "because the fit saw their text; the certificate says nothing of such requests. Fit with --holdout and "
            "tune on the very same file, or give requests of their own with --calibration FILE."
        )
    if calibration.n_seen_kept:
        yield (
            f"{calibration.n_seen_kept:,} of {n:,} prompts have a text that the fit saw and are kept: the certificate "
            "holds if they are other requests than those of the fit."
        )
    if calibration.n_unused:
        yield (
            f"{calibration.n_unused:,} rows are neither fitted on nor certified with: they were not drawn for the "
            "certificate, and the fit does not know their text."
        )
    if calibration.outcomes.n_averaged:
        yield (
            f"{calibration.outcomes.n_averaged:,} labels repeat the model and prompt_id of another and were averaged "
            "with it into one draw; requests need a prompt_id each."
        )
    between = int((~np.isin(facts.scores, (0.0, 1.0))).any(axis=1).sum())
    if between and not facts.graded:
        yield (
            f"{between:,} of {n:,} prompts have scores between 0 and 1, which the bound for scores of 0 and 1 rounds "
            "against the policy; --bound betting does not (another attempt on the same data)."
        )
