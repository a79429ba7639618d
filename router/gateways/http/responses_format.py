"""Write answers and errors in the format of OpenAI's Responses API: error objects and named events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.gateways.http.anthropic_format import named_event
from router.gateways.http.decision_format import RECORD_FIELD
from router.gateways.http.openai_format import OpenAIFormat
from router.values import ApiFormat

#: The event that begins a response, and the field of events that holds the whole response.
_CREATED, _RESPONSE = "response.created", "response"


class ResponsesFormat(OpenAIFormat):
    """Writes what OpenAI's Responses API sends. See `HttpApi`, which this class follows, for what the methods return.

    Error objects are those of OpenAI's other APIs.
    """

    api_format = ApiFormat.OPENAI_RESPONSES
    last_event = b""

    def event(self, body: Mapping[str, Any], raw: bytes) -> bytes:
        """Return an event whose name is the type of the body, as in `event: response.created`."""
        return named_event(body, raw)

    def carries_record(self, chunk: Mapping[str, Any], *, has_cost: bool) -> bool:
        """Return True for the first event, and for the one with the usage, if they hold a response."""
        return isinstance(chunk.get(_RESPONSE), dict) and (chunk["type"] == _CREATED or has_cost)

    def with_record(self, chunk: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the event with the record in its response, where an answer in one piece has it too."""
        return {**chunk, _RESPONSE: {**chunk[_RESPONSE], RECORD_FIELD: record}}

    def error_event(self, body: dict[str, Any], number: int) -> dict[str, Any]:
        """Return an event of the type `error`. It holds the error object too, for which OpenAI's SDKs look."""
        error = body["error"]
        told = {name: error[name] for name in ("code", "message", "param")}
        return {"type": "error", **told, "sequence_number": number, **body}


RESPONSES_FORMAT = ResponsesFormat()
