"""What is not decided is charged too: expected while it is under way, real afterwards, and nothing if it fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from router.errors import LimitExceededError, UpstreamUnavailableError
from router.identity.accounts import Account
from router.identity.admission import Admission, current_admission
from router.identity.counts import DoorName, RefusalCounts
from router.identity.principal import TokenLimits
from router.identity.spending import charging


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account(TokenLimits.model_validate({"usd_per_day": 1.0, "beyond": "cheap"}))
    before = current_admission.set(Admission(account, DoorName.HTTP, RefusalCounts(), pays=True))
    yield account
    current_admission.reset(before)


@pytest.mark.parametrize(("real", "paid"), [(0.25, 0.25), (None, 0.5)])
def test_the_real_cost_takes_the_place_of_the_expected_one_if_it_is_known(
    account: Account, real: float | None, paid: float
) -> None:
    with charging(0.5) as charge:
        assert account.usd_today == 0.5
        charge(real)
    assert account.usd_today == paid


def test_a_failed_answer_costs_nothing_and_one_that_nobody_waited_for_does(account: Account) -> None:
    with pytest.raises(UpstreamUnavailableError), charging(0.5):
        raise UpstreamUnavailableError("away")
    assert account.usd_today == 0
    with pytest.raises(KeyboardInterrupt), charging(0.5):
        raise KeyboardInterrupt
    assert account.usd_today == 0.5


def test_beyond_the_budget_nothing_begins(account: Account) -> None:
    account.spend(1.0)
    with pytest.raises(LimitExceededError, match="US dollars a day"), charging(0.1):
        pytest.fail("it began")


def test_whoever_has_no_account_pays_nothing() -> None:
    with charging(0.5) as charge:
        charge(0.1)
