"""Fit what a caller's score says of each candidate: a monotone map to its risk, whose direction the data show."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from probes.calibration.choice import cross_calibrate, fit_calibrators
from probes.errors import DataError
from router.policies.caller_score import CallerScore, ScoreMap
from router.quoting import quoted
from router.tuning.outcomes.datasets import FloatArray

#: With fewer prompts that have a score the direction of a map is a guess.
MIN_SCORED = 50

_KINDS = ("sigmoid", "isotonic")
_KNOTS, _FOLDS, _DIGITS = 33, 5, 6
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class FittedScore:
    """Holds the maps of a caller's score, and what they say in words.

    score: for the policy file. directions: for each model, whether a higher score means a higher risk. n: prompts.
    """

    score: CallerScore
    directions: tuple[bool, ...]
    n: int


def check_score_name(name: str) -> str:
    """Return the name of a column of scores if requests can carry it; raise DataError if not."""
    if not _NAME.fullmatch(name):
        raise DataError(
            f"--score must name a column by letters, digits, dots, dashes and underscores, because requests carry the "
            f"score under that name; got {quoted(name)}. Rename the column."
        )
    return name


def fit_caller_score(name: str, values: FloatArray, losses: FloatArray) -> FittedScore:
    """Fit a map from a score to the risk of each model.

    values: (n,) scores, NaN where a prompt has none. losses: (n, m), 0 to 1. For each model the map rises or falls as
    score and loss vary together. It is logistic or isotonic, whichever has the smaller squared error across folds, and
    is kept as knots at quantiles of the score. The range is 0 to 1 if all values lie in it; else that of the values.

    Raises DataError for fewer than MIN_SCORED prompts with a score, and for a score that is the same everywhere.
    """
    known = np.isfinite(values)
    if known.sum() < MIN_SCORED:
        raise DataError(
            f"the score {name} must be known for {MIN_SCORED} prompts or more of those that fit its map, got "
            f"{known.sum()} of {len(values):,}. Add outcomes, or check the column."
        )
    x, y = values[known], losses[known]
    if np.ptp(x) == 0:
        raise DataError(f"the score {name} must differ between prompts; it is {x[0]:g} for all of them.")
    low, high = (0.0, 1.0) if x.min() >= 0 and x.max() <= 1 else (float(x.min()), float(x.max()))
    knots = np.unique(np.round(np.concatenate([np.quantile(x, np.linspace(0, 1, _KNOTS)), [low, high]]), _DIGITS))
    rising = tuple(bool(np.mean((x - x.mean()) * column) >= 0) for column in y.T)
    maps = tuple(_fit_map(x, column, knots, up) for column, up in zip(y.T, rising, strict=True))
    return FittedScore(CallerScore(name=name, low=low, high=high, risks=maps), rising, int(known.sum()))


def _fit_map(x: FloatArray, losses: FloatArray, knots: FloatArray, rising: bool) -> ScoreMap:
    # Calibration maps rise with the score, so a falling one is fitted on its negative.
    sign = 1.0 if rising else -1.0
    scores, wanted = sign * x[:, None], losses[:, None]
    fold = np.arange(len(x)) % _FOLDS
    errors = {kind: float(np.mean((cross_calibrate(kind, scores, wanted, fold)[1] - wanted) ** 2)) for kind in _KINDS}
    best = min(_KINDS, key=lambda kind: errors[kind])
    risks = np.round(fit_calibrators(best, scores, wanted)[0].predict(sign * knots), _DIGITS)
    ordered = np.maximum.accumulate(risks) if rising else np.minimum.accumulate(risks)
    return ScoreMap(scores=tuple(knots.tolist()), risks=tuple(ordered.tolist()))


def say_directions(fitted: FittedScore, models: tuple[str, ...]) -> str:
    """Return in words what a higher score means for each model."""
    parts = [f"a {'higher' if up else 'lower'} risk of {m}" for m, up in zip(models, fitted.directions, strict=True)]
    return (
        f"on {fitted.n:,} prompts that do not certify, a higher {fitted.score.name} means {', and '.join(parts)}; "
        f"scores outside of {fitted.score.low:g} to {fitted.score.high:g} go to the safe default."
    )
