"""Write answers and errors in the format of OpenAI's API: error objects and events with `[DONE]`. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import RouterError, UnauthenticatedError, UnknownModelError
from router.gateways.http.http_api import HttpApi, code_of, param_of
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
        body = self.plain_error_body(str(error), status, code)
        body["error"] |= {"param": param_of(error), "retryable": error.retryable}
        return body

    def plain_error_body(self, message: str, status: int, code: str) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return {"error": {"message": message, "type": _kind(status), "param": None, "code": code}}


class CompletionsFormat(OpenAIFormat):
    """Writes what OpenAI's old completions of a prompt send, which looks like chat completions."""

    api_format = ApiFormat.OPENAI_COMPLETIONS


class EmbeddingsFormat(OpenAIFormat):
    """Writes what OpenAI's embeddings send."""

    api_format = ApiFormat.OPENAI_EMBEDDINGS


OPENAI_FORMAT, COMPLETIONS_FORMAT, EMBEDDINGS_FORMAT = OpenAIFormat(), CompletionsFormat(), EmbeddingsFormat()


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
