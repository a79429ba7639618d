"""Read answers of OpenAI's Responses API, whole and in the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import AnswerTokens, Mender, UsageReader, Watcher, tokens_of_usage

_FAULT = "JSON that is no response of OpenAI's Responses API"

#: Events with which an answer ends, each with the whole response. `response.failed` is an error.
_ENDS = frozenset({"response.completed", "response.incomplete"})

#: The same of a response that is kept, which tells how it ended although nobody waits for its answer any more.
ENDS_OF_KEPT = _ENDS | {"response.failed", "response.cancelled"}

_TEXT_DELTA = "response.output_text.delta"


class OpenAIResponses:
    """Reads responses of OpenAI's Responses API. See `AnswerFormat`, which this class follows."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong if an event has no type, or if a response has no list of output items, else None."""
        if not isinstance(body, dict) or (streamed and not isinstance(body.get("type"), str)):
            return _FAULT
        response = body.get("response") if streamed else body
        if streamed and response is None:
            return None if body["type"] not in _ENDS else _FAULT
        if not isinstance(response, dict) or not isinstance(response.get("usage"), dict | None):
            return _FAULT
        output = response.get("output", [] if streamed else None)
        if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
            return _FAULT
        return None

    def mender(self) -> Mender:
        """Return a function that returns events as they are."""
        return lambda event: event

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of all messages among the output items, or of a text delta."""
        if streamed:
            text = body.get("delta") if body["type"] == _TEXT_DELTA else None
            return text if isinstance(text, str) else ""
        contents = [item.get("content") for item in body["output"] if item.get("type") == "message"]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "output_text"]
        return "".join(text for text in texts if isinstance(text, str))

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether an event brings a delta of an item, a finished item, or the end of the response.

        So does the first event of a response in the background, which its provider goes on with whoever else is asked.
        """
        has_begun = response_in(chunk).get("background") is True
        return has_begun or chunk["type"].endswith((".delta", ".done")) or self.is_finished(chunk)

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether an event says that the response is complete, or why it is not."""
        return chunk["type"] in _ENDS

    def watcher(self) -> Watcher:
        """Return a watcher that waits for the event with the whole response."""
        is_whole = False

        def watch(chunk: Mapping[str, Any]) -> bool:
            nonlocal is_whole
            is_whole = is_whole or self.is_finished(chunk)
            return is_whole

        return watch

    def tally(self) -> UsageReader:
        """Return a counter that reads the `usage` of a response, which in a stream is in its last event."""
        return _counts


def response_in(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the response that an event holds, or the answer itself if it is whole."""
    response = body.get("response")
    return response if isinstance(response, Mapping) else body


def _counts(body: Mapping[str, Any]) -> AnswerTokens | None:
    return tokens_of_usage(response_in(body).get("usage"), "input_tokens", "output_tokens")
