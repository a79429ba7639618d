"""Faults of a real upstream, through Complete and StreamComplete of the real service: an answer from an allowed
candidate or a clear error, in time, with every attempt in the record."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.answering.attempt_log import turn_length_s
from router.attempts import Attempt, AttemptOutcome, Delivery
from router.client import AsyncRouterClient, RouterClient
from router.errors import ServiceError
from router.serving.settings import ServerSettings
from router.values import Overrides
from tests.router.fault_policies import (
    BEHAVES_AS,
    BREAKS_OFF,
    CASES,
    METHODS,
    PROMPT,
    UNSEEN,
    A,
    expected_of,
    write_policies,
)
from tests.router.faults import BIG, TEXT, FaultyUpstream, upstream_in_thread
from tests.service import running_service

DEADLINE_S = 4.0

#: Those that LiteLLM sees otherwise than we do.
THROUGH_LITELLM = [
    case for case in CASES if case[0] in {"429-wait", "malformed", "no-choices", "text-message", "html", "reset"}
]
FAULTS = [
    *(fault for fault, _ in CASES),
    *(*BREAKS_OFF, *BEHAVES_AS, "ok", "429-once", "big", "endless", "flood", "400", "422"),
]


@contextlib.contextmanager
def serving_faults(folder: Path, faults: list[str], provider: str) -> Iterator[tuple[str, FaultyUpstream]]:
    """Address of a service with a policy for every fault, and its upstream."""
    with upstream_in_thread() as (upstream, resetting):
        paths = write_policies(folder, faults, upstream, resetting, provider)
        with running_service(ServerSettings(policies=paths, port=0, drain_s=1)) as address:
            with RouterClient(address) as client:  # LiteLLM's import, seconds, is nobody's deadline here
                client.complete(PROMPT, Overrides(policy="ok-unary"))
            yield address, upstream


@pytest.fixture(scope="module")
def world(_real_encoder: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, FaultyUpstream]]:
    """Upstreams that get the caller's own body."""
    with serving_faults(tmp_path_factory.mktemp("policies"), FAULTS, "openai") as found:
        yield found


@pytest.fixture(scope="module")
def litellm_world(
    _real_encoder: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, FaultyUpstream]]:
    """Upstreams that LiteLLM calls: what it makes of their faults."""
    faults = ["ok", *BREAKS_OFF, *(fault for fault, _ in THROUGH_LITELLM)]
    with serving_faults(tmp_path_factory.mktemp("policies"), faults, "hosted_vllm") as found:
        yield found


def ask(address: str, method: str, policy: str, deadline_s: float = DEADLINE_S) -> tuple[str, Delivery]:
    """The answer and who gave it; fails if it comes after the deadline."""
    started = time.monotonic()
    with RouterClient(address, timeout_s=deadline_s) as client:
        try:
            if method == "unary":
                answer = client.complete(PROMPT, Overrides(policy=policy))
                return answer.text, answer.delivery
            first, *steps = client.stream(PROMPT, Overrides(policy=policy))
            assert first.decision is not None
            assert [step.delivery is not None for step in steps] == [True] + [False] * (len(steps) - 1)
            assert steps[0].delivery is not None
            return "".join(step.text for step in steps), steps[0].delivery
        finally:
            assert time.monotonic() - started < deadline_s + 0.1


def outcomes(attempts: tuple[Attempt, ...]) -> list[tuple[str, AttemptOutcome]]:
    return [(attempt.candidate, attempt.outcome) for attempt in attempts]


