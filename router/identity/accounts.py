"""Hold each caller to the limits of its token: rate, share of strong answers, and money (`Accounts`).

No request waits for other processes. Each process says what its callers have used (`Accounts.take_unsent`), and takes
over what they have used elsewhere (`Accounts.learn`), a few times a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from router.identity.counts import CallerFigures
from router.identity.principal import NO_LIMITS, Principal, TokenLimits
from router.sharing.buckets import Bucket, Credit
from router.sharing.usage import CallerUsage, Unsent

#: How many decisions may go to a strong candidate beyond the share, so that a few hard requests in a row may.
STRONG_BURST = 20

#: The most callers that are remembered. The one that called least recently is forgotten, and begins anew.
MOST_CALLERS = 50_000

_DAY_S = 86_400

#: The part of a budget of a day that a process may spend before the others know of it.
SLICE = 1 / 20

#: Seconds after which a caller may ask again whose process has spent such a part, and has not yet heard of the others.
_UNHEARD_S = 1.0


class Account:
    """Counts what one caller uses, and says whether it may use more. One event loop and one other thread use it.

    Args:
        limits: what the caller may use. clock: returns seconds that never go backwards. now: the Unix time in seconds.
        figures: what all callers of the same label have used; this one adds to it.
        on_use: called when the caller uses something; True says that others should know of it soon.
    """

    def __init__(
        self,
        limits: TokenLimits,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        figures: CallerFigures | None = None,
        on_use: Callable[[bool], None] = lambda soon: None,
    ) -> None:
        self._clock, self._now = clock, now
        self._figures = figures or CallerFigures()
        self._on_use = on_use
        self._lock = threading.Lock()
        self._day = 0
        #: What all processes have used on this day, as far as this one has heard; None before it has heard anything.
        self._known: CallerUsage | None = None
        self._unsent = CallerUsage()
        #: Whether others hear of what is unsent within a second.
        self.is_shared = False
        self._hold_to(limits)

    def set_limits(self, limits: TokenLimits) -> None:
        """Hold the caller to these limits from now on. Limits that are equal to the old ones change nothing."""
        if limits != self.limits:
            self._hold_to(limits)

    def _hold_to(self, limits: TokenLimits) -> None:
        rates = ((limits.requests_per_second, 1), (limits.requests_per_minute, 60))
        self._buckets = [Bucket(most / per_s, most, self._clock()) for most, per_s in rates if most is not None]
        self._credit = Credit(limits.strong_share or 0.0, STRONG_BURST)
        self.limits: TokenLimits = limits
        self.is_limited = limits != NO_LIMITS

    @property
    def usd_today(self) -> float:
        """The US dollars that the answers of this day (UTC) have cost, as far as this process knows."""
        self._begin_day()
        return max(0.0, self._unsent.usd + (self._known.usd if self._known is not None else 0.0))

    def take_request(self) -> float:
        """Count one request, and return 0; or return the seconds until the caller may send one."""
        now = self._clock()
        with self._lock:
            wait_s = max((bucket.wait_s(now) for bucket in self._buckets), default=0.0)
            if wait_s == 0:
                for bucket in self._buckets:
                    bucket.take()
                self._unsent.requests += 1
            unheard = self._known is None
        # A refused caller is counted too, because others may have given money back meanwhile.
        self._on_use(unheard)
        return wait_s

    def budget_wait_s(self) -> float:
        """Return 0, or the seconds until the caller may spend money again."""
        most = self.limits.usd_per_day
        if most is None:
            return 0.0
        if self.usd_today >= most:
            return _DAY_S - self._now() % _DAY_S
        if self.is_shared and self._unsent.usd >= most * SLICE:
            self._on_use(True)
            return _UNHEARD_S
        return 0.0

    def may_be_strong(self) -> bool:
        """Return whether one more decision may go to a strong candidate, as far as the share is concerned."""
        return self.limits.strong_share is None or self._credit.is_enough

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
        with self._lock:
            self._unsent.turns += 1
            self._unsent.strong += strong
            self._credit.count(strong=strong)

    def spend(self, usd: float, *, reserved: float = 0.0) -> None:
        """Count money, of which so much was reserved; a number below zero corrects what was counted before."""
        with self._lock:
            self._figures.spend(usd)
        self.reserve(usd - reserved)

    def reserve(self, usd: float) -> None:
        """Count money that is probably to be spent; a number below zero gives back what was reserved before."""
        self._begin_day()
        with self._lock:
            self._unsent.usd += usd
        self._on_use(self._unsent.usd >= (self.limits.usd_per_day or math.inf) * SLICE / 2)

    def take_unsent(self) -> tuple[int, CallerUsage]:
        """Return the day, and what was used since the last call, so that others are told."""
        self._begin_day()
        with self._lock:
            taken, self._unsent = self._unsent, CallerUsage()
            # Until the others have answered, it still counts here.
            if self._known is not None:
                self._known.add(taken)
            return self._day, taken

    def give_back(self, sent: CallerUsage) -> None:
        """Take back what `take_unsent` returned, because nobody could be told. What others did meanwhile is unknown."""
        with self._lock:
            if self._known is not None:
                self._known.add(sent, -1)
            self._unsent.add(sent)

    def learn(self, day: int, sent: CallerUsage, total: CallerUsage, *, is_new: bool) -> None:
        """Take over what all processes have used on a day, after `sent` of this one was added.

        is_new: whether this process has heard nothing for long. Then nobody knows when the others used their requests,
            and only the money counts.
        """
        self._begin_day()
        with self._lock:
            if day != self._day:
                return
            if self._known is not None and not is_new:
                elsewhere = CallerUsage(total.requests, total.turns, total.strong, 0.0)
                elsewhere.add(self._known, -1)
                for bucket in self._buckets:
                    bucket.take_elsewhere(max(0, elsewhere.requests), self._clock())
                self._credit.count_elsewhere(elsewhere.turns, elsewhere.strong)
            self._known = total

    def _begin_day(self) -> None:
        day = int(self._now() // _DAY_S)
        if day != self._day:
            with self._lock:
                self._day = day
                self._unsent.usd = 0.0
                # Nobody has used anything of a day that begins.
                self._known = None if self._known is None else CallerUsage()


class Accounts:
    """Holds the account of each caller of a process.

    Args:
        clock: returns seconds that never go backwards. now: the Unix time in seconds.

    Attributes:
        clock_ahead_s: how far the clock by which days begin for all is ahead of that of this machine.
        on_due: called when others should hear soon of what callers have used; None if nobody tells them.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time) -> None:
        self._clock, self._local_now = clock, now
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._figures: dict[str, CallerFigures] = {}
        self._used: dict[str, Account] = {}
        self._is_shared = False
        self.clock_ahead_s = 0.0
        self.on_due: Callable[[], None] | None = None

    def of(self, principal: Principal) -> Account:
        """Return the account of a caller, under the limits that its credential has now."""
        found = self._accounts.get(principal.id)
        if found is None:
            found = self._accounts[principal.id] = self._opened(principal)
            if len(self._accounts) > MOST_CALLERS:
                self._accounts.popitem(last=False)
        self._accounts.move_to_end(principal.id)
        # A principal is the same object until its file changes, and comparing values takes microseconds.
        if found.limits is not principal.limits:
            found.set_limits(principal.limits)
        return found

    def figures(self) -> Mapping[str, CallerFigures]:
        """Return what the callers have used, by their label. Another thread may ask."""
        return {label: replace(one) for label, one in tuple(self._figures.items())}

    def share(self, *, works: bool) -> None:
        """Say whether others hear of what callers use. While they do not, each process holds to the limits alone."""
        if works == self._is_shared:
            return
        self._is_shared = works
        for account in tuple(self._accounts.values()):
            account.is_shared = works

    def take_unsent(self) -> list[Unsent]:
        """Return what callers with limits have used since the last call, each caller once.

        `learn` or `give_back` must follow.
        """
        found: dict[str, Unsent] = {}
        again: dict[str, Account] = {}
        while self._used:
            account_id, account = self._used.popitem()
            if account_id in found:
                # The caller has used more meanwhile.
                again[account_id] = account
            else:
                found[account_id] = Unsent(account_id, *account.take_unsent())
        self._used.update(again)
        return list(found.values())

    def learn(self, sent: Unsent, total: CallerUsage, *, is_new: bool) -> None:
        """Take over what a caller has used in all processes; see `Account.learn`."""
        if (account := self._accounts.get(sent.account)) is not None:
            account.learn(sent.day, sent.usage, total, is_new=is_new)

    def give_back(self, sent: Unsent) -> None:
        """Take back what nobody could be told; see `Account.give_back`."""
        if (account := self._accounts.get(sent.account)) is not None:
            account.give_back(sent.usage)
            self._used[sent.account] = account

    def _opened(self, principal: Principal) -> Account:
        account_id = principal.id
        figures = self._figures.setdefault(principal.label, CallerFigures())

        def on_use(soon: bool) -> None:
            on_due = self.on_due
            if on_due is None or not account.is_limited:
                return
            if len(self._used) < MOST_CALLERS:
                self._used[account_id] = account
            if soon:
                on_due()

        account = Account(principal.limits, self._clock, self._now, figures, on_use)
        account.is_shared = self._is_shared
        return account

    def _now(self) -> float:
        return self._local_now() + self.clock_ahead_s
