"""Watch whether a served policy still meets its target, one label at a time (`RiskMonitor`).

It keeps an e-process and a confidence sequence. You may look at both after every label and stop at any moment for any
reason: the error rates hold over the whole run at once (Ville's inequality).

What may be fed. Each loss, given everything before it, must have the mean that the target is about:

* a uniform audit: each request is audited with the same probability by an independent coin, and only
  audited requests are fed, with inclusion 1;
* an uneven audit: each request has its own probability pi >= `min_inclusion`, fixed before its loss is
  known. Then *every* request is fed: an audited one with its loss and its pi, all others as loss 0. A
  loss weighs 1 / pi (Horvitz & Thompson 1952), which keeps the mean right. Requests that went to the
  reference itself have a drop of 0 without any audit.

Feedback that users volunteer is neither, because who complains depends on the loss. A drop in quality needs a judgement
of both answers to a prompt, the served one and that of the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from probes._checks import Float64
from probes.certificates.bounds import check_delta
from probes.errors import DataError

# Stakes as shares of the largest bet. A small stake finds a small excess; a mixture of all needs no guess of its size.
_SHARES: Final = np.geomspace(0.01, 0.9, 10)
_SCHEMA: Final = 1
_FIELDS: Final = ("n", "peak_log_wealth", "mean", "squares", "sum_bet", "sum_bet_y", "sum_penalty")


class RiskMonitor:
    """Raises an alarm if the mean loss exceeds `limit`; a false alarm has probability at most alpha over all time.

    limit: the certified one. losses in [low, high], low <= 0 <= high. min_inclusion: the smallest audit
    probability that will be fed, in (0, 1]; with a smaller one detection is slower. Memory is constant;
    `state` is a plain JSON-ready dict of a few dozen numbers.

    Raises DataError for arguments outside their ranges.
    """

    def __init__(
        self,
        limit: float,
        alpha: float = 0.05,
        *,
        low: float = -1.0,
        high: float = 1.0,
        min_inclusion: float = 1.0,
    ) -> None:
        check_delta(alpha)
        if not 0 < min_inclusion <= 1:
            raise DataError(f"min_inclusion must lie in (0, 1]; got {min_inclusion}. Use 1 for a uniform audit.")
        if not low <= 0 <= high or not low < limit < high:
            raise DataError(
                f"a monitor needs low <= 0 <= high and low < limit < high; got low {low}, limit {limit}, "
                f"high {high}. Give the range of a single loss."
            )
        self.limit, self.alpha = float(limit), float(alpha)
        self.low, self.high, self.min_inclusion = float(low), float(high), float(min_inclusion)
        # A loss counts 1 / inclusion times, so it may lie this far below the limit. A larger bet could cost more than
        # all wealth.
        self._bets = _SHARES / (limit - low / min_inclusion)
        # The share 1 / (1 * 2) of the wealth that `_bet` stakes before the first label.
        self._log_stakes = np.full(_SHARES.size, math.log(0.5))
        self.n = 0
        self.peak_log_wealth = 0.0
        # One pseudo-label in the middle of the range, with the largest variance, as in Waudby-Smith & Ramdas (2023).
        self._mean, self._squares = 0.5, 0.25
        self._sum_bet = self._sum_bet_y = self._sum_penalty = 0.0

    def update(self, losses: npt.ArrayLike, inclusion: npt.ArrayLike = 1.0) -> RiskMonitor:
        """Add one loss or several in their order and return self; a batch equals single updates.

        losses: scalar or (b,) in [low, high]. inclusion: audit probability of each, in [min_inclusion, 1].
        Nothing is taken if any number is out of range (DataError names the first).
        """
        values, chances = np.broadcast_arrays(
            np.atleast_1d(np.asarray(losses, dtype=float)), np.asarray(inclusion, dtype=float)
        )
        _refuse_outside("losses", values, self.low, self.high)
        _refuse_outside("inclusion", chances, self.min_inclusion, 1.0)
        for x in (values / chances).tolist():
            self._bet(x)
            self._narrow(x)
        return self

    @property
    def log_wealth(self) -> float:
        """The natural logarithm of the current wealth of the bets against "the mean loss is at most `limit`"."""
        staked = float(np.logaddexp.reduce(self._log_stakes)) - math.log(_SHARES.size)
        return float(np.logaddexp(staked, -math.log(self.n + 2)))

    @property
    def p_value(self) -> float:
        """The anytime-valid p-value of "the mean loss is at most `limit`": one over the highest wealth so far."""
        return math.exp(-self.peak_log_wealth)

    @property
    def alarmed(self) -> bool:
        """True if wealth has ever reached 1 / alpha, which means that the policy no longer meets its target."""
        return self.peak_log_wealth >= -math.log(self.alpha)

    def interval(self) -> tuple[float, float]:
        """Return a confidence sequence for the mean loss, covering at all times with chance 1 - alpha.

        Predictable plug-in empirical Bernstein (Waudby-Smith & Ramdas 2023, theorem 2). While the mean moves,
        it covers the average of the means so far, weighted by the bets.
        """
        low, width = self._scale()
        if not self.n:
            return self.low, self.high
        centre = self._sum_bet_y / self._sum_bet
        radius = (math.log(2 / self.alpha) + self._sum_penalty) / self._sum_bet
        left, right = low + width * (centre - radius), low + width * (centre + radius)
        return max(left, self.low), min(right, self.high)

    def state(self) -> dict[str, Any]:
        """Return everything that `from_state` needs, as a dict of numbers and one list; JSON-ready."""
        settings = {name: getattr(self, name) for name in ("limit", "alpha", "low", "high", "min_inclusion")}
        counts = {name: getattr(self, _attribute(name)) for name in _FIELDS}
        return {"schema": _SCHEMA, **settings, **counts, "log_stakes": self._log_stakes.tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> RiskMonitor:
        """Return the monitor that `state` was taken from. Raises DataError for missing or unusable fields."""
        if state.get("schema") != _SCHEMA:
            raise DataError(
                f"a monitor state must have schema {_SCHEMA}; got {state.get('schema')!r}. Start a new monitor."
            )
        number = {name: _number(state, name) for name in (*_FIELDS, *("limit", "alpha", "low", "high"))}
        monitor = cls(
            number["limit"],
            number["alpha"],
            low=number["low"],
            high=number["high"],
            min_inclusion=_number(state, "min_inclusion"),
        )
        stakes = state.get("log_stakes")
        if not isinstance(stakes, list) or len(stakes) != _SHARES.size:
            raise DataError(f"log_stakes of a monitor state must be a list of {_SHARES.size} numbers.")
        monitor._log_stakes = np.array([_number({"log_stakes": v}, "log_stakes") for v in stakes])
        for name in _FIELDS:
            setattr(monitor, _attribute(name), number[name])
        monitor.n = int(number["n"])
        return monitor

    def _bet(self, x: float) -> None:
        """Bet on one loss with every stake, and update the wealth.

        A share 1 / (k (k + 1)) of the initial wealth 1 is staked before label k, and the rest waits as cash (a mixture
        over start times, as in Shiryaev-Roberts). So a change after a long good run meets new stakes, at a price of
        2 log k. The stakes already hold the share for the next round, which leaves the cash of 1 / (n + 2) in
        `log_wealth`. Each part is a supermartingale while the mean is within the limit.
        """
        grown = self._log_stakes + np.log1p(self._bets * (x - self.limit))
        self.n += 1
        self._log_stakes = np.logaddexp(grown, -math.log((self.n + 1) * (self.n + 2)))
        self.peak_log_wealth = max(self.peak_log_wealth, self.log_wealth)

    def _narrow(self, x: float) -> None:
        """Add one label to the sums of the confidence sequence, on a scale on which its range is [0, 1]."""
        low, width = self._scale()
        y, t = (x - low) / width, self.n
        variance = self._squares / t
        bet = min(math.sqrt(2 * math.log(2 / self.alpha) / (variance * t * math.log(1 + t))), 0.5)
        self._sum_bet += bet
        self._sum_bet_y += bet * y
        self._sum_penalty += (y - self._mean) ** 2 * (-math.log1p(-bet) - bet)
        self._mean += (y - self._mean) / (t + 1)
        self._squares += (y - self._mean) ** 2

    def _scale(self) -> tuple[float, float]:
        low = self.low / self.min_inclusion
        return low, self.high / self.min_inclusion - low


def _attribute(name: str) -> str:
    return name if name in ("n", "peak_log_wealth") else f"_{name}"


def _number(state: Mapping[str, Any], name: str) -> float:
    value = state.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{name} of a monitor state must be a finite number; got {value!r}. Use an undamaged state.")
    return float(value)


def _refuse_outside(name: str, values: Float64, low: float, high: float) -> None:
    if values.ndim != 1:
        raise DataError(f"{name} must be a number or a vector; got shape {values.shape}.")
    outside = ~((values >= low) & (values <= high))
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"{name} must lie in [{low:g}, {high:g}]; entry {row} is {values[row]}. Nothing was taken; repair it."
        )
