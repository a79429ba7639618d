"""Domain errors -> rich gRPC statuses, for every method at once. Nothing of our insides goes over the wire.

Unknown errors become INTERNAL with a request id under which the service's log holds the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from router.attempts import Attempt
from router.errors import DeadlineError, DispatchError, RouterError
from router.intake.bounds import forget_frames
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from router.plain_json import whole_text
from router.wire import conversion as wire
from router.wire.arrival import Arrivals, Decoder
from router.wire.in_work import InWork

log = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

#: Makes the context that a request is held in while it is in work.
_Held = Callable[[], contextlib.AbstractContextManager[None]]

#: What reads a request, or all of a call that streams them; it counts as long as the context lasts.
_Arrive = Callable[[AsyncIterator[bytes], Any], contextlib.AbstractAsyncContextManager[Any]]

DOMAIN = "elle.router"

#: Tells grpc's own retries how many milliseconds to wait; a negative number, not to retry.
PUSHBACK_KEY = "grpc-retry-pushback-ms"
DETAILS_KEY = "grpc-status-details-bin"

#: Bytes of a status's message on the wire; its details may hold it twice. Clients take 8 KB of trailers in all.
MAX_MESSAGE_BYTES = 1500

#: Bytes of the attempts among the details of a status.
MAX_ATTEMPTS_BYTES = 2000


#: Seconds that a caller may leave a part of a streamed answer unread.
UNREAD_S = 60.0


def status_of(error: Exception) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo and, where they apply, BadRequest, RetryInfo and Delivery for our
    own ones.

    Any other error is logged and becomes INTERNAL with the request id of its log entry. A long message is cut, and says
    so, because statuses travel as trailers, of which clients take 8 KB.
    """
    if not isinstance(error, RouterError):
        request_id = uuid.uuid4().hex
        log.error("request %s failed", request_id, exc_info=error)
        message = f"internal error; the service's log has it as request {request_id}."
        return _status("INTERNAL", message, [error_details_pb2.RequestInfo(request_id=request_id)])
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=DOMAIN, metadata={"retryable": str(error.retryable).lower()}
    )
    details: list[Any] = [info]
    message = _fitting(str(error))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=_fitting(error.field, 200), description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, DispatchError) and error.attempts:
        details.append(_fitting_attempts(error.attempts))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(retry)
    return _status(error.status, message, details)


def _fitting(message: str, limit: int = MAX_MESSAGE_BYTES) -> str:
    """The message as a trailer carries it: whole Unicode, cut where it takes more than `limit` bytes."""
    message = whole_text(message)
    # Of what is not printable ASCII grpc sends three characters for each byte.
    if 3 * len(message.encode()) <= limit:
        return message
    end = taken = 0
    for end, letter in enumerate(message):
        taken += 1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode())
        if taken > limit:
            return f"{message[:end]}... (cut; {len(message):,} characters in all)"
    return message


def _fitting_attempts(attempts: Sequence[Attempt]) -> routing_pb2.Delivery:
    """The last attempts, as many as a trailer has room for."""
    kept = wire.failed_delivery_to_wire(attempts)
    while kept.ByteSize() > MAX_ATTEMPTS_BYTES:
        del kept.attempts[0]
    return kept


def _status(code: str, message: str, details: list[Any]) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


_Failure: TypeAlias = "tuple[grpc.StatusCode, str, tuple[tuple[str, str | bytes], ...]]"


def _failure(error: Exception) -> _Failure:
    """The arguments of `abort` for an error, which then holds on to nothing of the request."""
    status = status_of(error)
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, DispatchError):
        # What is worth retrying was retried; clients that retry UNAVAILABLE by themselves are asked not to.
        trailers.append((PUSHBACK_KEY, "-1"))
    elif isinstance(error, RouterError) and error.retry_after_s is not None:
        # What RetryInfo says to programs, said to grpc, whose own retries then wait as long.
        trailers.append((PUSHBACK_KEY, str(round(error.retry_after_s * 1e3))))
    forget_frames(error)
    return grpc.StatusCode[code_pb2.Code.Name(status.code)], status.message, tuple(trailers)


