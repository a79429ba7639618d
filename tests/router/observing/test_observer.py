"""Observers are told of every decision, refusal and answer, and cannot hurt the request."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router import errors
from router.attempts import AttemptOutcome
from router.deciding.pipeline import Router
from router.observing.observer import (
    MOST_WAITING,
    AnsweredEvent,
    AnswerOutcome,
    DecidedEvent,
    DeferredObserver,
    Observers,
    RefusedEvent,
)
from router.policies.loading import load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.answering.scripted_upstream import Script, Stack, delta, down, said


class Notes:
    """Keeps every event. It raises once for each event if it is told to."""

    def __init__(self, *, broken: bool = False) -> None:
        self.events: list[Any] = []
        self._broken = broken

    def decided(self, event: DecidedEvent) -> None:
        self._keep(event)

    def refused(self, event: RefusedEvent) -> None:
        self._keep(event)

    def answered(self, event: AnsweredEvent) -> None:
        self._keep(event)

    def _keep(self, event: Any) -> None:
        self.events.append(event)
        if self._broken:
            raise RuntimeError("the disk is full")

    def told(self, kind: type) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def router(folder: Path, *observers: Notes) -> Router:
    encoder = FakeEncoder()
    policies = load_policies([write_policy(folder)])
    return Router(policies, {encoder.spec.identity: encoder}, observers=Observers(*observers))


async def test_a_decision_is_told_with_its_features_which_a_cached_one_has_not(tmp_path: Path) -> None:
    notes = Notes()
    deciding = router(tmp_path, notes)
    first = await deciding.adecide(RouteQuery.from_prompt("why?"), caller="me")
    second = await deciding.adecide(RouteQuery.from_prompt("why?"), caller="me")
    await deciding.close()
    told = notes.told(DecidedEvent)
    assert [event.decision for event in told] == [first, second]
    assert [event.caller for event in told] == ["me", "me"]
    np.testing.assert_array_equal(told[0].features, FakeEncoder().encode("why?"))
    assert told[1].features is None
    assert told[0].query.messages[0]["content"] == "why?"


@pytest.mark.parametrize(("policy", "named"), [("nobody", ""), ("test", "test")])
async def test_a_refusal_is_told_by_the_name_of_a_policy_that_exists(tmp_path: Path, policy: str, named: str) -> None:
    notes = Notes()
    deciding = router(tmp_path, notes)
    with pytest.raises(errors.RouterError) as refused:
        await deciding.adecide(RouteQuery.from_prompt("why?", overrides=Overrides(policy=policy, pin="nobody")))
    await deciding.close()
    assert notes.events == [RefusedEvent(named, "", refused.value)]


async def test_an_observer_that_fails_hurts_neither_the_request_nor_the_next_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    deciding = router(tmp_path, Notes(broken=True), notes)
    decision = await deciding.adecide(RouteQuery.from_prompt("why?"))
    await deciding.close()
    assert [event.decision for event in notes.told(DecidedEvent)] == [decision]
    assert "an observer failed" in caplog.text


async def test_an_answer_is_told_with_its_attempts_its_usage_and_its_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100}
    stack = Stack(monkeypatch, Script(a=[down()], b=[said(usage=usage)]), Observers(notes), retries=0)
    await stack.complete()
    (event,) = notes.told(AnsweredEvent)
    assert (event.outcome, event.answered_by) == (AnswerOutcome.ANSWERED, "b")
    assert [one.outcome for one in event.attempts] == [AttemptOutcome.UNAVAILABLE, AttemptOutcome.ANSWERED]
    assert (event.input_tokens, event.output_tokens, event.cost_usd) == (1_000, 100, pytest.approx(0.002))
    assert event.first_content_s is None
    assert event.error is None


async def test_an_answer_that_nobody_gives_is_told_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    script = Script(**{name: [down()] for name in "abcd"})
    with pytest.raises(errors.UpstreamUnavailableError) as failed:
        await Stack(monkeypatch, script, Observers(notes), retries=0).complete()
    (event,) = notes.told(AnsweredEvent)
    assert (event.outcome, event.answered_by, event.error) == (AnswerOutcome.FAILED, "", failed.value)
    assert len(event.attempts) == 4


async def test_a_stream_is_told_when_it_ends_with_the_time_of_its_first_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes = Notes()
    await Stack(monkeypatch, Script(), Observers(notes)).stream()
    (event,) = notes.told(AnsweredEvent)
    assert (event.outcome, event.answered_by) == (AnswerOutcome.ANSWERED, "a")
    assert 0 <= event.first_content_s <= event.total_s


async def test_a_stream_that_breaks_off_is_told_as_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    script = Script(a=[[delta(content="forty-"), down()]])
    with pytest.raises(errors.UpstreamInterruptedError):
        await Stack(monkeypatch, script, Observers(notes)).stream()
    (event,) = notes.told(AnsweredEvent)
    assert event.outcome == AnswerOutcome.FAILED
    assert event.attempts[-1].outcome == AttemptOutcome.INTERRUPTED


async def test_an_answer_whose_caller_goes_away_is_told_as_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes()
    stack = Stack(monkeypatch, Script(a=["hang"]), Observers(notes))
    task = asyncio.create_task(stack.complete())
    await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [event.outcome for event in notes.told(AnsweredEvent)] == [AnswerOutcome.ABANDONED]


def refusal() -> RefusedEvent:
    return RefusedEvent("p", "me", errors.UnknownPolicyError("nobody"))


def test_a_deferred_observer_tells_in_order_what_waits_when_somebody_reads() -> None:
    notes, finished = Notes(), []
    later = DeferredObserver(notes, name="notes", finish=lambda: finished.append(len(notes.events)))
    events = [refusal() for _ in range(3)]
    for event in events:
        later.refused(event)
    assert notes.events == []
    assert later.read(lambda: list(notes.events)) == events
    assert finished == [3]


def test_a_deferred_observer_tells_the_rest_at_its_end() -> None:
    notes = Notes()
    with DeferredObserver(notes, name="notes") as later:
        later.refused(refusal())
    assert len(notes.events) == 1


def test_a_deferred_observer_tells_of_others_although_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    broken, notes = Notes(broken=True), Notes()
    later = DeferredObserver(broken, notes, name="notes")
    later.refused(refusal())
    later.refused(refusal())
    later.tell()
    assert len(notes.events) == 2
    assert "an observer failed" in caplog.text


def test_events_beyond_the_bound_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    notes, event = Notes(), refusal()
    later = DeferredObserver(notes, name="lines about decisions")
    for _ in range(MOST_WAITING + 3):
        later.refused(event)
    later.tell()
    assert len(notes.events) == MOST_WAITING
    assert "lines about decisions: 3 events were dropped" in caplog.text
    later.refused(event)
    later.tell()
    assert len(notes.events) == MOST_WAITING + 1
