"""The record of the attempts of one request: what each says, what is left of the time, and which error is told."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest

from router import errors
from router.answering import attempt_log
from router.answering.attempt_log import BACKOFF_S, MAX_WAIT_S, AttemptLog, retry_wait_s
from router.answering.reading.call_notes import CallNotes
from router.attempts import Attempt, AttemptOutcome, Delivery
from router.errors import DispatchError
from router.policies.candidates.candidate import Candidate
from tests.router.answering.test_fallback import decision

A = AttemptOutcome
CANDIDATE = Candidate(name="a", model="openai/a")
DECISION = decision("a", (None,) * 4)


class Clock:
    """The monotonic clock of the log, and nothing of the event loop's."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(attempt_log, "time", clock)
    return clock


@pytest.fixture
def attempts(clock: Clock) -> AttemptLog:
    return AttemptLog(deadline=110.0, began=clock.now)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.UpstreamContextWindowError("x"), A.CONTEXT_WINDOW),
        (errors.UpstreamRejectedError("x"), A.REJECTED),
        (errors.UpstreamDeniedError("x"), A.DENIED),
        (errors.UpstreamNotFoundError("x"), A.NOT_FOUND),
        (errors.UpstreamRateLimitedError("x"), A.RATE_LIMITED),
        (errors.UpstreamTimeoutError("x"), A.TIMED_OUT),
        (errors.UpstreamInterruptedError("x"), A.INTERRUPTED),
        (errors.UpstreamUnavailableError("x"), A.UNAVAILABLE),
        (DispatchError("x"), A.UNAVAILABLE),
    ],
)
def test_a_failure_is_noted_with_how_it_ended_when_and_for_how_long(
    attempts: AttemptLog, clock: Clock, error: DispatchError, outcome: AttemptOutcome, caplog: pytest.LogCaptureFixture
) -> None:
    error.http_status = 418
    clock.now = 105.0
    with caplog.at_level(logging.DEBUG):
        attempts.add_failure(CANDIDATE, error, 102.0)
        attempts.add_failure(CANDIDATE, error, 103.5, streamed=True)
    assert attempts.attempts == [
        Attempt("a", outcome, 418, 3.0, False, 2.0),
        Attempt("a", outcome, 418, 1.5, True, 3.5),
    ]
    assert attempts.failures == [error, error]
    assert [(one.levelno, one.getMessage()) for one in caplog.records[:1]] == [
        (logging.WARNING, f"candidate a: {outcome.value} after 3.00 s, HTTP status 418")
    ]


def test_a_candidate_that_rests_was_not_asked_and_is_no_warning(
    attempts: AttemptLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now = 104.0
    with caplog.at_level(logging.DEBUG):
        attempts.add_failure(CANDIDATE, errors.UpstreamRateLimitedError("x"), None)
    assert attempts.attempts == [Attempt("a", A.COOLING_DOWN, None, 0.0, False, 4.0)]
    assert [one.levelno for one in caplog.records] == [logging.DEBUG]


def test_an_answer_is_noted_and_says_who_gave_it_after_what(attempts: AttemptLog, clock: Clock) -> None:
    attempts.add_failure(CANDIDATE, errors.UpstreamUnavailableError("x"), 100.0)
    notes = CallNotes()
    notes.rate_limits["x-ratelimit-limit"] = "7"
    dropped = replace(DECISION, candidates=(replace(DECISION.candidates[1], dropped_parameters=("seed",)),))
    clock.now = 103.0
    other = CANDIDATE.model_copy(update={"name": "b", "model": "openai/b"})
    found = attempts.add_answer(other, 101.0, dropped, notes, streamed=True)
    tried = (attempts.attempts[0], Attempt("b", A.ANSWERED, None, 2.0, True, 1.0))
    assert found == Delivery("b", "openai/b", True, tried, dropped_parameters=("seed",))
    assert found.rate_limits == {"x-ratelimit-limit": "7"}
    again = attempts.add_answer(CANDIDATE, 102.5, DECISION, CallNotes(), streamed=False)
    assert (again.answered_by, again.fell_back, again.dropped_parameters) == ("a", False, ())
    assert again.attempts[-1] == Attempt("a", A.ANSWERED, None, 0.5, False, 2.5)
    assert len(again.attempts) == 3


class TestInterrupted:
    def test_an_answer_that_broke_off_is_told_with_what_the_provider_said(
        self, attempts: AttemptLog, clock: Clock
    ) -> None:
        attempts.add_answer(CANDIDATE, 100.0, DECISION, CallNotes(), streamed=True)
        because = errors.UpstreamUnavailableError("x", http_status=529, retry_after_s=3.0)
        because.provider_words, because.provider_code, because.provider_param = "Too many.", "overloaded", "messages"
        clock.now = 101.0
        told = attempts.interrupt(CANDIDATE, because, 100.0)
        assert isinstance(told, errors.UpstreamInterruptedError)
        assert told.message == "candidate 'a' broke off after part of its answer had been sent. It says: Too many."
        assert (told.http_status, told.retry_after_s) == (529, 3.0)
        assert (told.provider_code, told.provider_param) == ("overloaded", "messages")
        assert told.attempts == (Attempt("a", A.INTERRUPTED, 529, 1.0, True, 0.0),)

    def test_without_words_of_the_provider_none_are_told(self, attempts: AttemptLog) -> None:
        attempts.add_answer(CANDIDATE, 100.0, DECISION, CallNotes(), streamed=True)
        told = attempts.interrupt(CANDIDATE, errors.UpstreamUnavailableError("x"), 100.0)
        assert told.message == "candidate 'a' broke off after part of its answer had been sent."

    @pytest.mark.parametrize(("now", "kind"), [(109.9, "Interrupted"), (110.0, "Timeout"), (111.0, "Timeout")])
    def test_a_timeout_at_the_callers_deadline_is_nobodys_interruption(
        self, attempts: AttemptLog, clock: Clock, now: float, kind: str
    ) -> None:
        attempts.add_answer(CANDIDATE, 100.0, DECISION, CallNotes(), streamed=True)
        clock.now = now
        told = attempts.interrupt(CANDIDATE, errors.UpstreamTimeoutError("slow."), 100.0)
        assert type(told).__name__ == f"Upstream{kind}Error"
        assert [one.outcome for one in told.attempts] == [A.INTERRUPTED if kind == "Interrupted" else A.TIMED_OUT]
        assert told.attempts[0].streamed

    def test_any_other_failure_at_the_deadline_is_one(self, attempts: AttemptLog, clock: Clock) -> None:
        attempts.add_answer(CANDIDATE, 100.0, DECISION, CallNotes(), streamed=True)
        clock.now = 110.0
        told = attempts.interrupt(CANDIDATE, errors.UpstreamUnavailableError("x"), 100.0)
        assert isinstance(told, errors.UpstreamInterruptedError)


def test_what_is_left_is_left_of_the_callers_time_and_of_the_turn(attempts: AttemptLog, clock: Clock) -> None:
    assert attempts.turn_remaining_s == math.inf
    clock.now = 102.0
    assert attempts.remaining_s == 8.0
    attempts.begin_turn(3.0)
    assert attempts.turn_ends == 107.0
    clock.now = 103.0
    assert attempts.turn_remaining_s == 4.0


class TestWhatIsTold:
    def test_the_last_failure_that_may_pass_comes_before_later_ones_that_may_not(self, attempts: AttemptLog) -> None:
        busy = errors.UpstreamRateLimitedError("busy", retry_after_s=5.0)
        soon = errors.UpstreamUnavailableError("soon", retry_after_s=2.0)
        down = errors.UpstreamUnavailableError("down")
        denied = errors.UpstreamDeniedError("no", retry_after_s=1.0)
        for error in (busy, soon, down, denied):
            attempts.add_failure(CANDIDATE, error, 100.0)
        with pytest.raises(errors.UpstreamUnavailableError, match="down") as caught:
            attempts.raise_failure()
        assert caught.value.retry_after_s == 2.0
        assert len(caught.value.attempts) == 4
        assert isinstance(caught.value.attempts, tuple)

    def test_of_failures_that_may_not_pass_the_last_one_is_told_without_a_wait(self, attempts: AttemptLog) -> None:
        for word in ("first", "last"):
            attempts.add_failure(CANDIDATE, errors.UpstreamDeniedError(word, retry_after_s=1.0), 100.0)
        with pytest.raises(errors.UpstreamDeniedError, match="last") as caught:
            attempts.raise_failure()
        assert caught.value.retry_after_s is None


class TestWaits:
    @pytest.mark.parametrize(("retry", "wait"), [(0, 0.6), (1, 1.2), (2, 2.4)])
    def test_the_backoff_doubles_and_is_spread(self, monkeypatch: pytest.MonkeyPatch, retry: int, wait: float) -> None:
        asked = []

        def uniform(low: float, high: float) -> float:
            asked.append((low, high))
            return 0.6

        monkeypatch.setattr(attempt_log.random, "uniform", uniform)
        found = retry_wait_s(errors.UpstreamUnavailableError("x"), retry)
        assert found == pytest.approx(BACKOFF_S * wait)
        assert asked == [(0.5, 1)]

    def test_the_providers_own_wait_counts_up_to_the_longest(self) -> None:
        assert retry_wait_s(errors.UpstreamRateLimitedError("x", retry_after_s=0.0), 4) == 0.0
        assert retry_wait_s(errors.UpstreamRateLimitedError("x", retry_after_s=MAX_WAIT_S), 0) == MAX_WAIT_S
        assert retry_wait_s(errors.UpstreamRateLimitedError("x", retry_after_s=MAX_WAIT_S + 0.1), 0) is None

    def test_a_timeout_and_what_may_not_pass_are_not_tried_again(self) -> None:
        assert retry_wait_s(errors.UpstreamTimeoutError("x"), 0) is None
        assert retry_wait_s(errors.UpstreamDeniedError("x", retry_after_s=0.1), 0) is None
