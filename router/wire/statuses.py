"""Turn errors into rich gRPC statuses (google.rpc.Status). Nothing about the service's insides is sent to callers."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from router.attempts import Attempt
from router.errors import DispatchError, NotReadyError, RouterError
from router.pb import routing_pb2
from router.plain_json import whole_text
from router.wire import deliveries

log = logging.getLogger(__name__)

#: The `domain` of ErrorInfo, which says who defines the error's reason.
DOMAIN = "elle.router"

#: The trailer that carries the serialised google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"

#: Most bytes of a status's message on the wire. Clients take 8 KB of trailers in all, and the details may repeat it.
MAX_STATUS_BYTES = 1500

#: Most bytes of the attempts among the details of a status.
MAX_ATTEMPTS_BYTES = 2000


def still_loading() -> NotReadyError:
    """Return the error of a call that comes before the service can decide."""
    return NotReadyError("the service is still loading its encoder; try again in a few seconds.")


def logged_defect(error: Exception) -> tuple[str, str]:
    """Log an error that is not ours, and return the request id of its log entry and what the caller is told."""
    request_id = uuid.uuid4().hex
    log.error("request %s failed", request_id, exc_info=error)
    return request_id, f"internal error; the service's log has it as request {request_id}."


def status_of(error: Exception) -> status_pb2.Status:
    """Return the google.rpc.Status of an error.

    A RouterError gets ErrorInfo and, if they apply, BadRequest, RetryInfo and Delivery among its details. The metadata
    of ErrorInfo hold the provider's own code and parameter, if it named them. Any other error is logged and becomes
    INTERNAL with the request id of its log entry. A long message is cut, and says so.
    """
    if not isinstance(error, RouterError):
        request_id, message = logged_defect(error)
        return _status("INTERNAL", message, [error_details_pb2.RequestInfo(request_id=request_id)])
    told = (
        {"provider_code": error.provider_code, "provider_param": error.provider_param}
        if isinstance(error, DispatchError)
        else {}
    )
    metadata = {"retryable": str(error.retryable).lower(), **{name: value for name, value in told.items() if value}}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    details: list[Any] = [info]
    message = _cut(str(error))
    if error.field is not None:
        violation = error_details_pb2.BadRequest.FieldViolation(field=_cut(error.field, 200), description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, DispatchError) and error.attempts:
        details.append(_last_attempts(error.attempts))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(retry)
    return _status(error.status, message, details)


def _cut(message: str, limit: int = MAX_STATUS_BYTES) -> str:
    """Return the message as valid Unicode, cut if a trailer would need more than `limit` bytes for it."""
    message = whole_text(message)
    # grpc percent-encodes every byte that is not printable ASCII, which makes it three bytes.
    if 3 * len(message.encode()) <= limit:
        return message
    end = taken = 0
    for end, letter in enumerate(message):
        taken += 1 if " " <= letter <= "~" and letter != "%" else 3 * len(letter.encode())
        if taken > limit:
            return f"{message[:end]}... (cut; {len(message):,} characters in all)"
    return message


def _last_attempts(attempts: Sequence[Attempt]) -> routing_pb2.Delivery:
    """Return the last attempts, as many as a trailer has room for."""
    kept = deliveries.failed_delivery_to_wire(attempts)
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
