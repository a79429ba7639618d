"""Domain errors -> rich gRPC statuses, for every method at once. Nothing of our insides goes over the wire.

Unknown errors become INTERNAL with a request id under which the service's log holds the traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

from router.errors import DispatchError, InvalidRequestError, RouterError
from router.pb import router_service_pb2_grpc as pb_grpc
from router.wire import conversion as wire

log = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

DOMAIN = "elle.router"
DETAILS_KEY = "grpc-status-details-bin"


def status_of(error: Exception) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo and, where they apply, BadRequest, RetryInfo and Delivery for our
    own ones.

    Any other error is logged and becomes INTERNAL with the request id of its log entry.
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
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, DispatchError) and error.attempts:
        details.append(wire.failed_delivery_to_wire(error.attempts))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(retry)
    return _status(error.status, str(error), details)


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
        trailers.append(("grpc-retry-pushback-ms", "-1"))
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


def _check_parsed(request: Any) -> None:
    if isinstance(request, _Malformed):
        raise InvalidRequestError(
            "the request must be a valid protobuf message whose strings are valid UTF-8; it could not be parsed."
        ) from request.error


class _Handlers:
    """What the generated code takes for a server: keeps the handlers it is given."""

    def __init__(self) -> None:
        self.service = ""
        self.by_method: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """The same handlers once more, in a shape that hides them."""

    def add_registered_method_handlers(self, service: str, by_method: dict[str, Handler]) -> None:
        self.service, self.by_method = service, by_method


def add_to_server(service: pb_grpc.RouterServiceServicer, server: grpc.aio.Server) -> None:
    """Add our service to a server, every method turning what it raises into a status. Cancellation and aborts pass.

    Done once, at start: an interceptor would do it anew for every call. Health and reflection speak for themselves.
    """
    found = _Handlers()
    pb_grpc.add_RouterServiceServicer_to_server(service, cast(grpc.aio.Server, found))
    guarded = {method: _guard(handler) for method, handler in found.by_method.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(found.service, guarded),))


def _guard(handler: Handler) -> Handler:
    parse, serialize = _parse_with(handler.request_deserializer), handler.response_serializer
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(_guard_stream(handler.unary_stream), parse, serialize)
    return grpc.unary_unary_rpc_method_handler(_guard_unary(handler.unary_unary), parse, serialize)


def _guard_unary(method: Any) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            _check_parsed(request)
            return await method(request, context)
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded


def _guard_stream(method: Any) -> Any:
    async def guarded(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            _check_parsed(request)
            async with contextlib.aclosing(method(request, context)) as items:
                async for item in items:
                    yield item
        except (grpc.aio.AbortError, asyncio.CancelledError):
            raise
        except Exception as error:
            await _abort(context, error)

    return guarded
