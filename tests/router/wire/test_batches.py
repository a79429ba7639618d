"""A batch leaves room for everybody else: in the threads of the encoder, and in the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.loading import load_policies
from router.values import RouteQuery
from router.wire import servicer
from tests.fakes import FakeEncoder, write_policy
from tests.router.wire.in_loop import serving_in_loop


@contextlib.asynccontextmanager
async def serving(router: Router) -> AsyncIterator[pb_grpc.RouterServiceStub]:
    """Serve with this router, and yield a client of it in the same event loop."""
    async with serving_in_loop(router) as address, grpc.aio.insecure_channel(address) as channel:
        yield pb_grpc.RouterServiceStub(channel)


async def test_a_request_of_thousands_of_values_is_read_in_the_thread_for_large_ones_in_a_batch_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    prepare = Router._prepare

    def watched(router: Router, query: RouteQuery, caller: str) -> object:
        threads.append(threading.current_thread().name)
        return prepare(router, query, caller)

    monkeypatch.setattr(Router, "_prepare", watched)
    encoder = FakeEncoder()
    router = Router(load_policies([write_policy(tmp_path)]), {encoder.spec.identity: encoder})
    large = pb.RouteRequest(prompt="hi")
    large.parameters["x"] = [None] * 1500
    async with serving(router) as stub:
        answered = await stub.BatchRoute(pb.BatchRouteRequest(requests=[large] * 10))
    assert all(result.HasField("decision") for result in answered.results)
    assert {name.rstrip("_0") for name in threads} == {"large-requests"}


async def test_a_batch_is_read_a_few_requests_at_a_time_and_the_sessions_in_it_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    read = servicer._by_session

    def watched(requests: list[tuple[int, pb.RouteRequest]], *rest: Any, **options: Any) -> None:
        steps.append(len(requests))
        read(requests, *rest, **options)

    monkeypatch.setattr(servicer, "_by_session", watched)
    encoder = FakeEncoder()
    router = Router(load_policies([write_policy(tmp_path)]), {encoder.spec.identity: encoder})
    sessions = ["", "a", "b"]
    batch = [pb.RouteRequest(prompt="hi", session_id=sessions[number % 3]) for number in range(200)]
    for one in batch:
        one.overrides.pin = "small"
    async with serving(router) as stub:
        answered = await stub.BatchRoute(pb.BatchRouteRequest(requests=batch))
    assert [result.decision.chosen for result in answered.results] == ["small"] * 200
    assert steps == [servicer.READ_AT_ONCE] * (200 // servicer.READ_AT_ONCE) + [200 % servicer.READ_AT_ONCE]


N_PROMPTS, N_THREADS = 600, 4


async def test_a_batch_leaves_one_thread_of_the_encoder_to_others_and_starts_few_tasks(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    router = Router(
        load_policies([write_policy(tmp_path)]),
        {encoder.spec.identity: encoder},
        RouterSettings(threads=N_THREADS, cache_entries=0),
    )
    async with serving(router) as stub:
        await stub.Route(pb.RouteRequest(prompt="warm up"))
        encoder.gate.clear()
        batch = pb.BatchRouteRequest(
            requests=[pb.RouteRequest(prompt=f"prompt {number}") for number in range(N_PROMPTS)]
        )
        tasks_before = len(asyncio.all_tasks())
        waiting = asyncio.ensure_future(stub.BatchRoute(batch))
        async with asyncio.timeout(30):
            while not router.pending:  # noqa: ASYNC110  (nobody tells when the batch has arrived)
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert router.pending == router.batch_slots == N_THREADS - 1
        assert len(asyncio.all_tasks()) - tasks_before < 20
        encoder.gate.set()
        answered = await waiting
        assert len(answered.results) == N_PROMPTS
        alone = {
            text: router.decide(RouteQuery.from_prompt(text)).chosen for text in ("prompt 0", f"prompt {N_PROMPTS - 1}")
        }
        assert answered.results[0].decision.chosen == alone["prompt 0"]
        assert answered.results[-1].decision.chosen == alone[f"prompt {N_PROMPTS - 1}"]


async def test_a_batch_pauses_while_a_single_request_is_decided_and_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    router = Router(load_policies([write_policy(tmp_path)]), {encoder.spec.identity: encoder})
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def watched(delay: float, *result: object) -> object:
        # Other code of the process sleeps too.
        if sys._getframe(1).f_code.co_filename == servicer.__file__:
            pauses.append(delay)
        return await sleep(delay, *result)

    pinned = pb.RouteRequest(prompt="hello")
    pinned.overrides.pin = router.policy(None).rules.file.names[0]
    batch = pb.BatchRouteRequest(requests=[pinned] * 20)
    async with serving(router) as stub:
        await stub.Route(pb.RouteRequest(prompt="warm up"))
        encoder.gate.clear()
        single = asyncio.ensure_future(stub.Route(pb.RouteRequest(prompt="a single one")))
        async with asyncio.timeout(30):
            while not router.pending:
                await sleep(0.005)
        monkeypatch.setattr(asyncio, "sleep", watched)
        await stub.BatchRoute(batch)
        # One after reading them, and one after each.
        assert pauses == [servicer.BATCH_PAUSE_S] * 21
        encoder.gate.set()
        await single
        pauses.clear()
        await stub.BatchRoute(batch)
        assert pauses == [0] * 21
