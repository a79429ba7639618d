"""What a client is told when the service answers with a status: google.rpc.Status -> ServiceError."""

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
from router.wire import conversion as wire
from router.wire.statuses import DETAILS_KEY

_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


@contextlib.contextmanager
def errors_of_service() -> Iterator[None]:
    """grpc's errors -> ServiceError, with what the service's rich status says."""
    try:
        yield
    except grpc.RpcError as error:
        _raise(error)


def _raise(error: Any) -> NoReturn:
    status = status_pb2.Status(message=error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY:
            # What is between us and the service may write what it likes there.
            with contextlib.suppress(DecodeError):
                status = status_pb2.Status.FromString(value)
    raise service_error(status, error.code().name) from error


def service_error(status: status_pb2.Status, code: str | None = None) -> ServiceError:
    """The error of a status; `code` names that of the call, which is believed before the number in its details."""
    code = code or _CODES.get(status.code, "UNKNOWN")
    info, delivery, retry = error_details_pb2.ErrorInfo(), routing_pb2.Delivery(), error_details_pb2.RetryInfo()
    for detail in status.details:
        for wanted in (info, delivery, retry):
            if detail.Is(wanted.DESCRIPTOR):
                with contextlib.suppress(DecodeError):
                    detail.Unpack(wanted)
    return ServiceError(
        f"{code}: {status.message}",
        code=code,
        service_reason=info.reason,
        service_retryable=info.metadata.get("retryable") == "true",
        retry_after_s=_seconds(retry.retry_delay) if retry.HasField("retry_delay") else None,
        attempts=wire.delivery_from_wire(delivery).attempts,
    )


def _seconds(duration: Duration) -> float:
    return max(0.0, duration.seconds + duration.nanos / 1e9)
