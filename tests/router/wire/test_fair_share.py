"""A caller with a thousand open calls, or with a large batch, does not starve another one's single request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio
import pytest

from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.loading import load_policies
from tests.fakes import FakeBatchEncoder, FakeEncoder, write_policy
from tests.router.wire.in_loop import serving_in_loop

#: Makes a call with a stub and a credential.
Call = Callable[[pb_grpc.RouterServiceStub, str], Awaitable[object]]

N_CALLS = 1000

#: A connection of its own for each client.
ALONE = [("grpc.use_local_subchannel_pool", 1)]


def routes(stub: pb_grpc.RouterServiceStub, credential: str) -> Awaitable[object]:
    calls = (
        stub.Route(pb.RouteRequest(prompt=f"greedy {number}"), metadata=[("x-api-key", credential)])
        for number in range(N_CALLS)
    )
    return asyncio.gather(*calls, return_exceptions=True)


def batches(stub: pb_grpc.RouterServiceStub, credential: str) -> Awaitable[object]:
    requests = [pb.RouteRequest(prompt=f"greedy {number}") for number in range(200)]
    asked = pb.BatchRouteRequest(requests=requests)
    return asyncio.gather(*(stub.BatchRoute(asked, metadata=[("x-api-key", credential)]) for _ in range(3)))


@pytest.mark.parametrize("greedy", [routes, batches])
@pytest.mark.parametrize("encoder", [FakeEncoder(), FakeBatchEncoder(batch_tokens=16)], ids=["one by one", "batches"])
@pytest.mark.parametrize("connections", [1, 2], ids=["another credential", "another connection"])
async def test_a_single_request_is_answered_after_few_of_those_who_send_many(
    tmp_path: Path, encoder: FakeEncoder, greedy: Call, connections: int
) -> None:
    encoder.encoded.clear()
    policies = load_policies([write_policy(tmp_path)])
    settings = RouterSettings(threads=1, cache_entries=0, max_pending=16)
    router = Router(policies, {encoder.spec.identity: encoder}, settings)
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving_in_loop(router))
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=ALONE))
            for _ in range(connections)
        ]
        first, last = (pb_grpc.RouterServiceStub(channels[at]) for at in (0, -1))
        encoder.gate.clear()
        many = asyncio.ensure_future(greedy(first, "greedy"))
        async with asyncio.timeout(60):
            while router.pending < (16 if greedy is routes else router.batch_slots):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            before = len(encoder.encoded)
            credential = "greedy" if connections > 1 else "other"
            single: asyncio.Future[pb.RouteResponse] = asyncio.ensure_future(
                last.Route(pb.RouteRequest(prompt="the single one"), metadata=[("x-api-key", credential)])
            )
            waiting = router._encoders._pools[encoder.spec.identity]._jobs
            while not any(one.text == "the single one" for one in waiting.in_turn()):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            encoder.gate.set()
            assert (await single).decision.chosen
        # A batch of two that is in work, and one that had its turn before.
        assert encoder.encoded.index("the single one") - before <= 4
        await many
