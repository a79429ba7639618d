"""Define what processes tell each other of their callers (`CallerUsage`), and who can tell it (`UsageBook`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(slots=True)
class CallerUsage:
    """Counts what a caller has used.

    Attributes:
        requests: the requests that were let in.
        turns: the decisions and refusals that earn a share of a strong decision.
        strong: the decisions for a strong candidate.
        usd: the US dollars.
    """

    requests: int = 0
    turns: int = 0
    strong: int = 0
    usd: float = 0.0

    def add(self, other: CallerUsage, sign: int = 1) -> None:
        """Add what another counts, or take it away with the sign -1."""
        self.requests += sign * other.requests
        self.turns += sign * other.turns
        self.strong += sign * other.strong
        self.usd += sign * other.usd


@dataclass(frozen=True, slots=True)
class Unsent:
    """Says what a caller has used since others were told.

    Attributes:
        account: the id of the caller.
        day: the days since 1970 (UTC).
        usage: what it has used on this day.
    """

    account: str
    day: int
    usage: CallerUsage


class UsageBook(Protocol):
    """Knows what the callers of a process have used, as `router.identity.accounts.Accounts` does.

    Attributes:
        clock_ahead_s: how far the clock by which days begin is ahead of that of this machine.
        on_due: called when others should hear soon of what callers have used; None if nobody tells them.
    """

    clock_ahead_s: float
    on_due: Callable[[], None] | None

    def share(self, *, works: bool) -> None:
        """Say whether others hear of what callers use."""

    def take_unsent(self) -> list[Unsent]:
        """Return what callers have used since the last call."""

    def learn(self, sent: Unsent, total: CallerUsage, *, is_new: bool) -> None:
        """Take over what a caller has used in all processes."""

    def give_back(self, sent: Unsent) -> None:
        """Take back what nobody could be told."""
