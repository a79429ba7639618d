"""gRPC requests on their way in: refused before they are decoded, whatever they are to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import grpc
import pytest

from router.pb import router_service_pb2 as pb
from router.serving.grpc_options import MAX_REQUEST_BYTES
from router.wire.request_reader import RequestDecoder, RequestReader

ROUTE = "/elle.router.v1.RouterService/Route"
BATCH = "/elle.router.v1.RouterService/BatchRoute"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.fixture(scope="module")
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield channel


def failure(channel: grpc.Channel, method: str, message: bytes, **more: object) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method)(message, timeout=60, **more)
    return caught.value.code().name, caught.value.details()


def within(number: int, inner: bytes) -> bytes:
    length, rest = bytearray(), len(inner)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + inner


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ROUTE, within(1, b"\x0a\x00" * 200_000)),
        (ROUTE, within(2, b"hi") + b"\x78\x01" * 200_000),
        (ROUTE, within(2, b"hi") + within(3, b"\x1a\x01a" * 200_000)),
        (ROUTE, within(2, b"hi") + within(5, within(1, within(1, b"a") + within(2, within(6, b"\x0a\x00" * 200_000))))),
        (BATCH, b"\x0a\x00" * 200_000),
        (HEALTH, b"\x78\x01" * 200_000),
    ],
    ids=["messages", "unknown", "names", "struct", "batch", "health"],
)
def test_too_many_fields_are_refused(channel: grpc.Channel, method: str, message: bytes) -> None:
    code, details = failure(channel, method, message)
    assert code == "INVALID_ARGUMENT"
    assert "at most 100,000 fields" in details


def test_a_message_beyond_the_limit_and_a_compressed_one_are_refused(channel: grpc.Channel) -> None:
    assert failure(channel, ROUTE, within(2, b"a" * MAX_REQUEST_BYTES))[0] == "RESOURCE_EXHAUSTED"
    code, _ = failure(channel, ROUTE, within(2, b"a" * 9999), compression=grpc.Compression.Gzip)
    assert code == "UNIMPLEMENTED"


def test_a_call_without_a_message_is_told_so(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.stream_unary(ROUTE)(iter(()), timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_large_requests_are_answered_as_small_ones_are(channel: grpc.Channel) -> None:
    words = "Which of these words is a verb? " + "word " * 10_000
    route = channel.unary_unary(ROUTE, pb.RouteRequest.SerializeToString, pb.RouteResponse.FromString)
    batch = channel.unary_unary(BATCH, pb.BatchRouteRequest.SerializeToString, pb.BatchRouteResponse.FromString)
    request = pb.RouteRequest(prompt=words)
    alone = route(request).decision
    small = pb.RouteRequest(prompt="hello")
    together = batch(pb.BatchRouteRequest(requests=[request, small])).results
    assert [one.decision.chosen for one in together] == [alone.chosen, route(small).decision.chosen]


class Waiting:
    """A fake context of a gRPC call whose message never arrives whole."""

    def __init__(self, remaining_s: float | None) -> None:
        self._remaining_s = remaining_s

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    def time_remaining(self) -> float | None:
        return self._remaining_s

    async def messages(self) -> AsyncIterator[bytes]:
        yield await self.read()


@pytest.mark.parametrize(("remaining_s", "n_counted"), [(None, 1), (20.0, 1), (0.0, 0)])
@pytest.mark.parametrize("streams", [False, True])
def test_a_call_that_grpc_ends_before_its_message_is_whole_counts_unless_its_own_time_is_over(
    streams: bool, remaining_s: float | None, n_counted: int
) -> None:
    counted: list[None] = []
    reader = RequestReader(on_oversized=lambda: counted.append(None))
    context, decoder = Waiting(remaining_s), RequestDecoder(pb.RouteRequest.FromString)

    async def read() -> None:
        if streams:
            async with reader.read_many(context.messages(), cast(Any, context), decoder) as messages:
                await anext(messages)
        else:
            async with reader.read_one(context.messages(), cast(Any, context), decoder):
                pass

    async def run() -> None:
        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())
    assert len(counted) == n_counted
