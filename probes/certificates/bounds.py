"""Test and bound from above the mean of bounded losses, exactly in finite samples, by one of four methods.

Every method is valid for independent, identically distributed losses in [low, high], whatever their distribution, at
every sample size. `excludes` tests the hypothesis "the mean exceeds the limit" at level delta; `upper_bound` is the
smallest limit that the test rejects.

| method | idea | source |
|---|---|---|
| ternary | exact test for losses in {-1, 0, 1} | `exact_counts.ternary_p_value` |
| binomial | exact test for losses in {0, 1} | Clopper & Pearson 1934 |
| betting | bets that aim at the last sample | `betting.targeted_bets` |
| rectified | a judge's losses of all, human losses of a random part | `human_grades.rectified_bets` |

`ternary` and `binomial` round a loss between their values *up*, so they stay valid (only wide) for any losses.
docs/decisions/0003-certificate.md compares these methods with others, which are in `benchmarks/other_bounds.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from probes._checks import Bool, Float64
from probes.certificates.betting import targeted_bets
from probes.certificates.exact_counts import binomial_cdf, ternary_p_value
from probes.certificates.human_grades import GradedLosses, rectified_bets
from probes.errors import DataError

BoundMethod = Literal["ternary", "binomial", "betting", "rectified"]

_SCAN_POINTS = 17  # limits tried per round of `upper_bound`
_SCAN_ROUNDS = 4  # each narrows the bracket 16 times: 2 / 16^4 = 3e-5 in the end


@dataclass(frozen=True, slots=True)
class MeanBound:
    """Says how the mean of losses is bounded: the method, and the range [low, high] that every single loss lies in.

    The default suits paired differences of scores in [0, 1]. `MeanBound("binomial", 0.0, 1.0)` suits losses of 0 and 1.
    """

    method: BoundMethod = "ternary"
    low: float = -1.0
    high: float = 1.0


TERNARY: Final = MeanBound()
"""The exact bound for paired differences of 0/1 scores."""


def excludes(losses: npt.ArrayLike | GradedLosses, limit: float, delta: float, bound: MeanBound = TERNARY) -> Bool:
    """Return (p,) booleans: True if "the mean of this row exceeds `limit`" is rejected at level delta.

    losses: (p, n) or (n,), within the bound's range; each row is one policy, each column one prompt. The betting
    methods need an order of the columns that was fixed before the losses were seen. The rectified method needs
    `GradedLosses`, and the mean is that of the human losses. If the mean of a row does exceed the limit, its entry is
    True with probability at most delta.

    Raises DataError for losses outside the range, NaN, no column, delta outside (0, 1) or an unknown method.
    """
    sample = loss_sample(losses, bound)
    limits = np.full((len(sample), 1), float(limit))
    return _test(sample, limits, check_delta(delta), bound)[:, 0]


def upper_bound(losses: npt.ArrayLike | GradedLosses, delta: float, bound: MeanBound = TERNARY) -> Float64:
    """Return (p,) upper confidence bounds for the means of the rows, each at confidence 1 - delta by itself.

    It inverts `excludes` by scanning limits from the sample mean up, to within (high - low) / 65,536, and returns the
    excluded end of the last step, or `high` if nothing below it can be excluded. Arguments and errors are those of
    `excludes`.
    """
    sample = loss_sample(losses, bound)
    check_delta(delta)
    left, right = np.clip(sample.mean(axis=1), bound.low, bound.high), np.full(len(sample), float(bound.high))
    rows = np.arange(len(sample))
    for _ in range(_SCAN_ROUNDS):
        limits = np.linspace(left, right, _SCAN_POINTS, axis=1)
        kept = ~_test(sample, limits[:, :-1], delta, bound)
        kept[:, 0] = True  # the left end is the mean, or the round before could not exclude it
        last = _SCAN_POINTS - 2 - np.argmax(kept[:, ::-1], axis=1)
        left, right = limits[rows, last], limits[rows, last + 1]
    return right


def choose_method(scores: npt.ArrayLike) -> Literal["ternary", "betting"]:
    """Return "ternary" if all scores are 0 or 1, so that paired differences are -1, 0 or 1; otherwise "betting".

    Call it on scores that the certificate will not use (those of the fit split): a choice of method that depends on
    the calibration losses would void the guarantee.
    """
    values = np.asarray(scores, dtype=float)
    return "ternary" if bool(np.isin(values, (0.0, 1.0)).all()) else "betting"


def loss_sample(losses: npt.ArrayLike | GradedLosses, bound: MeanBound = TERNARY) -> Float64 | GradedLosses:
    """Return losses checked for the bound: as a matrix, or as `GradedLosses` for the rectified method.

    Raises DataError as `loss_matrix` does, and if the method and the kind of the losses do not belong together.
    """
    if isinstance(losses, GradedLosses) != (bound.method == "rectified"):
        raise DataError("the rectified bound needs GradedLosses, and only it takes them; choose another method.")
    if not isinstance(losses, GradedLosses):
        return loss_matrix(losses, bound)
    loss_matrix(losses.human[:, losses.graded], bound)
    loss_matrix(losses.judged, bound)
    return losses


def loss_matrix(losses: npt.ArrayLike, bound: MeanBound = TERNARY) -> Float64:
    """Return losses as a float64 matrix (p, n) with every entry in the bound's range, or raise DataError."""
    try:
        matrix = np.asarray(losses, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"losses must be a rectangular array of numbers: {error}.") from error
    if matrix.ndim == 1:
        matrix = matrix[None, :]
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise DataError(
            f"losses must be (policies, prompts) with at least one of each; got shape {matrix.shape}. "
            "Pass one row per policy and one column per calibration prompt."
        )
    outside = ~((matrix >= bound.low) & (matrix <= bound.high))
    if outside.any():
        row, column = (int(v) for v in np.argwhere(outside)[0])
        raise DataError(
            f"losses must lie in [{bound.low:g}, {bound.high:g}]; policy {row}, prompt {column} has "
            f"{matrix[row, column]}. Rescale the scores or drop the prompt."
        )
    return matrix


