"""Finite-sample upper confidence bounds for the mean of bounded losses, by seven methods under one face.

Every method is valid for independent, identically distributed losses in [low, high], whatever their law, at
every sample size. `excludes` is a level-delta test of "the mean exceeds the limit"; `upper_bound` is what it
leaves over.

| name | idea | source |
|---|---|---|
| ternary | exact, losses in {-1, 0, 1} | `exact_counts.ternary_p_value` |
| binomial | exact, losses in {0, 1} | Clopper & Pearson 1934 |
| betting | bets that aim at the last sample | `betting.targeted_bets` |
| wsr | predictable plug-in bets | Waudby-Smith & Ramdas 2023 |
| hoeffding_bentkus | smaller of two tail bounds on the range | Bates et al. 2021, Angelopoulos et al. 2021 |
| empirical_bernstein | sample variance | Maurer & Pontil 2009, theorem 4 |
| hoeffding | range only | Hoeffding 1963 |

`ternary` and `binomial` round a loss between their values *up*, so they stay valid (only wide) for any
losses. For paired differences of 0/1 scores `ternary` is the sharpest at every sample size, else `betting`:
see `choose_bound` and docs/decisions/0003-certificate.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from probes.certificates.betting import plug_in_bets, targeted_bets
from probes.certificates.exact_counts import binomial_cdf, ternary_p_value
from probes.errors import DataError

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
BoundName = Literal["ternary", "binomial", "betting", "wsr", "hoeffding_bentkus", "empirical_bernstein", "hoeffding"]

_SCAN_POINTS = 17  # limits tried per round of `upper_bound`
_SCAN_ROUNDS = 4  # each narrows the bracket 16 times: 2 / 16^4 = 3e-5 in the end


def excludes(
    losses: npt.ArrayLike,
    limit: float,
    delta: float,
    *,
    bound: BoundName,
    low: float = -1.0,
    high: float = 1.0,
) -> Bool:
    """Return (p,) True where "the mean of this row exceeds `limit`" is rejected at level delta.

    losses: (p, n) or (n,), in [low, high]; each row is one policy, each column one prompt. For the betting
    methods the order of the columns must have been fixed before the losses were seen. Where the mean does
    exceed the limit, the chance of True is at most delta, row by row.

    Raises DataError for losses outside [low, high], NaN, no column, delta outside (0, 1), an unknown bound.
    """
    matrix = loss_matrix(losses, low, high)
    return _test(bound)(matrix, np.full((len(matrix), 1), float(limit)), check_delta(delta), low, high)[:, 0]


def upper_bound(
    losses: npt.ArrayLike, delta: float, *, bound: BoundName, low: float = -1.0, high: float = 1.0
) -> Float64:
    """Return (p,) upper confidence bounds for the means of the rows, each at confidence 1 - delta by itself.

    Inverts `excludes` by scanning limits from the sample mean up, to within (high - low) / 65,536, and
    returns the excluded end; `high` when nothing below it can be excluded. Arguments and errors as in
    `excludes`.
    """
    matrix = loss_matrix(losses, low, high)
    test = _test(bound)
    check_delta(delta)
    left, right = matrix.mean(axis=1), np.full(len(matrix), float(high))
    rows = np.arange(len(matrix))
    for _ in range(_SCAN_ROUNDS):
        limits = np.linspace(left, right, _SCAN_POINTS, axis=1)
        kept = ~test(matrix, limits[:, :-1], delta, low, high)
        kept[:, 0] = True  # the left end is the mean, or was kept the round before
        last = _SCAN_POINTS - 2 - np.argmax(kept[:, ::-1], axis=1)
        left, right = limits[rows, last], limits[rows, last + 1]
    return right


def choose_bound(scores: npt.ArrayLike) -> BoundName:
    """Return "ternary" if all scores are 0 or 1, so that paired differences are -1, 0 or 1; else "betting".

    Call it on scores that the certificate will not use (those of the fit split): a choice of method that
    looks at the calibration losses would void the guarantee.
    """
    values = np.asarray(scores, dtype=float)
    return "ternary" if bool(np.isin(values, (0.0, 1.0)).all()) else "betting"


def loss_matrix(losses: npt.ArrayLike, low: float, high: float) -> Float64:
    """Return losses as a float64 (p, n) matrix with every entry in [low, high], or raise DataError."""
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
    outside = ~((matrix >= low) & (matrix <= high))
    if outside.any():
        row, column = (int(v) for v in np.argwhere(outside)[0])
        raise DataError(
            f"losses must lie in [{low:g}, {high:g}]; policy {row}, prompt {column} has "
            f"{matrix[row, column]}. Rescale the scores or drop the prompt."
        )
    return matrix


def check_delta(delta: float) -> float:
    """Return delta if it lies strictly between 0 and 1, else raise DataError."""
    if not 0 < delta < 1:
        raise DataError(f"delta must lie strictly between 0 and 1; got {delta}. Use 0.05 for 95 % confidence.")
    return delta


_Test = Callable[[Float64, Float64, float, float, float], Bool]


def _test(bound: str) -> _Test:
    if bound not in _TESTS:
        raise DataError(f"bound must be one of {', '.join(_TESTS)}; got {bound!r}. Use choose_bound to pick one.")
    return _TESTS[bound]


def _ternary(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    if low < -1 or high > 1:
        raise DataError(f"the ternary bound needs losses in [-1, 1]; got [{low:g}, {high:g}]. Use betting.")
    lattice = np.ceil(losses)
    net, discordant = lattice.sum(axis=1, keepdims=True), np.abs(lattice).sum(axis=1, keepdims=True)
    inside = np.clip(limit, -1 + 1e-12, 1 - 1e-12)
    p = ternary_p_value(net, discordant, losses.shape[1], inside, delta)
    return np.asarray((p <= delta) | (limit >= high))


def _binomial(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    if low < 0 or high > 1:
        raise DataError(f"the binomial bound needs losses in [0, 1]; got [{low:g}, {high:g}]. Use ternary.")
    count = np.ceil(losses).sum(axis=1, keepdims=True)
    cdf = binomial_cdf(count, losses.shape[1], np.clip(limit, 0, 1))
    return np.asarray((cdf <= delta) | (limit >= high))


def _hoeffding_bentkus(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    n = losses.shape[1]
    mean = (losses.mean(axis=1, keepdims=True) - low) / (high - low)
    m = np.clip((limit - low) / (high - low), 1e-12, 1 - 1e-12)
    r = np.clip(np.minimum(mean, m), 1e-12, 1 - 1e-12)
    divergence = r * np.log(r / m) + (1 - r) * np.log((1 - r) / (1 - m))
    # the margin keeps a mean that is an integer count from being rounded up by its last bit
    bentkus = math.e * binomial_cdf(np.ceil(n * mean - 1e-9), n, m)
    return np.asarray((np.minimum(np.exp(-n * divergence), bentkus) <= delta) | (limit >= high))


def _empirical_bernstein(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    n = losses.shape[1]
    if n < 2:
        return np.asarray(limit >= high)
    log_term = math.log(2 / delta)
    spread = np.sqrt(2 * losses.var(axis=1, ddof=1, keepdims=True) * log_term / n)
    slack = 7 * (high - low) * log_term / (3 * (n - 1))
    return np.asarray((losses.mean(axis=1, keepdims=True) + spread + slack <= limit) | (limit >= high))


def _hoeffding(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    slack = (high - low) * math.sqrt(math.log(1 / delta) / (2 * losses.shape[1]))
    return np.asarray((losses.mean(axis=1, keepdims=True) + slack <= limit) | (limit >= high))


_TESTS: Final[dict[str, _Test]] = {
    "ternary": _ternary,
    "binomial": _binomial,
    "betting": targeted_bets,
    "wsr": plug_in_bets,
    "hoeffding_bentkus": _hoeffding_bentkus,
    "empirical_bernstein": _empirical_bernstein,
    "hoeffding": _hoeffding,
}
