"""Turn the statuses that the service answers with into ServiceError, for the client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from router.errors import ServiceError
from router.pb import routing_pb2
from router.wire import deliveries
from router.wire.statuses import DETAILS_KEY

#: Names of the gRPC status codes by number.
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@contextlib.contextmanager
def errors_of_service(address: str) -> Iterator[None]:
    """Raise ServiceError in place of every grpc.RpcError, with the details of the service's status.

    address: where the service was asked. The error names it if nobody answered there.
    """
    try:
        yield
    except grpc.RpcError as error:
        _raise(error, address)


def _raise(error: Any, address: str) -> NoReturn:
    # Without details of the service's own it is gRPC that ended the call, or a proxy.
    status = status_pb2.Status(message=_without_service(error.code(), error.details() or "", address))
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            # A proxy between us and the service may write anything into this trailer.
            with contextlib.suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
    raise service_error(status, error.code().name) from error


def _without_service(code: grpc.StatusCode, said: str, address: str) -> str:
    """Return what a person should read of a call to which no service of ours gave a status."""
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return (
                f"no service answers at {address} ({said.rstrip('.')}). Start one by `elle serve`, or give the address "
                "of one that runs."
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer came from {address} in the time that the call was given."
        case _:
            return said


def service_error(status: status_pb2.Status, code: str | None = None) -> ServiceError:
    """Return the ServiceError that describes a google.rpc.Status.

    code: name of the status code that the call ended with. It takes precedence over the number inside the status,
        because a proxy may change one without the other. None if the status is not that of a whole call.
    """
    code = code or _CODES.get(status.code, "UNKNOWN")
    info, delivery, retry = error_details_pb2.ErrorInfo(), routing_pb2.Delivery(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for wanted in (info, delivery, retry):
            if detail.Is(wanted.DESCRIPTOR):
                with contextlib.suppress(DecodeError):
                    detail.Unpack(wanted)
    error = ServiceError(
        f"{code}: {status.message}",
        code=code,
        service_reason=info.reason,
        service_retryable=info.metadata.get("retryable") == "true",
        retry_after_s=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
        attempts=deliveries.delivery_from_wire(delivery).attempts,
    )
    error.provider_code = info.metadata.get("provider_code") or None
    error.provider_param = info.metadata.get("provider_param") or None
    return error


def _seconds(duration: Duration) -> float:
    return max(0.0, duration.seconds + duration.nanos / 1e9)
