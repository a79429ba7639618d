"""Draw another candidate for a share of decisions, within a bound of USD a day (`Explorer`), and log the propensity."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from router.decision import Reason
from router.observing.observer import AnsweredEvent, Observer
from router.policies.choice import Choice
from router.policies.eligibility import Eligibility
from router.values import HeldCandidate

#: The reasons of choices that the rule of the policy made by itself. Nothing else is explored: not what a caller, a
#: session, an abstention or a limit decides.
EXPLORED_REASONS = frozenset(
    {Reason.GAIN_ABOVE_THRESHOLD, Reason.GAIN_BELOW_THRESHOLD, Reason.WITHIN_RISK_BOUND, Reason.FIXED}
)

_DAY_S = 86_400


class Explorer(Observer):
    """Explores for policies whose key `explore` says so. It is an observer, because answers say what was really spent.

    With the probability `share` another eligible candidate answers, each with the same probability. The record has the
    probability of what happened (`propensity`), without which no other policy could be judged by the ledger.

    Args:
        spent_today: for each policy the USD that exploring has cost today, before this process started.
        parts: the number of processes that share the bounds.
        chance: returns a random number from 0 to 1.
        now: returns the time in seconds since 1970; a day ends at midnight UTC.
    """

    def __init__(
        self,
        spent_today: Mapping[str, float],
        *,
        parts: int = 1,
        chance: Callable[[], float] = random.random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._before = dict(spent_today)
        self._parts, self._chance, self._now = parts, chance, now
        self._day = self._today()
        self._spent: dict[str, float] = {}
        self._lock = threading.Lock()

    def explored(self, eligibility: Eligibility, held: HeldCandidate | None, choice: Choice) -> Choice:
        """Return the choice, or one of another candidate. Either has the probability with which it was drawn.

        A request that goes on with a session or a tool loop, or that replaces the rule, is left as it is.
        """
        file, overrides = eligibility.rules.file, eligibility.overrides
        explore = file.explore
        is_free = held is None and not eligibility.ask.in_tool_loop and not eligibility.kept_by
        is_free = is_free and overrides.max_risk is None and overrides.min_gain is None
        if explore is None or not is_free or choice.reason not in EXPLORED_REASONS:
            return choice
        with self._lock:
            left = self._left_usd(file.name, explore.usd_per_day)
            costs = {
                index: cost
                for index in eligibility.eligible
                if file.names[index] != choice.chosen.name
                and (cost := eligibility.candidates[index].expected_cost_usd) is not None
                and cost <= left
            }
            if not costs:
                return choice
            if self._chance() >= explore.share:
                return replace(choice, propensity=1 - explore.share)
            drawn = list(costs)[int(self._chance() * len(costs))]
            self._spend(file.name, costs[drawn])
        return replace(
            choice,
            chosen=file.candidates[drawn],
            reason=Reason.EXPLORED,
            would_choose=choice.chosen,
            propensity=explore.share / len(costs),
        )

    def answered(self, event: AnsweredEvent) -> None:
        """Count what the answer of an explored request cost beyond what was expected."""
        decision = event.decision
        if decision.reason is Reason.EXPLORED and event.cost_usd is not None:
            beyond = event.cost_usd - (decision.expected_usd(decision.chosen) or 0.0)
            with self._lock:
                self._spend(decision.policy.name.partition(":")[0], max(0.0, beyond))

    def _left_usd(self, policy: str, usd_per_day: float) -> float:
        if self._today() != self._day:
            self._day, self._before, self._spent = self._today(), {}, {}
        left = (usd_per_day - self._before.get(policy, 0.0)) / self._parts
        return left - self._spent.get(policy, 0.0)

    def _spend(self, policy: str, usd: float) -> None:
        self._spent[policy] = self._spent.get(policy, 0.0) + usd

    def _today(self) -> int:
        return int(self._now() // _DAY_S)


def start_of_day(now: float) -> float:
    """Return when the day (UTC) of a time began, in seconds since 1970."""
    return now // _DAY_S * _DAY_S


def explored_choice(
    explorer: Explorer | None, eligibility: Eligibility, held: HeldCandidate | None, choice: Choice
) -> Choice:
    """Return what `Explorer.explored` returns; without an explorer, as outside of a service, the choice itself."""
    return choice if explorer is None else explorer.explored(eligibility, held, choice)
