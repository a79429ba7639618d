"""Write answers and errors in the format of Anthropic's Messages API: error objects and named events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.upstreams.destinations import ANTHROPIC_HEADERS
from router.errors import RouterError
from router.gateways.http.http_api import HttpApi, code_of, param_of
from router.values import ApiFormat

#: Anthropic's type of an error for each HTTP status. Other statuses have the general types.
_KINDS: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class AnthropicFormat(HttpApi):
    """Writes what Anthropic's API sends. See `HttpApi`, which this class follows, for what the methods return."""

    api_format = ApiFormat.ANTHROPIC_MESSAGES
    passed_headers = ANTHROPIC_HEADERS
    last_event = b""

    def event(self, body: Mapping[str, Any], raw: bytes) -> bytes:
        """Return an event whose name is the type of the body, as in `event: message_start`."""
        return named_event(body, raw)

    def carries_record(self, chunk: Mapping[str, Any], *, has_cost: bool) -> bool:
        """Return True for the first event, and for the one with the usage: strict clients check the others closely."""
        return chunk["type"] == "message_start" or has_cost

    def error_body(self, error: RouterError, status: int) -> dict[str, Any]:
        """Return Anthropic's error object. The object inside has `code`, `param` and `retryable` besides."""
        body = self.plain_error_body(str(error), status, code_of(error))
        body["error"] |= {"param": param_of(error), "retryable": error.retryable}
        return body

    def plain_error_body(self, message: str, status: int, code: str) -> dict[str, Any]:
        """Return Anthropic's error object, with `code` in it besides."""
        return {"type": "error", "error": {"type": _kind(status), "message": message, "code": code}}


ANTHROPIC_FORMAT = AnthropicFormat()


def named_event(body: Mapping[str, Any], raw: bytes) -> bytes:
    """Return a server-sent event that is named by the type of its body, whose JSON is `raw`."""
    # A type comes from the upstream; a line feed in it would begin another event.
    name = str(body.get("type", "error")).encode("ascii", "replace").translate(None, b"\r\n")
    return b"event: %b\ndata: %b\n\n" % (name, raw)


def _kind(status: int) -> str:
    return _KINDS.get(status) or ("invalid_request_error" if status < 500 else "api_error")
