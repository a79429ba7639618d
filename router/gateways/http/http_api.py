"""Say how an API writes its answers, events and errors over HTTP (`HttpApi`), and which status errors have."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from router.errors import (
    DispatchError,
    ForbiddenError,
    RequestTooLargeError,
    RouterError,
    UpstreamMisconfiguredError,
    UpstreamNotFoundError,
)
from router.gateways.http.decision_format import ERROR_HEADER, RECORD_FIELD
from router.values import ApiFormat

#: The HTTP status for each gRPC status of our errors; see router/errors.py.
HTTP_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    # The provider refused the router's key, not the caller's, so the caller must not see a 401 or 403.
    "PERMISSION_DENIED": 502,
    "ABORTED": 502,
    "UNAUTHENTICATED": 401,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class HttpApi(abc.ABC):
    """Writes what one API sends over HTTP.

    Attributes:
        api_format: the format of its requests and answers.
        passed_headers: the request headers that an upstream of the same API gets, in lower case.
        last_event: the bytes with which a complete stream ends.
    """

    api_format: ClassVar[ApiFormat]
    passed_headers: ClassVar[tuple[str, ...]] = ()
    last_event: ClassVar[bytes] = b""

    @abc.abstractmethod
    def event(self, body: Mapping[str, Any], raw: bytes) -> bytes:
        """Return the server-sent event for a chunk. `raw` is the JSON of `body`."""

    @abc.abstractmethod
    def carries_record(self, chunk: Mapping[str, Any], *, has_cost: bool) -> bool:
        """Return whether a chunk of a stream carries the decision record. `has_cost`: whether the cost is known."""

    def with_record(self, chunk: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a chunk of a stream with the decision record as one more field, unless an API has it elsewhere."""
        return {**chunk, RECORD_FIELD: record}

    def error_event(self, body: dict[str, Any], number: int) -> dict[str, Any]:
        """Return the chunk that reports an error in a stream, which is the body of the error in most APIs.

        number: how many events were sent before.
        """
        return body

    def error_reply(self, error: RouterError) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Return the HTTP status, the headers and the body that report an error of ours."""
        status = http_status_of(error)
        return status, error_headers(error), self.error_body(error, status)

    @abc.abstractmethod
    def error_body(self, error: RouterError, status: int) -> dict[str, Any]:
        """Return the body that reports an error of ours with this HTTP status."""

    @abc.abstractmethod
    def plain_error_body(self, message: str, status: int, code: str) -> dict[str, Any]:
        """Return the body that reports an error which is no RouterError, such as a path that is not served."""


def code_of(error: RouterError) -> str:
    """Return the name of an error for machines: that of the provider, such as `content_filter`, or else ours."""
    return (error.provider_code if isinstance(error, DispatchError) else None) or error.reason.lower()


def param_of(error: RouterError) -> str | None:
    """Return the field of the request that is at fault, as the provider or the router names it, or None."""
    return (error.provider_param if isinstance(error, DispatchError) else None) or error.field


def http_status_of(error: RouterError) -> int:
    """Return the HTTP status of an error, from 400 to 504."""
    if isinstance(error, UpstreamNotFoundError | UpstreamMisconfiguredError):
        # The router names models, URLs and parameters of candidates. 404 or 400 would say that the caller must change
        # something.
        return 502
    if isinstance(error, ForbiddenError):
        return 403
    return 413 if isinstance(error, RequestTooLargeError) else HTTP_STATUS[error.status]


def error_headers(error: RouterError) -> dict[str, str]:
    """Return the headers of an error: its reason, and whether and when to try again."""
    headers = {ERROR_HEADER: error.reason}
    if error.status == "UNAUTHENTICATED":
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after_s * 1000))
    elif isinstance(error, DispatchError):
        # The dispatcher has retried whatever is worth a retry, so the SDKs of OpenAI and Anthropic, which retry by
        # themselves, are asked not to. If a provider asked for a longer wait than ours, `retry_after_s` is set: then
        # clients may wait.
        headers["x-should-retry"] = "false"
    return headers
