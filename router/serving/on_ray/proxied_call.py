"""Let the guarded methods of our gRPC server answer calls that Ray's ingress took (`ProxiedMethods`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import grpc.aio

from router.identity.gate import Gate
from router.intake.bounds import Intake
from router.intake.in_flight import InFlight
from router.loop_thread import in_background
from router.wire.guarded_server import add_to_server
from router.wire.request_reader import RequestReader
from router.wire.servicer import RouterService


@dataclass(frozen=True)
class EncodedAnswer:
    """Holds an answer that is encoded already, with the method that Ray Serve calls to encode it."""

    data: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - the name that protobuf has
        """Return the answer as it is."""
        return self.data


class ProxiedMethods:
    """The methods of the service with the same guards as on our own port: bounds, tokens, and errors as statuses.

    Args:
        service: the servicer. intake: the bounds. gate: checks who calls.
        in_flight: counts the requests.
    """

    def __init__(self, service: RouterService, intake: Intake, gate: Gate, in_flight: InFlight) -> None:
        collected = _Collected()
        add_to_server(service, cast(grpc.aio.Server, collected), in_flight, RequestReader(intake), gate)
        self._handlers = collected.handlers

    async def answer(self, method: str, data: bytes, proxied: Any) -> EncodedAnswer:
        """Answer a call whose answer is one message. `proxied` is the context of Ray Serve, which gets the status."""
        handler, call = self._handlers[method], _ProxiedCall(data, proxied)
        try:
            answer = await handler.stream_unary(call.requests(), call)
        except grpc.aio.AbortError:
            return EncodedAnswer(b"")
        return EncodedAnswer(handler.response_serializer(answer))

    async def stream(self, method: str, data: bytes, proxied: Any) -> AsyncIterator[EncodedAnswer]:
        """Answer a call whose answer is streamed, message by message."""
        handler, call = self._handlers[method], _ProxiedCall(data, proxied)

        async def write_all() -> None:
            try:
                await handler.stream_stream(call.requests(), call)
            except grpc.aio.AbortError:
                pass
            finally:
                await call.written.put(None)

        async with in_background(write_all()):
            while (item := await call.written.get()) is not None:
                yield EncodedAnswer(handler.response_serializer(item))


class _Collected:
    """Takes the place of a gRPC server, and keeps the handlers that are added to it by the names of their methods."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        for one in handlers:
            methods: Mapping[str, Any] = one._method_handlers
            self.handlers |= {path.rpartition("/")[2]: handler for path, handler in methods.items()}


@dataclass
class _ProxiedCall:
    """Has what our methods use of a call's context: its message, its headers, and where to write and to fail."""

    data: bytes
    proxied: Any
    is_read: bool = False
    #: One message at a time, so that a caller who reads slowly slows the upstream down as on our own port.
    written: asyncio.Queue[Any] = field(default_factory=lambda: asyncio.Queue(1))

    async def read(self) -> Any:
        if self.is_read:
            return grpc.aio.EOF
        self.is_read = True
        data, self.data = self.data, b""
        return data

    async def requests(self) -> AsyncIterator[bytes]:
        while (data := await self.read()) is not grpc.aio.EOF:
            yield data

    async def write(self, message: Any) -> None:
        await self.written.put(message)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        # Ray Serve would log an exception with its message. A status on the context says the same to the caller alone.
        self.proxied.set_code(code)
        self.proxied.set_details(details)
        self.proxied.set_trailing_metadata(list(trailing_metadata))
        raise grpc.aio.AbortError(details)

    def invocation_metadata(self) -> Any:
        return self.proxied.invocation_metadata()

    def peer(self) -> str:
        return str(self.proxied.peer())

    def time_remaining(self) -> float | None:
        """Return None, because Ray Serve does not tell replicas when a caller gives up; it cancels their work then."""
        return None