class GuardedServer:
    """What generated code takes for a server to add a service to: every method turns what it raises into a status.

    Done once, at start: an interceptor would do it anew for every call. Cancellation and aborts pass. It covers health,
    reflection and further doors as well, which would tell a malformed message as UNKNOWN, with Python's class names.

    Args:
        server: where the services go.
        in_work: what their requests are counted in, and cut short by; None where nobody waits for them to finish.
        arrivals: what reads and decodes their requests; None for the usual bounds.
    """

    def __init__(self, server: grpc.aio.Server, in_work: InWork | None, arrivals: Arrivals | None) -> None:
        self._server = server
        self._in_work = in_work
        self._arrivals = arrivals or Arrivals()

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers once more, in a shape that hides them."""

    def add_registered_method_handlers(self, service: str, by_method: dict[str, Handler]) -> None:
        """Add the methods of a service."""
        guarded = {method: _guard(handler, self._in_work, self._arrivals) for method, handler in by_method.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def add_to_server(
    service: pb_grpc.RouterServiceServicer,
    server: grpc.aio.Server,
    in_work: InWork | None = None,
    arrivals: Arrivals | None = None,
) -> None:
    """Add our service to a server, every method turning what it raises into a status."""
    pb_grpc.add_RouterServiceServicer_to_server(service, guarded(server, in_work, arrivals))


def guarded(
    server: grpc.aio.Server, in_work: InWork | None = None, arrivals: Arrivals | None = None
) -> grpc.aio.Server:
    """Return what services are to be added to in place of the server; arguments as `GuardedServer`."""
    return cast(grpc.aio.Server, GuardedServer(server, in_work, arrivals))


def _guard(handler: Handler, in_work: InWork | None, arrivals: Arrivals) -> Handler:
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    method = kinds[handler.request_streaming, handler.response_streaming]
    # To read one message ourselves, with a limit of time, is to be called as if many came.
    make: Any = (
        grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    )
    # A method that streams may as well write to its context and return nothing, as that of the health service does.
    guard = _guard_stream if inspect.isasyncgenfunction(method) else _guard_call
    arrive = arrivals.many if handler.request_streaming else arrivals.one
    decoder = Decoder(cast(Any, handler.request_deserializer))
    guarded_method = guard(
        method, partial(arrive, decoder=decoder), in_work.request if in_work is not None else contextlib.nullcontext
    )
    return cast(Handler, make(guarded_method, None, handler.response_serializer))


def _guard_call(method: Any, arrive: _Arrive, held: _Held) -> Callable[..., Awaitable[Any]]:
    async def answered(requests: AsyncIterator[bytes], context: Context) -> tuple[Any, _Failure | None]:
        try:
            async with arrive(requests, context) as request:
                with held():
                    return await method(request, context), None
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            return None, _failure(error)

    async def guarded(requests: AsyncIterator[bytes], context: Context) -> Any:
        answer, failure = await answered(requests, context)
        if failure is not None:
            # From a frame that knows no request: grpc keeps what `abort` raises, and with it the frame.
            await context.abort(*failure)
        return answer

    return guarded


def _guard_stream(method: Any, arrive: _Arrive, held: _Held) -> Callable[..., Awaitable[None]]:
    # Writes itself instead of yielding: a stream that is cut short while it writes must come to our status too.
    async def streamed(requests: AsyncIterator[bytes], context: Context) -> _Failure | None:
        try:
            async with arrive(requests, context) as request:
                with held():
                    async with contextlib.aclosing(method(request, context)) as items:
                        async for item in items:
                            await _write(context, item)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            return _failure(error)
        return None

    async def guarded(requests: AsyncIterator[bytes], context: Context) -> None:
        if (failure := await streamed(requests, context)) is not None:
            await context.abort(*failure)

    return guarded


async def _write(context: Context, item: Any) -> None:
    try:
        async with asyncio.timeout(UNREAD_S):
            await context.write(item)
    except TimeoutError:
        raise DeadlineError(f"the caller must read the answer, and has not for {UNREAD_S:.0f} s.") from None