@pytest.mark.parametrize(("fault", "method"), CASES)
def test_the_candidate_above_answers_and_the_record_says_after_what(
    world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    text, delivery = ask(world[0], method, f"{fault}-{method}")
    assert text == TEXT
    assert (delivery.answered_by, delivery.fell_back) == ("strong", True)
    assert delivery.answered_by_model == f"openai/ok@{fault}-{method}"
    wanted = [("weak", outcome) for outcome in expected_of(fault, method)]
    assert outcomes(delivery.attempts) == [*wanted, ("strong", A.ANSWERED)]


@pytest.mark.parametrize(("fault", "method"), CASES)
def test_the_candidate_below_is_never_asked_and_the_error_is_clear(
    world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = world
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
    world: tuple[str, FaultyUpstream], fault: str
) -> None:
    address, upstream = world
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


def test_the_deadline_ends_an_endless_stream_with_an_error_of_ours(world: tuple[str, FaultyUpstream]) -> None:
    address, upstream = world
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
    world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = world
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
    world: tuple[str, FaultyUpstream], method: str
) -> None:
    started = time.monotonic()
    text, delivery = ask(world[0], method, f"429-once-{method}")
    assert time.monotonic() - started > 0.2
    assert text == TEXT
    assert outcomes(delivery.attempts) == [("weak", A.RATE_LIMITED), ("weak", A.ANSWERED)]
    assert not delivery.fell_back


@pytest.mark.parametrize("method", METHODS)
def test_an_answer_of_ten_megabytes_arrives_whole(world: tuple[str, FaultyUpstream], method: str) -> None:
    text, delivery = ask(world[0], method, f"big-{method}", deadline_s=60)
    assert len(text) == BIG
    assert outcomes(delivery.attempts) == [("weak", A.ANSWERED)]


SILENT = [("hang-long", "unary"), ("hang-whole", "unary"), ("hang-long", "stream"), ("slow-long", "stream")]


