"""The limits of a token: how many requests, which share of strong answers, and how much money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.errors import LimitExceededError
from router.identity import accounts
from router.identity.accounts import STRONG_BURST, Account, Accounts
from router.identity.admission import Admission
from router.identity.counts import CallerFigures, DoorName, Refusal, RefusalCounts
from router.identity.principal import Principal, Scope, TokenLimits

DAY = 86_400.0


class Clock:
    """Holds the time that the accounts see, and a way to make them."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.unix = 20_000 * DAY
        self.counts = RefusalCounts()
        self.figures = CallerFigures()

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.unix += seconds

    def account(self, **limits: Any) -> Account:
        figures = self.figures = CallerFigures()
        return Account(TokenLimits.model_validate(limits), lambda: self.monotonic, lambda: self.unix, figures)

    def admission(self, account: Account) -> Admission:
        return Admission(account, DoorName.GRPC, self.counts, pays=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(account: Account, n: int) -> int:
    return sum(account.take_request() == 0 for _ in range(n))


def test_a_second_allows_as_many_requests_as_its_limit(clock: Clock) -> None:
    account = clock.account(requests_per_second=5)
    assert taken(account, 10) == 5
    assert account.take_request() == pytest.approx(0.2)
    clock.advance(0.2)
    assert taken(account, 10) == 1
    clock.advance(100)
    assert taken(account, 10) == 5


def test_the_tighter_of_two_rates_holds(clock: Clock) -> None:
    account = clock.account(requests_per_second=5, requests_per_minute=6)
    assert taken(account, 10) == 5
    clock.advance(1)
    assert taken(account, 10) == 1
    assert account.take_request() == pytest.approx(9.0)


def test_a_rate_below_one_lets_one_request_in_and_then_waits(clock: Clock) -> None:
    account = clock.account(requests_per_second=0.5)
    assert taken(account, 3) == 1
    clock.advance(2)
    assert taken(account, 3) == 1


def test_a_refused_request_uses_up_nothing(clock: Clock) -> None:
    account = clock.account(requests_per_second=1)
    taken(account, 100)
    clock.advance(1)
    assert taken(account, 1) == 1


@given(share=st.floats(0, 1), wishes=st.lists(st.booleans(), max_size=400))
def test_of_any_decisions_in_a_row_at_most_the_share_and_the_burst_are_strong(share: float, wishes: list[bool]) -> None:
    account = Clock().account(strong_share=share)
    granted = []
    for wants_strong in wishes:
        strong = wants_strong and account.may_be_strong()
        account.count_decision(strong=strong)
        granted.append(strong)
    for start in range(0, len(granted), 37):
        for end in range(start, len(granted) + 1, 23):
            assert sum(granted[start:end]) <= share * (end - start) + STRONG_BURST + 1e-6


def test_whoever_wants_only_strong_answers_gets_the_share_in_the_long_run(clock: Clock) -> None:
    account = clock.account(strong_share=0.25)
    for _ in range(10_000):
        account.count_decision(strong=account.may_be_strong())
    assert clock.figures.strong == pytest.approx(2500, abs=STRONG_BURST)


def test_a_share_of_zero_allows_none(clock: Clock) -> None:
    account = clock.account(strong_share=0)
    assert not account.may_be_strong()
    account.count_decision(strong=False)
    assert not account.may_be_strong()


def test_money_is_counted_by_the_day(clock: Clock) -> None:
    account = clock.account(usd_per_day=1)
    account.spend(0.75)
    assert account.budget_wait_s() == 0
    account.spend(0.25)
    clock.advance(3600)
    assert account.budget_wait_s() == pytest.approx(DAY - 3600)
    clock.advance(DAY - 3600)
    assert (account.budget_wait_s(), account.usd_today, clock.figures.usd) == (0, 0.0, 1.0)


def test_what_is_expected_counts_until_the_real_cost_is_known(clock: Clock) -> None:
    account = clock.account(usd_per_day=1)
    admission = clock.admission(account)
    admission.reserve(1.5)
    with pytest.raises(LimitExceededError, match="US dollars a day"):
        clock.admission(account).check_budget()
    admission.settle(0.25)
    clock.admission(account).check_budget()
    assert account.usd_today == pytest.approx(0.25)


def test_beyond_the_budget_a_token_is_refused_or_answered_cheaply(clock: Clock) -> None:
    for beyond in ("refuse", "cheap"):
        account = clock.account(usd_per_day=0, beyond=beyond)
        admission = clock.admission(account)
        if beyond == "cheap":
            admission.check_budget()
            assert not admission.permit_strong(can_be_cheap=True)
        else:
            with pytest.raises(LimitExceededError):
                admission.check_budget()
    assert clock.counts.snapshot()[DoorName.GRPC, Refusal.OVER_BUDGET] == 1


def test_a_request_that_leaves_no_cheaper_choice_is_refused(clock: Clock) -> None:
    admission = clock.admission(clock.account(strong_share=0, beyond="cheap"))
    assert not admission.permit_strong(can_be_cheap=True)
    with pytest.raises(LimitExceededError, match="strong candidate") as caught:
        admission.permit_strong(can_be_cheap=False)
    assert caught.value.retry_after_s == 1.0
    assert clock.counts.snapshot()[DoorName.GRPC, Refusal.OVER_STRONG_SHARE] == 1


def test_without_limits_everything_is_allowed(clock: Clock) -> None:
    account = clock.account()
    admission = clock.admission(account)
    for _ in range(1000):
        admission.take_request()
        admission.check_budget()
        assert admission.permit_strong(can_be_cheap=True)
        account.count_decision(strong=True)
    admission.settle(1e6)
    assert clock.figures == CallerFigures(1000, 1000, 1e6)


def principal(token: str, label: str, **limits: Any) -> Principal:
    return Principal(token, label, frozenset(Scope), TokenLimits.model_validate(limits))


def test_changed_limits_hold_at_once_and_what_was_spent_stays(clock: Clock) -> None:
    all_accounts = Accounts(clock=lambda: clock.monotonic, now=lambda: clock.unix)
    account = all_accounts.of(principal("a", "team", usd_per_day=5))
    account.spend(3)
    assert all_accounts.of(principal("a", "team", usd_per_day=2)) is account
    assert account.budget_wait_s() > 0


def test_figures_are_summed_by_label(clock: Clock) -> None:
    all_accounts = Accounts(clock=lambda: clock.monotonic, now=lambda: clock.unix)
    for token, label, strong in (("a", "jwt", True), ("b", "jwt", False), ("c", "team", True)):
        account = all_accounts.of(principal(token, label))
        account.count_decision(strong=strong)
        account.spend(0.5)
    assert all_accounts.figures() == {"jwt": CallerFigures(2, 1, 1.0), "team": CallerFigures(1, 1, 0.5)}


def test_the_number_of_callers_that_are_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(accounts, "MOST_CALLERS", 2)
    all_accounts = Accounts()
    first = all_accounts.of(principal("a", "x"))
    all_accounts.of(principal("b", "x"))
    assert all_accounts.of(principal("a", "x")) is first
    all_accounts.of(principal("c", "x"))
    assert all_accounts.of(principal("a", "x")) is first
    all_accounts.of(principal("b", "x"))
    assert all_accounts.of(principal("a", "x")) is first


def test_the_money_that_metrics_count_never_falls(clock: Clock) -> None:
    account = clock.account(usd_per_day=5)
    admission = clock.admission(account)
    seen = [clock.figures.usd]
    for expected_usd, real_usd in ((1.0, 0.25), (0.5, 0.75)):
        admission.reserve(expected_usd)
        seen.append(clock.figures.usd)
        admission.settle(real_usd)
        seen.append(clock.figures.usd)
    # What was charged in the background turns out to have cost less.
    account.spend(-0.5)
    seen.append(clock.figures.usd)
    account.spend(0.75)
    seen.append(clock.figures.usd)
    assert seen == [0.0, 0.0, 0.25, 0.25, 1.0, 1.0, 1.25]
    assert account.usd_today == 1.25
