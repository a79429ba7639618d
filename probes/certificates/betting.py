"""Test by betting whether a bounded mean exceeds a limit: while it does, wealth cannot grow on average."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from probes._checks import Bool, Float64

BOLDEST = 0.9
"""The largest bet, as a share of 1 / (high - limit): that one would lose everything on a single loss of `high`."""


def targeted_bets(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return (p, k) booleans: True if "mean loss > limit" is rejected at level delta by bets aimed at the last sample.

    losses: (p, n) in [low, high], p policies, samples in an order fixed before any loss was seen. limit: (p, k).

    Validity (Waudby-Smith & Ramdas 2023, section 4; Ville's inequality): wealth starts at 1 and is multiplied by
    1 + b (limit - loss). The bet b >= 0 depends on the past only and is small enough to keep wealth positive. If the
    mean exceeds the limit, wealth is a supermartingale, so it ever reaches 1 / delta with probability at most delta,
    whatever the bets are. The bets only decide the power.

    The bets: with a fixed n, the strongest test of a Gaussian mean at level delta is a digital option, which is worth
    Phi(z) / delta at moneyness z, and 1 / delta or nothing at the end. We hold its hedge. Current wealth W gives
    z = Phi^-1(delta W), and the hedge is b = phi(z) / (Phi(z) s sqrt(left)), with s^2 the running second moment of
    limit - loss and `left` the number of samples still to come. STaR-Bets (Voracek & Orabona 2025) have the idea of
    working back from the current wealth instead of the planned one; their b replaces phi / Phi by its limit
    sqrt(2 log(1 / delta W)). The exact ratio recovers the normal quantile, 1.64 at delta = .05, where
    log(1 / delta) alone costs 2.45.
    """
    n = losses.shape[1]
    target = -math.log(delta)
    log_wealth = np.zeros(limit.shape)
    # No mean of losses of at most `high` exceeds such a limit, so nothing has to be bet.
    reached = np.broadcast_to(limit >= high, limit.shape).copy()
    cap = BOLDEST / np.maximum(high - limit, 1e-12)
    second_moment = np.full(limit.shape, ((high - low) / 4) ** 2)  # one pseudo-sample, soon outweighed
    log_phi, ratio = inverse_mills()
    columns = np.ascontiguousarray(losses.T)
    for i in range(n):
        # The bet on sample i must not look at it: that it depends on the past only is what the proof needs.
        pull = np.interp(log_wealth - target, log_phi, ratio)
        # `second_moment` is a sum over i + 1 samples, the first of which is the pseudo-sample, and n - i are left.
        bet = np.minimum(pull / np.sqrt(second_moment * ((n - i) / (i + 1))), cap)
        x = limit - columns[i][:, None]
        # Once the target is reached, the test is decided and nothing more is bet.
        log_wealth = np.where(reached, log_wealth, log_wealth + np.log1p(bet * x))
        reached |= log_wealth >= target
        second_moment += x * x
    return reached


@cache
def inverse_mills() -> tuple[Float64, Float64]:
    """Return a table of the inverse Mills ratio: log Phi(z), ascending, and phi(z) / Phi(z) beside it."""
    z = np.linspace(-12.0, 8.0, 4001)
    upper = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in z])
    lower = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    # Each half uses the tail that is small there, which keeps its relative accuracy.
    log_phi = np.where(z < 0, np.log(lower), np.log1p(-np.minimum(upper, 0.5)))
    return log_phi, np.exp(-z * z / 2 - log_phi) / math.sqrt(2 * math.pi)
