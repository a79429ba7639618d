"""Hold each caller to the limits of its token: rate, share of strong answers, and money (`Accounts`, `Admission`).

Every process counts for itself: behind N workers a caller has up to N times its limits.
"""

from __future__ import annotations

import contextvars
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from router.errors import LimitExceededError
from router.identity.counts import DoorName, Refusal, RefusalCounts
from router.identity.principal import Beyond, Principal, TokenLimits

#: How many decisions may go to a strong candidate beyond the share, so that a few hard requests in a row may.
STRONG_BURST = 20

#: The most callers that are remembered. The one that called least recently is forgotten, and begins anew.
MOST_CALLERS = 50_000

_DAY_S = 86_400


class Bucket:
    """Fills up steadily with permissions, up to a number, and gives them out one by one (a token bucket)."""

    def __init__(self, rate_per_s: float, capacity: float, now: float) -> None:
        self._rate, self._capacity = rate_per_s, max(1.0, capacity)
        self._level, self._at = self._capacity, now

    def wait_s(self, now: float) -> float:
        """Return the seconds until there is a permission; 0 if there is one."""
        self._level = min(self._capacity, self._level + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._level >= 1 - 1e-9 else (1 - self._level) / self._rate

    def take(self) -> None:
        """Take one permission, which must be there."""
        self._level -= 1


@dataclass(slots=True)
class Figures:
    """What the callers of one label have used since the process began.

    Attributes:
        decided, strong: the decisions, and those that went above the cheapest candidate that could answer.
        usd: the US dollars that their answers have cost.
    """

    decided: int = 0
    strong: int = 0
    usd: float = 0.0


class Account:
    """Counts what one caller uses, and says whether it may use more. It belongs to one event loop.

    Args:
        limits: what the caller may use.
        clock: returns seconds that never go backwards. now: returns the Unix time in seconds.
        figures: what all callers of the same label have used; this one adds to it.
    """

    def __init__(
        self,
        limits: TokenLimits,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        figures: Figures | None = None,
    ) -> None:
        self._clock, self._now = clock, now
        self._figures = figures or Figures()
        self._day, self._usd_today = 0, 0.0
        self.limits: TokenLimits = limits
        self._hold_to(limits)

    def set_limits(self, limits: TokenLimits) -> None:
        """Hold the caller to these limits from now on. Limits that are equal to the old ones change nothing."""
        if limits != self.limits:
            self._hold_to(limits)
        self.limits = limits

    def _hold_to(self, limits: TokenLimits) -> None:
        rates = ((limits.requests_per_second, 1), (limits.requests_per_minute, 60))
        self._buckets = [Bucket(most / per_s, most, self._clock()) for most, per_s in rates if most is not None]
        self._credit = float(STRONG_BURST) if limits.strong_share else 0.0
        self.limits = limits

    @property
    def usd_today(self) -> float:
        """The US dollars that the answers of this day (UTC) have cost."""
        day = int(self._now() // _DAY_S)
        if day != self._day:
            self._day, self._usd_today = day, 0.0
        return self._usd_today

    def take_request(self) -> float:
        """Count one request, and return 0; or return the seconds until the caller may send one."""
        now = self._clock()
        wait_s = max((bucket.wait_s(now) for bucket in self._buckets), default=0.0)
        if wait_s == 0:
            for bucket in self._buckets:
                bucket.take()
        return wait_s

    def budget_wait_s(self) -> float:
        """Return 0, or the seconds until the next day if the budget of this one is used up."""
        most = self.limits.usd_per_day
        if most is None or self.usd_today < most:
            return 0.0
        return _DAY_S - self._now() % _DAY_S

    def may_be_strong(self) -> bool:
        """Return whether one more decision may go to a strong candidate, as far as the share is concerned."""
        return self.limits.strong_share is None or self._credit >= 1 - 1e-9

    def count_decision(self, *, strong: bool) -> None:
        """Count a decision of this caller."""
        self._figures.decided += 1
        self._figures.strong += strong
        self._earn(strong)

    def count_refusal(self) -> None:
        """Count a request that was refused in place of a strong decision.

        It earns its share too; otherwise a caller who asks nothing easy would be refused for ever.
        """
        self._earn(strong=False)

    def _earn(self, strong: bool) -> None:
        # Each request earns a share of a strong decision, and a strong decision costs one.
        earned = self.limits.strong_share or 0.0
        self._credit = min(float(STRONG_BURST), self._credit + earned - strong)

    def spend(self, usd: float) -> None:
        """Count money; a number below zero gives money back that was counted before and was not spent."""
        self._usd_today = max(0.0, self.usd_today + usd)
        self._figures.usd = max(0.0, self._figures.usd + usd)


class Accounts:
    """Holds the account of each caller of a process.

    Args:
        clock: returns seconds that never go backwards. now: returns the Unix time in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock, self._now = clock, now
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._figures: dict[str, Figures] = {}

    def of(self, principal: Principal) -> Account:
        """Return the account of a caller, under the limits that its credential has now."""
        found = self._accounts.get(principal.id)
        if found is None:
            figures = self._figures.setdefault(principal.label, Figures())
            found = self._accounts[principal.id] = Account(principal.limits, self._clock, self._now, figures)
            if len(self._accounts) > MOST_CALLERS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(principal.id)
        # A principal is the same object until its file changes, and comparing values takes microseconds.
        if found.limits is not principal.limits:
            found.set_limits(principal.limits)
        return found

    def figures(self) -> Mapping[str, Figures]:
        """Return what the callers have used, by their label. Another thread may ask."""
        return {label: replace(one) for label, one in tuple(self._figures.items())}


class Admission:
    """Lets the request in work use what the limits of its caller leave, and refuses the rest.

    Attributes:
        pays: whether the request gets an answer that costs money, and not a decision alone.
        account: what the caller uses.
    """

    def __init__(self, account: Account, door: DoorName, counts: RefusalCounts, *, pays: bool) -> None:
        self.account, self.pays = account, pays
        self._door, self._counts = door, counts
        self._reserved = 0.0

    def take_request(self) -> None:
        """Count one request of the caller. Raises LimitExceededError if there are too many."""
        if wait_s := self.account.take_request():
            raise self._refused(Refusal.OVER_RATE, "requests", wait_s)

    def check_budget(self) -> None:
        """Raise LimitExceededError if the budget of the day is used up and the token says `refuse`."""
        if self.account.limits.beyond is Beyond.REFUSE and (wait_s := self.account.budget_wait_s()):
            raise self._refused(Refusal.OVER_BUDGET, "US dollars a day", wait_s)

    def require_budget(self) -> None:
        """Raise LimitExceededError if the budget of the day is used up, also if the token says `cheap`.

        It is for what no cheaper candidate can answer.
        """
        if wait_s := self.account.budget_wait_s():
            raise self._refused(Refusal.OVER_BUDGET, "US dollars a day", wait_s)

    def permit_strong(self, *, can_be_cheap: bool) -> bool:
        """Return whether a decision may go to a strong candidate; if not, the cheapest one is to answer.

        can_be_cheap: whether the cheapest candidate may answer, or the request itself rules it out.

        Raises LimitExceededError if the token says `refuse`, or if the request leaves no cheaper choice.
        """
        account = self.account
        budget_wait_s = account.budget_wait_s()
        if account.may_be_strong() and not budget_wait_s:
            return True
        if can_be_cheap and account.limits.beyond is Beyond.CHEAP:
            return False
        if budget_wait_s:
            raise self._refused(Refusal.OVER_BUDGET, "US dollars a day", budget_wait_s)
        account.count_refusal()
        # How soon the share allows another strong decision depends on how much the caller asks meanwhile.
        raise self._refused(Refusal.OVER_STRONG_SHARE, "decisions for a strong candidate", 1.0)

    def reserve(self, usd: float) -> None:
        """Count what an answer is expected to cost."""
        self._reserved += usd
        self.account.spend(usd)

    def settle(self, usd: float) -> None:
        """Count what an answer has cost, in place of what was expected."""
        self.account.spend(usd - self._reserved)
        self._reserved = 0.0

    def _refused(self, reason: Refusal, what: str, wait_s: float) -> LimitExceededError:
        self._counts.add(self._door, reason)
        return LimitExceededError(
            f"the limit of this token on {what} is reached; try again in {math.ceil(wait_s)} s, or ask whoever runs "
            "the service for another limit.",
            retry_after_s=wait_s,
        )


#: What the request that the current task works on may use; None if its caller has no account.
current_admission: contextvars.ContextVar[Admission | None] = contextvars.ContextVar("current_admission", default=None)
