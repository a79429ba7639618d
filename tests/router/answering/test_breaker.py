"""The circuit breaker's states, with a clock that only moves when told."""

from __future__ import annotations

import pytest

from router.answering.breaker import Breaker, Permit, State


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(break_after=3, cooldown_s=30, clock=clock)


def admitted(breaker: Breaker) -> Permit:
    permit = breaker.admit()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        admitted(breaker).failed()


def on_trial(breaker: Breaker, clock: Clock) -> Permit:
    fail(breaker, 3)
    clock.now += 30
    return admitted(breaker)


def test_it_opens_after_so_many_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state is State.CLOSED
    fail(breaker, 1)
    assert breaker.state is State.OPEN
    assert breaker.admit() is None
    assert breaker.retry_after_s == 30


def test_an_answer_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    admitted(breaker).succeeded()
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_after_its_rest_one_request_tries_and_the_others_wait(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 29.9
    assert breaker.admit() is None
    clock.now += 0.1
    admitted(breaker)
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit() is None


def test_if_that_one_is_answered_it_closes(breaker: Breaker, clock: Clock) -> None:
    on_trial(breaker, clock).succeeded()
    assert breaker.state is State.CLOSED
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_if_that_one_fails_it_rests_again(breaker: Breaker, clock: Clock) -> None:
    on_trial(breaker, clock).failed()
    assert breaker.state is State.OPEN
    assert breaker.retry_after_s == 30


def test_if_that_one_goes_away_the_next_may_try_at_once(breaker: Breaker, clock: Clock) -> None:
    on_trial(breaker, clock).close()
    assert breaker.state is State.OPEN
    admitted(breaker)
    assert breaker.state is State.HALF_OPEN


def test_a_stream_that_begins_lets_the_others_in_again_but_must_end_well(breaker: Breaker, clock: Clock) -> None:
    trial = on_trial(breaker, clock)
    trial.answering()
    assert breaker.state is State.CLOSED
    admitted(breaker).close()
    trial.failed()
    assert breaker.state is State.OPEN


def test_a_stream_that_began_and_ended_well_forgives_everything(breaker: Breaker, clock: Clock) -> None:
    trial = on_trial(breaker, clock)
    trial.answering()
    trial.succeeded()
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_it_rests_as_long_as_it_is_told(breaker: Breaker, clock: Clock) -> None:
    admitted(breaker).rest(7)
    assert breaker.retry_after_s == 7
    clock.now += 7
    admitted(breaker).rest()
    assert breaker.retry_after_s == 30


def test_a_shorter_rest_does_not_end_a_longer_one(breaker: Breaker) -> None:
    first, second = admitted(breaker), admitted(breaker)
    first.rest(60)
    second.rest(1)
    assert breaker.retry_after_s == 60


def test_late_words_of_requests_from_before_change_nothing_while_it_rests(breaker: Breaker, clock: Clock) -> None:
    late = [admitted(breaker) for _ in range(4)]
    fail(breaker, 3)
    late[0].succeeded()
    late[1].failed()
    late[2].close()
    assert breaker.state is State.OPEN
    clock.now += 30
    admitted(breaker)
    late[3].close()
    assert breaker.state is State.HALF_OPEN


def test_only_the_first_verdict_counts(breaker: Breaker) -> None:
    permit = admitted(breaker)
    permit.succeeded()
    for _ in range(5):
        permit.failed()
    assert breaker.state is State.CLOSED


class TestRests:
    def test_it_keeps_the_error_that_put_it_to_rest_and_forgets_it_at_a_rest_without_one(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        error = ValueError("the key was refused")
        admitted(breaker).rest(because=error)
        assert breaker.because is error
        clock.now += 30
        admitted(breaker).rest(5)
        assert breaker.because is None

    def test_a_stream_that_began_on_trial_and_ends_well_does_not_wake_it_if_another_failed_meanwhile(
        self, breaker: Breaker, clock: Clock
    ) -> None:
        trial = on_trial(breaker, clock)
        trial.answering()
        fail(breaker, 1)
        assert breaker.state is State.OPEN
        trial.succeeded()
        assert breaker.state is State.OPEN