def check_delta(delta: float) -> float:
    """Return delta if it lies strictly between 0 and 1; otherwise raise DataError."""
    if not 0 < delta < 1:
        raise DataError(f"delta must lie strictly between 0 and 1; got {delta}. Use 0.05 for 95 % confidence.")
    return delta


# Arguments: losses (p, n), limits (p, k), delta, low, high. Result: (p, k), True if the limit is excluded.
_MeanTest = Callable[[Float64, Float64, float, float, float], Bool]


def _test(sample: Float64 | GradedLosses, limits: Float64, delta: float, bound: MeanBound) -> Bool:
    if isinstance(sample, GradedLosses):
        return rectified_bets(sample, limits, delta, bound.low, bound.high)
    if bound.method not in _TESTS:
        raise DataError(
            f"the method of a bound must be one of {', '.join(_TESTS)} or rectified; got {bound.method!r}. "
            "Use choose_method to pick one."
        )
    return _TESTS[bound.method](sample, limits, delta, bound.low, bound.high)


def _ternary(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    if low < -1 or high > 1:
        raise DataError(f"the ternary bound needs losses in [-1, 1]; got [{low:g}, {high:g}]. Use betting.")
    rounded_up = np.ceil(losses)
    net, discordant = rounded_up.sum(axis=1, keepdims=True), np.abs(rounded_up).sum(axis=1, keepdims=True)
    inside = np.clip(limit, -1 + 1e-12, 1 - 1e-12)
    p = ternary_p_value(net, discordant, losses.shape[1], inside, delta)
    return np.asarray((p <= delta) | (limit >= high))


def _binomial(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    if low < 0 or high > 1:
        raise DataError(f"the binomial bound needs losses in [0, 1]; got [{low:g}, {high:g}]. Use ternary.")
    count = np.ceil(losses).sum(axis=1, keepdims=True)
    cdf = binomial_cdf(count, losses.shape[1], np.clip(limit, 0, 1))
    return np.asarray((cdf <= delta) | (limit >= high))


_TESTS: Final[dict[str, _MeanTest]] = {"ternary": _ternary, "binomial": _binomial, "betting": targeted_bets}
