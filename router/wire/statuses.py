"""Domain errors -> rich gRPC statuses, for every method at once. Nothing of our insides goes over the wire.

Unknown errors become INTERNAL with a request id under which the service's log holds the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from router.errors import DispatchError, InvalidRequestError, RouterError
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from router.plain_json import whole_text
from router.values import Attempt
from router.wire import conversion as wire
from router.wire.in_work import InWork

log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

#: Makes the context that a request is held in while it is in work.
_Held = Callable[[], contextlib.AbstractContextManager[None]]

DOMAIN = "elle.router"

#: Tells grpc's own retries how many milliseconds to wait; a negative number, not to retry.
PUSHBACK_KEY = "grpc-retry-pushback-ms"
DETAILS_KEY = "grpc-status-details-bin"

#: Bytes of a status's message on the wire; its details may hold it twice. Clients take 8 KB of trailers in all.
MAX_MESSAGE_BYTES = 1500

#: Bytes of the attempts among the details of a status.
MAX_ATTEMPTS_BYTES = 2000


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


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: Exception) -> None:
    status = status_of(error)
    code = grpc.StatusCode[code_pb2.Code.Name(status.code)]
    trailers: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status.SerializeToString())]
    if isinstance(error, DispatchError):
        # What is worth retrying was retried; clients that retry UNAVAILABLE by themselves are asked not to.
        trailers.append((PUSHBACK_KEY, "-1"))
    elif isinstance(error, RouterError) and error.retry_after_s is not None:
        # What RetryInfo says to programs, said to grpc, whose own retries then wait as long.
        trailers.append((PUSHBACK_KEY, str(round(error.retry_after_s * 1e3))))
    await context.abort(code, status.message, tuple(trailers))


@dataclasses.dataclass(frozen=True, slots=True)
class _Malformed:
    """Stands in for a request that could not be parsed, so that the error is told by us and not by grpc."""

    error: Exception


def _parse_with(deserialize: Any) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except (DecodeError, UnicodeDecodeError) as error:
            return _Malformed(error)

    return parse


class GuardedServer:
    """What generated code takes for a server to add a service to: every method turns what it raises into a status.

    Done once, at start: an interceptor would do it anew for every call. Cancellation and aborts pass. It covers health,
    reflection and further doors as well, which would tell a malformed message as UNKNOWN, with Python's class names.

    Args:
        server: where the services go.
        in_work: what their requests are counted in, and cut short by; None where nobody waits for them to finish.
    """

    def __init__(self, server: grpc.aio.Server, in_work: InWork | None) -> None:
        self._server = server
        self._in_work = in_work

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers once more, in a shape that hides them."""

    def add_registered_method_handlers(self, service: str, by_method: dict[str, Handler]) -> None:
        """Add the methods of a service."""
        guarded = {method: _guard(handler, self._in_work) for method, handler in by_method.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, guarded),))


def add_to_server(
    service: pb_grpc.RouterServiceServicer, server: grpc.aio.Server, in_work: InWork | None = None
) -> None:
    """Add our service to a server, every method turning what it raises into a status."""
    pb_grpc.add_RouterServiceServicer_to_server(service, guarded(server, in_work))


def guarded(server: grpc.aio.Server, in_work: InWork | None = None) -> grpc.aio.Server:
    """Return what services are to be added to in place of the server; arguments as `GuardedServer`."""
    return cast(grpc.aio.Server, GuardedServer(server, in_work))


def _guard(handler: Handler, in_work: InWork | None) -> Handler:
    kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
        (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
        (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
    }
    method, make = kinds[handler.request_streaming, handler.response_streaming]
    # A method that streams may as well write to its context and return nothing, as that of the health service does.
    guard = _guard_stream if inspect.isasyncgenfunction(method) else _guard_call
    check = _checked_stream if handler.request_streaming else _checked
    guarded_method = guard(method, check, in_work.request if in_work is not None else contextlib.nullcontext)
    return cast(Handler, make(guarded_method, _parse_with(handler.request_deserializer), handler.response_serializer))


def _checked(request: Any) -> Any:
    if isinstance(request, _Malformed):
        raise InvalidRequestError(
            "the request must be a valid protobuf message whose strings are valid UTF-8; it could not be parsed."
        ) from request.error
    return request


async def _checked_stream(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield _checked(request)


def _guard_call(method: Any, check: Callable[[Any], Any], held: _Held) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            with held():
                return await method(check(request), context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded


def _guard_stream(method: Any, check: Callable[[Any], Any], held: _Held) -> Callable[..., Awaitable[None]]:
    # Writes itself instead of yielding: a stream that is cut short while it writes must come to our status too.
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        try:
            with held():
                async with contextlib.aclosing(method(check(request), context)) as items:
                    async for item in items:
                        await context.write(item)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded
