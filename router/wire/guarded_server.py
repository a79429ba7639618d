"""Wrap every method of a gRPC server: its requests are read within bounds, and what it raises becomes a status."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.rpc import code_pb2

from router.errors import DeadlineError, DispatchError, RouterError
from router.identity.gate import OPEN_GATE, Gate
from router.identity.method_scopes import RUNNING, door_of, needed_for
from router.intake.bounds import forget_frames
from router.intake.in_flight import InFlight
from router.pb import router_service_pb2_grpc as pb_grpc
from router.wire.request_reader import Context, RequestDecoder, RequestReader, text_headers
from router.wire.statuses import DETAILS_KEY, status_of

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

#: Makes the context in which a request counts as in flight.
_Track = Callable[[], contextlib.AbstractContextManager[None]]

#: Makes the context that reads the request of a call, or the iterator over its requests if the call streams them.
_Read = Callable[[AsyncIterator[bytes], Any], contextlib.AbstractAsyncContextManager[Any]]

#: Raises the error of a caller who may not call this method.
_Admit = Callable[[Context], None]

#: The arguments of `ServicerContext.abort`: status code, message, trailers.
_Failure: TypeAlias = "tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]"

#: The trailer that tells grpc's own retries how many milliseconds to wait; a negative number means not to retry.
PUSHBACK_KEY = "grpc-retry-pushback-ms"

#: Seconds that a caller may leave a part of a streamed answer unread.
UNREAD_S = 60.0


class GuardedServer:
    """Takes the place of a gRPC server while services are added to it, and guards each of their methods.

    Methods are wrapped once, at start; an interceptor would do it anew for every call. Cancellation and aborts pass
    through. The guard covers health, reflection and gateways as well: without it, grpc would answer a malformed message
    with the status UNKNOWN and the names of Python classes.

    Args:
        server: the server that the guarded methods are added to.
        in_flight: counts the requests and can end them; None if nobody waits for them to finish.
        reader: reads and decodes the requests; None for a reader with the usual bounds.
        gate: checks who calls, before anything of the request is read.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        in_flight: InFlight | None,
        reader: RequestReader | None,
        gate: Gate = OPEN_GATE,
    ) -> None:
        self._server = server
        self._in_flight = in_flight
        self._reader = reader or RequestReader()
        self._gate = gate

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Do nothing, because generated code adds the same handlers by `add_registered_method_handlers` too."""

    def add_registered_method_handlers(self, service: str, by_method: dict[str, Handler]) -> None:
        """Add the methods of a service, each wrapped so that bounds and errors are handled."""
        handlers = {
            method: _guard(handler, self._in_flight, self._reader, self._admit_to(service, method))
            for method, handler in by_method.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _admit_to(self, service: str, method: str) -> _Admit:
        """Return what checks the caller of a method."""
        gate, door, needed = self._gate, door_of(service), needed_for(service, method)

        def admit(context: Context) -> None:
            if gate.looks_at_headers or needed == RUNNING:
                gate.admit(door, text_headers(context), needed)

        return admit


def add_to_server(
    service: pb_grpc.RouterServiceServicer,
    server: grpc.aio.Server,
    in_flight: InFlight | None = None,
    reader: RequestReader | None = None,
    gate: Gate = OPEN_GATE,
) -> None:
    """Add `elle.router.v1.RouterService` to a server, guarded. See `GuardedServer` for the arguments."""
    pb_grpc.add_RouterServiceServicer_to_server(service, guarded(server, in_flight, reader, gate))


def guarded(
    server: grpc.aio.Server,
    in_flight: InFlight | None = None,
    reader: RequestReader | None = None,
    gate: Gate = OPEN_GATE,
) -> grpc.aio.Server:
    """Return an object that takes the place of `server` when services are added, and guards their methods.

    See `GuardedServer` for the arguments.
    """
    return cast(grpc.aio.Server, GuardedServer(server, in_flight, reader, gate))


def _guard(handler: Handler, in_flight: InFlight | None, reader: RequestReader, admit: _Admit) -> Handler:
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    method = kinds[handler.request_streaming, handler.response_streaming]
    # Only a method whose requests stream may read them itself, which a limit on time needs.
    make: Any = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    # A streaming method may also write to its context and return nothing, as the one of the health service does.
    guard = _guard_stream if inspect.isasyncgenfunction(method) else _guard_call
    read = reader.read_many if handler.request_streaming else reader.read_one
    decoder = RequestDecoder(cast(Any, handler.request_deserializer))
    track = in_flight.track if in_flight is not None else contextlib.nullcontext
    # No deserialiser: the reader decodes, once it has counted bytes and fields.
    guarded_method = guard(method, functools.partial(read, decoder=decoder), track, admit)
    return cast(
        Handler, make(guarded_method, None, functools.partial(_serialized, cast(Any, handler.response_serializer)))
    )


def _serialized(serialize: Callable[[Any], bytes], answer: Any) -> bytes:
    """Return an answer as bytes of protobuf.

    A large one is bytes already, so that the event loop has nothing to do for it.
    """
    return answer if isinstance(answer, bytes) else serialize(answer)


def _guard_call(method: Any, read: _Read, track: _Track, admit: _Admit) -> Callable[..., Awaitable[Any]]:
    async def answer_or_failure(requests: AsyncIterator[bytes], context: Context) -> tuple[Any, _Failure | None]:
        try:
            admit(context)
            async with read(requests, context) as request:
                with track():
                    return await method(request, context), None
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            return None, _failure(error)

    async def guarded_method(requests: AsyncIterator[bytes], context: Context) -> Any:
        answer, failure = await answer_or_failure(requests, context)
        if failure is not None:
            # grpc keeps the exception that `abort` raises, and with it this frame, which must not hold the request.
            await context.abort(*failure)
        return answer

    return guarded_method


def _guard_stream(method: Any, read: _Read, track: _Track, admit: _Admit) -> Callable[..., Awaitable[None]]:
    # It writes instead of yielding, so that a stream that is cut short during a write ends with our status too.
    async def write_all(requests: AsyncIterator[bytes], context: Context) -> _Failure | None:
        try:
            admit(context)
            async with read(requests, context) as request:
                with track():
                    async with contextlib.aclosing(method(request, context)) as items:
                        async for item in items:
                            await _write(context, item)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            return _failure(error)
        return None

    async def guarded_method(requests: AsyncIterator[bytes], context: Context) -> None:
        if (failure := await write_all(requests, context)) is not None:
            await context.abort(*failure)

    return guarded_method


async def _write(context: Context, item: Any) -> None:
    try:
        async with asyncio.timeout(UNREAD_S):
            await context.write(item)
    except TimeoutError:
        raise DeadlineError(
            f"the caller must read the answer while it is streamed, and has not done so for {UNREAD_S:.0f} s."
        ) from None


def _failure(error: Exception) -> _Failure:
    """Return the arguments of `abort` for an error, and drop the references to the request that the error holds."""
    status = status_of(error)
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, DispatchError):
        # The dispatcher has retried whatever is worth a retry, so clients that retry UNAVAILABLE are asked not to.
        trailers.append((PUSHBACK_KEY, "-1"))
    elif isinstance(error, RouterError) and error.retry_after_s is not None:
        # RetryInfo tells programs how long to wait; this trailer tells grpc's own retries the same.
        trailers.append((PUSHBACK_KEY, str(round(error.retry_after_s * 1e3))))
    forget_frames(error)
    return grpc.StatusCode[code_pb2.Code.Name(status.code)], status.message, tuple(trailers)
