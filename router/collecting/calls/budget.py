"""Keep spending within bounds that are hard: what a call can cost at most is reserved before the call is sent.

`Budget.admit` takes the prompts in their order and lets none pass another. If cheap prompts could pass expensive ones
when money runs short, the prompts that are done would no longer be a random sample of the log.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.policies.candidates.candidate import Prices
from router.values import Message

#: Tokens that a provider may add to each message and to a whole chat, far more than any chat template does.
_TOKENS_PER_MESSAGE, _TOKENS_PER_CHAT = 16, 64


class StopCollectingError(Exception):
    """Nothing more may be asked; what has been paid for is kept. The message says why and what to do."""


def most_input_tokens(messages: Sequence[Message], parameters: Mapping[str, Any]) -> int:
    """Return a number of input tokens that no provider exceeds: the bytes of the request, since a token has a byte."""
    texts = [json.dumps(message, ensure_ascii=False, default=dict) for message in (*messages, parameters)]
    n_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
    return n_bytes + _TOKENS_PER_MESSAGE * len(messages) + _TOKENS_PER_CHAT


@dataclass(frozen=True, slots=True)
class Cost:
    """What calls cost at most: USD, and their number."""

    usd: float
    calls: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.usd + other.usd, self.calls + other.calls)

    @classmethod
    def of_call(cls, prices: Prices | None, input_tokens: float, output_tokens: float) -> Cost:
        """Return the cost of one call; it is 0 USD if the price is not known, which a budget in USD does not allow."""
        return cls(prices.cost_usd(input_tokens, output_tokens) if prices else 0.0, 1)


NOTHING = Cost(0.0, 0)


class Budget:
    """Counts what is spent and what is reserved; their sum never exceeds the bounds.

    Args:
        max_usd: the most USD that may be spent; None for no bound.
        max_calls: the most calls that may be answered; None for no bound.
        spent: what earlier runs spent for the same purpose.
    """

    def __init__(self, max_usd: float | None, max_calls: int | None, spent: Cost = NOTHING) -> None:
        self._max_usd = math.inf if max_usd is None else max_usd
        self._max_calls = math.inf if max_calls is None else max_calls
        self.spent = spent
        self._held = NOTHING
        self._open = 0
        self._freed = asyncio.Event()

    async def admit(self, cost: Cost) -> Reservation | None:
        """Reserve what a prompt can cost at most, as soon as it fits, and return the reservation.

        Return None if it does not fit although nothing else is reserved any more. Call it for one prompt at a time.
        """
        while not self._fits(cost):
            if not self._open:
                return None
            self._freed.clear()
            await self._freed.wait()
        self._held += cost
        self._open += 1
        return Reservation(self, cost)

    def _fits(self, more: Cost) -> bool:
        if more == NOTHING:
            return True
        total = self.spent + self._held + more
        # Sums of doubles differ in their last bits by the order of what is added.
        return total.usd <= self._max_usd * (1 + 1e-12) and total.calls <= self._max_calls


class Reservation:
    """The part of a budget that is reserved for one prompt. Close it when the prompt is done."""

    def __init__(self, budget: Budget, cost: Cost) -> None:
        self._budget, self._left = budget, cost

    def take(self, worst: Cost) -> None:
        """Set aside what a call can cost at most. If it is more than is left, more is reserved.

        Raises StopCollectingError if that does not fit into the budget.
        """
        more = Cost(max(0.0, worst.usd - self._left.usd), max(0, worst.calls - self._left.calls))
        if not self._budget._fits(more):
            raise StopCollectingError("the budget is spent; raise --budget-usd or --max-calls to go on.")
        self._budget._held += more
        self._left += Cost(more.usd - worst.usd, more.calls - worst.calls)

    def settle(self, worst: Cost, charged: Cost) -> None:
        """Replace what was set aside for a call by what it cost; the difference is left for the prompt."""
        self._budget.spent += charged
        saved = Cost(worst.usd - charged.usd, worst.calls - charged.calls)
        self._budget._held += Cost(-charged.usd, -charged.calls)
        self._left += saved

    def close(self) -> None:
        """Give back what is left."""
        self._budget._held += Cost(-self._left.usd, -self._left.calls)
        self._left = NOTHING
        self._budget._open -= 1
        self._budget._freed.set()
