"""Processes that tell each other what a caller has used hold it together to its limits, within stated bounds."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.identity.accounts import SLICE, STRONG_BURST, Accounts, CallerUsage
from router.identity.principal import Principal, Scope, TokenLimits

DAY_S = 86_400.0


class Cluster:
    """Some processes with one clock, and what they would tell a database."""

    def __init__(self, n: int, **limits: Any) -> None:
        self.at_s = 20_000 * DAY_S
        self.totals: dict[tuple[str, int], CallerUsage] = {}
        self.processes = [Accounts(clock=lambda: self.at_s, now=lambda: self.at_s) for _ in range(n)]
        self.caller = Principal("me", "me", frozenset(Scope), TokenLimits.model_validate(limits))
        for process in self.processes:
            process.on_due = lambda: None
            process.share(works=True)

    def exchange(self, process: Accounts, *, is_new: bool = False) -> None:
        for unsent in process.take_unsent():
            total = self.totals.setdefault((unsent.account, unsent.day), CallerUsage())
            total.add(unsent.usage)
            process.learn(unsent, CallerUsage(total.requests, total.turns, total.strong, total.usd), is_new=is_new)

    def exchange_all(self) -> None:
        for process in self.processes:
            self.exchange(process)

    def restarted(self, number: int) -> Accounts:
        process = self.processes[number] = Accounts(clock=lambda: self.at_s, now=lambda: self.at_s)
        process.on_due = lambda: None
        process.share(works=True)
        return process


def ask(cluster: Cluster, process: Accounts, usd: float = 0.0, *, strong: bool = False) -> bool:
    """Return whether a request was let in, and was decided as it wished."""
    account = process.of(cluster.caller)
    if account.take_request() or account.budget_wait_s():
        return False
    granted = not strong or account.may_be_strong()
    account.count_decision(strong=strong and granted)
    account.spend(usd)
    return granted


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 4), most=st.floats(0.5, 50), every=st.integers(1, 60))
def test_the_money_of_all_stays_within_the_budget_and_one_slice_and_one_answer_of_each(
    seed: int, n: int, most: float, every: int
) -> None:
    chance = random.Random(seed)
    cluster = Cluster(n, usd_per_day=most)
    spent, answer = 0.0, most / 100
    for step in range(2000):
        process = chance.choice(cluster.processes)
        if ask(cluster, process, answer):
            spent += answer
        if step % every == 0:
            cluster.exchange(chance.choice(cluster.processes))
    assert spent <= most + n * (most * SLICE + answer) + 1e-9
    cluster.exchange_all()
    cluster.exchange_all()
    if spent >= most:
        assert not any(ask(cluster, process, answer) for process in cluster.processes)


def test_a_restart_does_not_give_the_budget_back() -> None:
    cluster = Cluster(2, usd_per_day=1)
    while ask(cluster, cluster.processes[0], 0.04):
        cluster.exchange(cluster.processes[0])
    fresh = cluster.restarted(0)
    # Until it has heard of the others, it may spend a slice.
    assert ask(cluster, fresh, 0.05)
    assert not ask(cluster, fresh, 0.05)
    cluster.exchange(fresh)
    assert not ask(cluster, fresh, 0.01)
    cluster.at_s += DAY_S
    assert ask(cluster, fresh, 0.01)


def test_money_that_is_given_back_elsewhere_may_be_spent_here() -> None:
    cluster = Cluster(2, usd_per_day=1)
    mine, yours = cluster.processes
    yours.of(cluster.caller).take_request()
    yours.of(cluster.caller).spend(1.0)
    cluster.exchange(yours)
    assert ask(cluster, mine, 0.01)
    cluster.exchange(mine)
    assert not ask(cluster, mine, 0.01)
    yours.of(cluster.caller).spend(-0.9)
    cluster.exchange(yours)
    cluster.exchange(mine)
    assert ask(cluster, mine, 0.01)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_rate_of_all_is_the_limit_and_at_first_one_burst_of_each(n: int) -> None:
    cluster = Cluster(n, requests_per_second=20)
    let_in = []
    for _ in range(80):
        # A quarter of a second, in which each process is asked for far more than it may let in.
        let_in.append(sum(ask(cluster, process) for _ in range(30) for process in cluster.processes))
        cluster.exchange_all()
        cluster.at_s += 0.25
    seconds = len(let_in) * 0.25
    assert sum(let_in) <= 20 * seconds + 20 * n
    assert sum(let_in) >= 0.8 * 20 * seconds


def test_a_process_that_was_idle_for_long_owes_nothing_for_what_others_used_meanwhile() -> None:
    cluster = Cluster(2, requests_per_second=10)
    mine, yours = cluster.processes
    assert ask(cluster, mine)
    cluster.exchange(mine)
    for _ in range(4000):
        ask(cluster, yours)
        cluster.at_s += 0.2
        cluster.exchange(yours)
    assert ask(cluster, mine)
    cluster.exchange(mine)
    assert ask(cluster, mine)


def test_after_an_outage_nobody_owes_what_others_used_in_it() -> None:
    cluster = Cluster(2, requests_per_second=10)
    mine, yours = cluster.processes
    assert ask(cluster, mine)
    assert ask(cluster, yours)
    cluster.exchange_all()
    for _ in range(400):
        ask(cluster, mine)
        ask(cluster, yours)
        cluster.at_s += 0.1
    for process in (mine, yours, mine):
        cluster.exchange(process, is_new=True)
    cluster.at_s += 0.1
    assert ask(cluster, mine)
    assert ask(cluster, yours)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 4), share=st.floats(0.05, 0.9), every=st.integers(1, 40))
def test_the_strong_share_of_all_is_the_limit_and_one_burst_of_each(
    seed: int, n: int, share: float, every: int
) -> None:
    chance = random.Random(seed)
    cluster = Cluster(n, strong_share=share)
    asked, strong = 0, 0
    for step in range(2000):
        asked += 1
        strong += ask(cluster, chance.choice(cluster.processes), strong=True)
        if step % every == 0:
            cluster.exchange_all()
    # What others used since the last exchange is not known yet.
    assert strong <= share * asked + n * STRONG_BURST + every
    assert strong >= 0.9 * share * asked - STRONG_BURST


def test_what_could_not_be_told_is_told_later_once() -> None:
    cluster = Cluster(2, usd_per_day=10)
    mine, yours = cluster.processes
    assert ask(cluster, mine, 0.1)
    cluster.exchange(mine)
    assert ask(cluster, mine, 0.2)
    for unsent in mine.take_unsent():
        mine.give_back(unsent)
    assert mine.of(cluster.caller).usd_today == pytest.approx(0.3)
    cluster.exchange(mine)
    ask(cluster, yours)
    cluster.exchange(yours)
    assert yours.of(cluster.caller).usd_today == pytest.approx(0.3)
    assert mine.take_unsent() == []


def test_callers_without_limits_are_told_to_nobody_and_nothing_grows_without_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.identity.accounts.MOST_CALLERS", 100)
    cluster = Cluster(1)
    assert ask(cluster, cluster.processes[0])
    assert cluster.processes[0].take_unsent() == []
    alone = Accounts()
    alone.of(Principal("me", "me", frozenset(Scope), TokenLimits(usd_per_day=1))).take_request()
    assert alone.take_unsent() == []
    limited = cluster.processes[0]
    for number in range(150):
        limited.of(Principal(f"{number}", "me", frozenset(Scope), TokenLimits(usd_per_day=1))).take_request()
    assert len(limited.take_unsent()) == 100


def test_days_begin_by_the_common_clock() -> None:
    cluster = Cluster(1, usd_per_day=1)
    process = cluster.processes[0]
    assert ask(cluster, process, 2)
    cluster.exchange(process)
    assert not ask(cluster, process, 2)
    process.clock_ahead_s = DAY_S
    assert ask(cluster, process, 0.01)


def test_what_a_caller_uses_while_others_are_told_is_told_the_next_time() -> None:
    spent = 0

    def now() -> float:
        # Another thread lets the caller spend just when its usage has been taken.
        nonlocal spent
        if is_telling and spent < 3:
            spent += 1
            account.spend(1.0)
        return 20_000 * DAY_S

    is_telling = False
    accounts = Accounts(now=now)
    accounts.on_due = lambda: None
    account = accounts.of(Principal("me", "me", frozenset(Scope), TokenLimits(usd_per_day=5)))
    account.spend(1.0)
    is_telling = True
    told = [accounts.take_unsent() for _ in range(5)]
    assert max(len(once) for once in told) == 1
    assert sum(one.usage.usd for once in told for one in once) == 4.0
