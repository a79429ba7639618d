"""Tests of faults of a real upstream: an answer from an allowed candidate or a clear error, in time and recorded."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from router.answering.attempt_log import turn_length_s
from router.attempts import Delivery
from router.client import RouterClient
from router.errors import ServiceError
from router.values import Overrides
from tests.router.answering.faults.faults_stack import DEADLINE_S, THROUGH_LITELLM, ask, outcomes
from tests.router.fault_policies import (
    BEHAVES_AS,
    BREAKS_OFF,
    CASES,
    METHODS,
    PROMPT,
    UNSEEN,
    A,
    expected_of,
)
from tests.router.faults import BIG, TEXT, FaultyUpstream


@pytest.mark.parametrize(("fault", "method"), CASES)
def test_the_candidate_above_answers_and_the_record_says_after_what(
    stack: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    text, delivery = ask(stack[0], method, f"{fault}-{method}")
    assert text == TEXT
    assert (delivery.answered_by, delivery.fell_back) == ("strong", True)
    assert delivery.answered_by_model == f"openai/ok@{fault}-{method}"
    wanted = [("weak", outcome) for outcome in expected_of(fault, method)]
    assert outcomes(delivery.attempts) == [*wanted, ("strong", A.ANSWERED)]


@pytest.mark.parametrize(("fault", "method"), CASES)
def test_the_candidate_below_is_never_asked_and_the_error_is_clear(
    stack: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = stack
    with pytest.raises(ServiceError) as caught:
        ask(address, method, f"floor-{fault}-{method}")
    assert upstream.of(f"ok@floor-{fault}-{method}") == []
    assert outcomes(caught.value.attempts) == [("strong", outcome) for outcome in expected_of(fault, method)]
    last = expected_of(fault, method)[-1]
    code, retryable = {
        A.RATE_LIMITED: ("RESOURCE_EXHAUSTED", True),
        A.DENIED: ("PERMISSION_DENIED", False),
        A.NOT_FOUND: ("NOT_FOUND", False),
        A.UNAVAILABLE: ("UNAVAILABLE", True),
        A.TIMED_OUT: ("DEADLINE_EXCEEDED", True),
        A.CONTEXT_WINDOW: ("INVALID_ARGUMENT", False),
    }[last]
    assert (caught.value.code, caught.value.service_retryable) == (code, retryable)
    assert "SECRET" not in str(caught.value)
    # What our own client would repeat by itself would be missing from the record.
    if fault not in UNSEEN:
        asked = [one for one in upstream.seen if one.model.endswith(f"@floor-{fault}-{method}")]
        assert len(asked) == len(caught.value.attempts)


@pytest.mark.parametrize("fault", BREAKS_OFF)
def test_a_stream_that_breaks_off_is_an_error_and_nobody_takes_over(
    stack: tuple[str, FaultyUpstream], fault: str
) -> None:
    address, upstream = stack
    texts: list[str] = []
    with RouterClient(address, timeout_s=DEADLINE_S) as client, pytest.raises(ServiceError) as caught:
        texts.extend(step.text for step in client.stream(PROMPT, Overrides(policy=f"{fault}-stream")))
    assert "".join(texts) == "forty-"
    assert (caught.value.code, caught.value.service_reason) == ("ABORTED", "UPSTREAM_INTERRUPTED")
    (attempt,) = caught.value.attempts
    assert (attempt.outcome, attempt.streamed) == (A.INTERRUPTED, True)
    assert upstream.of(f"ok@{fault}-stream") == []


@pytest.mark.parametrize("fault", BREAKS_OFF)
def test_nor_does_litellm_make_a_whole_answer_of_it(litellm_world: tuple[str, FaultyUpstream], fault: str) -> None:
    test_a_stream_that_breaks_off_is_an_error_and_nobody_takes_over(litellm_world, fault)


@pytest.mark.parametrize(("fault", "method"), THROUGH_LITELLM)
def test_what_fails_through_litellm_falls_back_too(
    litellm_world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    text, delivery = ask(litellm_world[0], method, f"{fault}-{method}")
    assert text == TEXT
    wanted = [("weak", outcome) for outcome in expected_of(fault, method)]
    assert outcomes(delivery.attempts) == [*wanted, ("strong", A.ANSWERED)]


def test_the_deadline_ends_an_endless_stream_with_an_error_of_ours(stack: tuple[str, FaultyUpstream]) -> None:
    address, upstream = stack
    texts: list[str] = []
    with RouterClient(address, timeout_s=1) as client, pytest.raises(ServiceError) as caught:
        texts.extend(step.text for step in client.stream(PROMPT, Overrides(policy="endless-late-stream")))
    assert texts[-1] == "and "
    assert (caught.value.code, caught.value.service_reason) == ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT")
    assert outcomes(caught.value.attempts) == [("weak", A.TIMED_OUT)]
    assert asyncio.run(upstream.left("endless@endless-late-stream"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", ["400", "422"])
def test_what_the_request_itself_is_to_blame_for_fails_at_once(
    stack: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = stack
    with pytest.raises(ServiceError) as caught:
        ask(address, method, f"{fault}-{method}")
    assert (caught.value.code, caught.value.service_retryable) == ("INVALID_ARGUMENT", False)
    assert outcomes(caught.value.attempts) == [("weak", A.REJECTED)]
    assert caught.value.attempts[0].http_status == int(fault)
    # The caller's own words, and what is wrong with them.
    assert "It says: the prompt was: SECRET" in str(caught.value)
    assert upstream.of(f"ok@{fault}-{method}") == []


@pytest.mark.parametrize("method", METHODS)
def test_a_short_retry_after_is_waited_for_and_the_chosen_candidate_answers(
    stack: tuple[str, FaultyUpstream], method: str
) -> None:
    started = time.monotonic()
    text, delivery = ask(stack[0], method, f"429-once-{method}")
    assert time.monotonic() - started > 0.2
    assert text == TEXT
    assert outcomes(delivery.attempts) == [("weak", A.RATE_LIMITED), ("weak", A.ANSWERED)]
    assert not delivery.fell_back


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_of_three_megabytes_arrives_whole(stack: tuple[str, FaultyUpstream], method: str) -> None:
    text, delivery = ask(stack[0], method, f"big-{method}", deadline_s=60)
    assert len(text) == BIG
    assert outcomes(delivery.attempts) == [("weak", A.ANSWERED)]


SILENT = [("hang-long", "unary"), ("hang-whole", "unary"), ("hang-long", "stream"), ("slow-long", "stream")]


@pytest.mark.parametrize(("fault", "method"), SILENT)
def test_an_upstream_that_is_silent_past_the_deadline_is_a_clear_error_before_it(
    stack: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = stack
    with pytest.raises(ServiceError) as caught:
        ask(address, method, f"floor-{fault}-{method}", deadline_s=0.7)
    # Ours, with the attempts, and not the transport's own word for a deadline.
    assert (caught.value.code, caught.value.service_reason) == ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT")
    assert outcomes(caught.value.attempts) == [("strong", A.TIMED_OUT)]
    assert upstream.of(f"ok@floor-{fault}-{method}") == []
    assert asyncio.run(upstream.left(f"{BEHAVES_AS[fault]}@floor-{fault}-{method}"))


@pytest.mark.parametrize(("fault", "method"), SILENT)
def test_a_candidate_that_is_silent_longer_than_the_deadline_leaves_time_for_the_one_above(
    stack: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    # Twice: that it was cut short by an impatient caller does not count against it.
    for _ in range(2):
        text, delivery = ask(stack[0], method, f"{fault}-{method}", deadline_s=1.5)
        assert text == TEXT
        assert outcomes(delivery.attempts) == [("weak", A.TIMED_OUT), ("strong", A.ANSWERED)]


@pytest.mark.parametrize(
    ("left_s", "others_s", "share"),
    [(8.0, 0.0, 8.0), (8.0, 1.0, 7.0), (8.0, 4.0, 4.0), (8.0, 120.0, 4.0), (math.inf, 120.0, math.inf)],
)
def test_those_who_may_stand_in_are_left_what_they_may_take_but_no_more_than_half(
    left_s: float, others_s: float, share: float
) -> None:
    assert turn_length_s(left_s, others_s) == share


def test_a_dead_candidate_is_left_alone_after_some_failures_and_slows_nobody(
    stack: tuple[str, FaultyUpstream],
) -> None:
    address, upstream = stack

    def ended(policy: str) -> tuple[float, Delivery]:
        _, delivery = ask(address, "unary", policy)
        return time.monotonic(), delivery

    with ThreadPoolExecutor(24) as pool:
        dead = [pool.submit(ended, "dead-often-unary") for _ in range(12)]
        well = [pool.submit(ended, "ok-unary") for _ in range(12)]
        # Everybody waits for the dead one in the first wave, and only those who asked for it.
        assert all(one.result()[1].answered_by == "strong" for one in dead)
        assert sorted(one.result()[0] for one in well)[6] < min(one.result()[0] for one in dead)
    asked = len(upstream.of("hang@dead-often-unary"))
    _, delivery = ask(address, "unary", "dead-often-unary")
    assert outcomes(delivery.attempts) == [("weak", A.COOLING_DOWN), ("strong", A.ANSWERED)]
    assert len(upstream.of("hang@dead-often-unary")) == asked
