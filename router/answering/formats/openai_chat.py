"""Read answers of OpenAI's chat completions, whole and in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import AnswerTokens, Tally, as_count


class OpenAIChat:
    """Reads the answers of OpenAI's chat completions. See `AnswerFormat`, which this class follows."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return "no chat completion" if choices or their messages are missing or have the wrong type, else None."""
        part = _part(streamed)
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not all(
            isinstance(choice, dict) and isinstance(choice.get(part), dict | None) for choice in choices
        ):
            return "JSON that is no chat completion"
        return None if choices or streamed else "an answer without choices"

    def is_error(self, chunk: Any) -> bool:
        """Return whether a chunk holds an `error`, as vLLM and OpenRouter send it in the middle of a stream."""
        return isinstance(chunk, dict) and bool(chunk.get("error"))

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of the first choice."""
        first = next((choice for choice in _choices(body) if choice.get("index", 0) == 0), {})
        text = (first.get(_part(streamed)) or {}).get("content")
        return text if isinstance(text, str) else ""

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a delta holds more than the role of the speaker, or a choice says why it ended."""
        return self.is_finished(chunk) or any(
            value for choice in _choices(chunk) for key, value in (choice.get("delta") or {}).items() if key != "role"
        )

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has a `finish_reason`."""
        return any(choice.get("finish_reason") for choice in _choices(chunk))

    def tally(self) -> Tally:
        """Return a counter that reads the `usage` of an answer, which in a stream is in its last chunk."""
        return counts_of_chat


def counts_of_chat(body: Mapping[str, Any]) -> AnswerTokens | None:
    """Return the tokens in the `usage` of an answer, or None if it has none."""
    usage = body.get("usage")
    if not isinstance(usage, Mapping) or not usage:
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    read, written = as_count(usage.get("prompt_tokens")), as_count(usage.get("completion_tokens"))
    return None if read is None or written is None else AnswerTokens(read, written, as_count(cached) or 0)


def _part(streamed: bool) -> str:
    return "delta" if streamed else "message"


def _choices(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return body.get("choices") or []
