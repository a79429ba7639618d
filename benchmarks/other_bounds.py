"""Test a bounded mean in ways that `elle tune` never chooses; bench_certificate.py compares them with its own.

Every test is valid for independent, identically distributed losses in [low, high] at every sample size.

| name | idea | source |
|---|---|---|
| wsr | predictable plug-in bets | Waudby-Smith & Ramdas 2023 |
| hoeffding_bentkus | smaller of two tail bounds on the range | Bates et al. 2021, Angelopoulos et al. 2021 |
| empirical_bernstein | sample variance | Maurer & Pontil 2009, theorem 4 |
| hoeffding | range only | Hoeffding 1963 |
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from probes._checks import Bool, Float64
from probes.certificates.betting import BOLDEST
from probes.certificates.bounds import TERNARY, loss_matrix
from probes.certificates.exact_counts import binomial_cdf


def excludes_by(name: str, losses: npt.ArrayLike, limit: float, delta: float) -> Bool:
    """Return (p,) booleans: True if "the mean of this row exceeds `limit`" is rejected at level delta by this test.

    losses: (p, n) or (n,), in [-1, 1]; as `probes.certificates.bounds.excludes`, which it complements.
    """
    matrix = loss_matrix(losses)
    limits = np.full((len(matrix), 1), float(limit))
    return TESTS[name](matrix, limits, delta, TERNARY.low, TERNARY.high)[:, 0]


def plug_in_bets(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if "mean loss > limit" is rejected by Waudby-Smith & Ramdas's plug-in bets.

    Shapes, order and validity are those of `probes.certificates.betting.targeted_bets`. The bet is
    sqrt(2 log(1 / delta) / (n s^2)) with s^2 the running variance (their equation 26, one-sided).
    """
    p, n = losses.shape
    target = -math.log(delta)
    cap = BOLDEST / np.maximum(high - limit, 1e-12)
    log_wealth = np.zeros(limit.shape)
    reached = np.broadcast_to(limit >= high, limit.shape).copy()
    mean, squares = np.full(p, (low + high) / 2), np.full(p, ((high - low) / 2) ** 2)
    for i in range(n):
        bet = np.minimum(np.sqrt(2 * target * (i + 1) / (n * squares))[:, None], cap)
        x = losses[:, i]
        log_wealth += np.log1p(bet * (limit - x[:, None]))
        reached |= log_wealth >= target
        mean = mean + (x - mean) / (i + 2)
        squares = squares + (x - mean) ** 2
    return reached


def hoeffding_bentkus(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if the smaller of Hoeffding's and Bentkus's tail bounds is at most delta."""
    n = losses.shape[1]
    mean = (losses.mean(axis=1, keepdims=True) - low) / (high - low)
    m = np.clip((limit - low) / (high - low), 1e-12, 1 - 1e-12)
    r = np.clip(np.minimum(mean, m), 1e-12, 1 - 1e-12)
    divergence = r * np.log(r / m) + (1 - r) * np.log((1 - r) / (1 - m))
    # The margin keeps a mean that is an integer count from being rounded up by its last bit.
    bentkus = math.e * binomial_cdf(np.ceil(n * mean - 1e-9), n, m)
    return np.asarray((np.minimum(np.exp(-n * divergence), bentkus) <= delta) | (limit >= high))


def empirical_bernstein(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if the limit is above the bound that Maurer & Pontil take from the variance."""
    n = losses.shape[1]
    if n < 2:
        return np.asarray(limit >= high)
    log_term = math.log(2 / delta)
    spread = np.sqrt(2 * losses.var(axis=1, ddof=1, keepdims=True) * log_term / n)
    slack = 7 * (high - low) * log_term / (3 * (n - 1))
    return np.asarray((losses.mean(axis=1, keepdims=True) + spread + slack <= limit) | (limit >= high))


def hoeffding(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if the limit is above the bound that Hoeffding takes from the range alone."""
    slack = (high - low) * math.sqrt(math.log(1 / delta) / (2 * losses.shape[1]))
    return np.asarray((losses.mean(axis=1, keepdims=True) + slack <= limit) | (limit >= high))


TESTS: dict[str, Callable[[Float64, Float64, float, float, float], Bool]] = {
    "wsr": plug_in_bets,
    "hoeffding_bentkus": hoeffding_bentkus,
    "empirical_bernstein": empirical_bernstein,
    "hoeffding": hoeffding,
}
