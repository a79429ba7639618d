"""Let the request in work use what the limits of its caller leave (`Admission`)."""

from __future__ import annotations

import contextvars
import math

from router.errors import LimitExceededError
from router.identity.accounts import Account
from router.identity.counts import DoorName, Refusal, RefusalCounts
from router.identity.principal import BeyondLimit


class Admission:
    """Checks one request against the limits of its caller, counts what it uses, and refuses what is beyond a limit.

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
        if self.account.limits.beyond is BeyondLimit.REFUSE and (wait_s := self.account.budget_wait_s()):
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
        if can_be_cheap and account.limits.beyond is BeyondLimit.CHEAP:
            return False
        if budget_wait_s:
            raise self._refused(Refusal.OVER_BUDGET, "US dollars a day", budget_wait_s)
        account.count_refusal()
        # How soon the share allows another strong decision depends on how much the caller asks meanwhile.
        raise self._refused(Refusal.OVER_STRONG_SHARE, "decisions for a strong candidate", 1.0)

    def reserve(self, usd: float) -> None:
        """Count what an answer is expected to cost."""
        self._reserved += usd
        self.account.reserve(usd)

    def settle(self, usd: float) -> None:
        """Count what an answer has cost, in place of what was expected."""
        self.account.spend(usd, reserved=self._reserved)
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
