"""Testing a bounded mean by betting: wealth that cannot grow on average while the mean exceeds the limit."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

# A bet of 1 / (high - limit) would lose everything on one loss of `high`; we stop short of that.
_BOLDEST = 0.9


def targeted_bets(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return True where "mean loss > limit" is rejected at level delta by bets that aim at the last row.

    losses: (p, n) in [low, high], p policies, samples in an order fixed before any loss was seen. limit: (p,
    k). Returns (p, k).

    Validity (Waudby-Smith & Ramdas 2023, section 4; Ville's inequality): wealth starts at 1 and is multiplied
    by 1 + b (limit - loss), the bet b >= 0 depending on the past only and small enough to keep wealth
    positive. If the mean exceeds the limit, wealth is a supermartingale, so it ever reaches 1 / delta with
    probability at most delta, whatever the bets. They only decide the power.

    The bets: with a fixed n, the strongest test of a Gaussian mean at level delta is a digital option, worth
    Phi(z) / delta when its moneyness is z and 1 / delta or nothing at the end. We hold its hedge. Current
    wealth W gives z = Phi^-1(delta W), and the hedge is b = phi(z) / (Phi(z) s sqrt(left)), with s^2 the
    running second moment of limit - loss and `left` the samples still to come. Working back from the wealth
    that is there, not from the one planned, is the idea of STaR-Bets (Voracek & Orabona 2025), whose b
    replaces phi / Phi by its limit sqrt(2 log(1 / delta W)); the exact ratio is what recovers the normal
    quantile, 1.64 at delta = .05 where log(1 / delta) alone costs 2.45.
    """
    n = losses.shape[1]
    target = -math.log(delta)
    log_wealth = np.zeros(limit.shape)
    reached = np.broadcast_to(limit >= high, limit.shape).copy()
    cap = _BOLDEST / np.maximum(high - limit, 1e-12)
    second_moment = np.full(limit.shape, ((high - low) / 4) ** 2)  # one pseudo-sample, soon outweighed
    log_u, ratio = _inverse_mills()
    rows = np.ascontiguousarray(losses.T)
    for i in range(n):
        pull = np.interp(log_wealth - target, log_u, ratio)
        bet = np.minimum(pull / np.sqrt(second_moment * ((n - i) / (i + 1))), cap)
        x = limit - rows[i][:, None]
        # at the target the money is put away: the test is decided
        log_wealth = np.where(reached, log_wealth, log_wealth + np.log1p(bet * x))
        reached |= log_wealth >= target
        second_moment += x * x
    return reached


def plug_in_bets(losses: Float64, limit: Float64, delta: float, low: float, high: float) -> Bool:
    """Return True where "mean loss > limit" is rejected by Waudby-Smith & Ramdas's plug-in bets.

    Shapes, order and validity as in `targeted_bets`; the bet is sqrt(2 log(1 / delta) / (n s^2)) with s^2 the
    running variance (their equation 26, one-sided). Kept as the yardstick.
    """
    p, n = losses.shape
    target = -math.log(delta)
    cap = _BOLDEST / np.maximum(high - limit, 1e-12)
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


@cache
def _inverse_mills() -> tuple[Float64, Float64]:
    """A table of log Phi(z), ascending, and phi(z) / Phi(z)."""
    z = np.linspace(-12.0, 8.0, 4001)
    upper = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in z])
    lower = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in z])
    log_phi = np.where(z < 0, np.log(lower), np.log1p(-np.minimum(upper, 0.5)))
    return log_phi, np.exp(-z * z / 2 - log_phi) / math.sqrt(2 * math.pi)