@pytest.mark.parametrize(("fault", "method"), SILENT)
def test_an_upstream_that_is_silent_past_the_deadline_is_a_clear_error_before_it(
    world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    address, upstream = world
    with pytest.raises(ServiceError) as caught:
        ask(address, method, f"floor-{fault}-{method}", deadline_s=0.7)
    # Ours, with the attempts, and not the transport's own word for a deadline.
    assert (caught.value.code, caught.value.service_reason) == ("DEADLINE_EXCEEDED", "UPSTREAM_TIMEOUT")
    assert outcomes(caught.value.attempts) == [("strong", A.TIMED_OUT)]
    assert upstream.of(f"ok@floor-{fault}-{method}") == []
    assert asyncio.run(upstream.left(f"{BEHAVES_AS[fault]}@floor-{fault}-{method}")) - time.monotonic() < 1


@pytest.mark.parametrize(("fault", "method"), SILENT)
def test_a_candidate_that_is_silent_longer_than_the_deadline_leaves_time_for_the_one_above(
    world: tuple[str, FaultyUpstream], fault: str, method: str
) -> None:
    # Twice: that it was cut short by an impatient caller does not count against it.
    for _ in range(2):
        text, delivery = ask(world[0], method, f"{fault}-{method}", deadline_s=1.5)
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


@pytest.mark.parametrize(
    ("method", "policy", "model"),
    [
        ("unary", "hang-leave-unary", "hang@hang-leave-unary"),
        ("stream", "hang-leave-stream", "hang@hang-leave-stream"),
        ("stream", "endless-stream", "endless@endless-stream"),
    ],
)
async def test_a_caller_who_leaves_stops_the_upstream_within_a_second(
    world: tuple[str, FaultyUpstream], method: str, policy: str, model: str
) -> None:
    address, upstream = world
    asked = Overrides(policy=policy)
    async with AsyncRouterClient(address, timeout_s=20) as client:

        async def consume() -> None:
            if method == "unary":
                await client.complete(PROMPT, asked)
            else:
                async for _ in client.stream(PROMPT, asked):
                    pass

        task = asyncio.create_task(consume())
        await upstream.asked(model)
        await asyncio.sleep(0.2)
        left_at = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        assert await upstream.left(model) - left_at < 1


async def test_a_caller_who_stops_reading_and_leaves_stops_the_upstream_too(
    world: tuple[str, FaultyUpstream],
) -> None:
    address, upstream = world
    async with AsyncRouterClient(address, timeout_s=20) as client:
        steps = client.stream(PROMPT, Overrides(policy="flood-stream"))
        for _ in range(3):
            await anext(steps)
        # Long enough for every buffer on the way to fill, so that the service waits for us.
        await asyncio.sleep(0.5)
        left_at = time.monotonic()
        await steps.aclose()
        assert await upstream.left("flood@flood-stream") - left_at < 1


def test_a_dead_candidate_is_left_alone_after_some_failures_and_slows_nobody(
    world: tuple[str, FaultyUpstream],
) -> None:
    address, upstream = world

    def timed(policy: str) -> tuple[float, Delivery]:
        started = time.monotonic()
        _, delivery = ask(address, "unary", policy)
        return time.monotonic() - started, delivery

    with ThreadPoolExecutor(24) as pool:
        dead = [pool.submit(timed, "dead-often-unary") for _ in range(12)]
        well = [pool.submit(timed, "ok-unary") for _ in range(12)]
        # Everybody waits for the dead one in the first wave, and only those who asked for it.
        assert all(one.result()[1].answered_by == "strong" for one in dead)
        assert sorted(one.result()[0] for one in well)[6] < 0.6
    asked = len(upstream.of("hang@dead-often-unary"))
    took, delivery = timed("dead-often-unary")
    assert outcomes(delivery.attempts) == [("weak", A.COOLING_DOWN), ("strong", A.ANSWERED)]
    assert took < 0.6
    assert len(upstream.of("hang@dead-often-unary")) == asked


def test_nobody_stands_in_for_a_pinned_candidate(world: tuple[str, FaultyUpstream]) -> None:
    address, upstream = world
    before = len(upstream.of("ok@500-unary"))
    with RouterClient(address, timeout_s=DEADLINE_S) as client, pytest.raises(ServiceError) as caught:
        client.complete(PROMPT, Overrides(policy="500-unary", pin="weak"))
    assert {attempt.candidate for attempt in caught.value.attempts} == {"weak"}
    assert len(upstream.of("ok@500-unary")) == before


def test_nobody_stands_in_whom_the_caller_ruled_out(world: tuple[str, FaultyUpstream]) -> None:
    with RouterClient(world[0], timeout_s=DEADLINE_S) as client, pytest.raises(ServiceError) as caught:
        client.complete(PROMPT, Overrides(policy="503-unary", denied_candidates=("strong",)))
    assert {attempt.candidate for attempt in caught.value.attempts} == {"weak"}


@pytest.mark.parametrize("method", METHODS)
def test_a_session_goes_on_with_who_answered_in_the_chosen_ones_place(
    world: tuple[str, FaultyUpstream], method: str
) -> None:
    overrides, rest = Overrides(policy=f"session-500-{method}"), {"session_id": f"s-{method}"}
    tool_loop = (
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    )
    with RouterClient(world[0], timeout_s=DEADLINE_S) as client:
        if method == "unary":
            assert client.complete(PROMPT, overrides, **rest).delivery.fell_back
        else:
            assert any(
                step.delivery is not None and step.delivery.fell_back
                for step in client.stream(PROMPT, overrides, **rest)
            )
        parameters = {"tools": []}
        held = client.route(tool_loop, overrides, parameters=parameters, **rest)
    assert held.chosen == "strong"


def test_no_prompt_and_no_words_of_a_provider_are_logged(
    world: tuple[str, FaultyUpstream], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for policy in ("500-stream", "401-stream", "reset-stream", "malformed-unary"):
        with RouterClient(world[0], timeout_s=DEADLINE_S) as client:
            try:
                list(client.stream(PROMPT, Overrides(policy=policy)))
            except ServiceError:
                continue
    assert "candidate weak" in caplog.text
    assert "SECRET" not in caplog.text
