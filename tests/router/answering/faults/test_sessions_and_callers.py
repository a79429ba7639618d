"""Tests of faults from the caller's side: who leaves, who pins or rules out a candidate, and what a session keeps."""

from __future__ import annotations

import asyncio
import time

import pytest

from router.client import AsyncRouterClient, RouterClient
from router.errors import ServiceError
from router.values import Overrides
from tests.router.answering.faults.faults_stack import DEADLINE_S
from tests.router.fault_policies import METHODS, PROMPT
from tests.router.faults import FaultyUpstream


@pytest.mark.parametrize(
    ("method", "policy", "model"),
    [
        ("unary", "hang-leave-unary", "hang@hang-leave-unary"),
        ("stream", "hang-leave-stream", "hang@hang-leave-stream"),
        ("stream", "endless-stream", "endless@endless-stream"),
    ],
)
async def test_a_caller_who_leaves_stops_the_upstream_within_a_second(
    stack: tuple[str, FaultyUpstream], method: str, policy: str, model: str
) -> None:
    address, upstream = stack
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
    stack: tuple[str, FaultyUpstream],
) -> None:
    address, upstream = stack
    async with AsyncRouterClient(address, timeout_s=20) as client:
        steps = client.stream(PROMPT, Overrides(policy="flood-stream"))
        for _ in range(3):
            await anext(steps)
        # Long enough for every buffer on the way to fill, so that the service waits for us.
        await asyncio.sleep(0.5)
        left_at = time.monotonic()
        await steps.aclose()
        assert await upstream.left("flood@flood-stream") - left_at < 1


def test_nobody_stands_in_for_a_pinned_candidate(stack: tuple[str, FaultyUpstream]) -> None:
    address, upstream = stack
    with RouterClient(address, timeout_s=DEADLINE_S) as client, pytest.raises(ServiceError) as caught:
        client.complete(PROMPT, Overrides(policy="pinned-500-unary", pin="weak"))
    assert {attempt.candidate for attempt in caught.value.attempts} == {"weak"}
    assert upstream.of("ok@pinned-500-unary") == []


def test_nobody_stands_in_whom_the_caller_ruled_out(stack: tuple[str, FaultyUpstream]) -> None:
    with RouterClient(stack[0], timeout_s=DEADLINE_S) as client, pytest.raises(ServiceError) as caught:
        client.complete(PROMPT, Overrides(policy="denied-503-unary", denied_candidates=("strong",)))
    assert {attempt.candidate for attempt in caught.value.attempts} == {"weak"}


@pytest.mark.parametrize("method", METHODS)
def test_a_session_goes_on_with_who_answered_in_the_chosen_ones_place(
    stack: tuple[str, FaultyUpstream], method: str
) -> None:
    overrides, rest = Overrides(policy=f"session-500-{method}"), {"session_id": f"s-{method}"}
    tool_loop = (
        {"role": "user", "content": PROMPT},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "c", "content": "4"},
    )
    with RouterClient(stack[0], timeout_s=DEADLINE_S) as client:
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
    stack: tuple[str, FaultyUpstream], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for policy in ("logged-500-stream", "logged-401-stream", "logged-reset-stream", "logged-malformed-stream"):
        with RouterClient(stack[0], timeout_s=DEADLINE_S) as client:
            try:
                list(client.stream(PROMPT, Overrides(policy=policy)))
            except ServiceError:
                continue
    assert "candidate weak" in caplog.text
    assert "SECRET" not in caplog.text
