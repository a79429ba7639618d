"""Write answers and errors in the format of OpenAI's API: error objects and events with `[DONE]`. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import RouterError, UnauthenticatedError, UnknownModelError
from router.gateways.http.http_api import HttpApi, code_of, error_headers, http_status_of, param_of
from router.values import ApiFormat


class OpenAIFormat(HttpApi):
    """Writes what OpenAI's API sends. See `HttpApi`, which this class follows, for what the methods return."""

    api_format = ApiFormat.OPENAI_CHAT
    last_event = b"data: [DONE]\n\n"

    def event(self, body: Mapping[str, Any], raw: bytes) -> bytes:
        """Return an event that consists of data only."""
        return b"data: %b\n\n" % raw

    def carries_record(self, chunk: Mapping[str, Any], *, has_cost: bool) -> bool:
        """Return True, because every chunk carries the record."""
        return True

    def error_body(self, error: RouterError, status: int) -> dict[str, Any]:
        """Return OpenAI's error object, with `retryable` in it."""
        # Clients that were written for OpenAI know these codes.
        known = {UnknownModelError: "model_not_found", UnauthenticatedError: "invalid_api_key"}
        code = known.get(type(error)) or code_of(error)
        body = error_object(str(error), kind=_kind(status), code=code, param=param_of(error))
        body["error"]["retryable"] = error.retryable
        return body

    def internal_error_body(self, message: str) -> dict[str, Any]:
        """Return OpenAI's error object for a bug of ours."""
        return error_object(message, kind="server_error", code="internal")


class CompletionsFormat(OpenAIFormat):
    """Writes what OpenAI's old completions of a prompt send, which looks like chat completions."""

    api_format = ApiFormat.OPENAI_COMPLETIONS


class EmbeddingsFormat(OpenAIFormat):
    """Writes what OpenAI's embeddings send."""

    api_format = ApiFormat.OPENAI_EMBEDDINGS


OPENAI_FORMAT, COMPLETIONS_FORMAT, EMBEDDINGS_FORMAT = OpenAIFormat(), CompletionsFormat(), EmbeddingsFormat()


def error_reply(error: RouterError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return the HTTP status, the headers and the OpenAI error object that describe a RouterError."""
    status = http_status_of(error)
    return status, error_headers(error), OPENAI_FORMAT.error_body(error, status)


def error_object(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an OpenAI error object; `kind` becomes its field `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
