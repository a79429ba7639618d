"""Read answers of OpenAI's old completions of a prompt, whole and in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import Tally
from router.answering.formats.openai_chat import counts_of_chat


class OpenAICompletions:
    """Reads completions of a prompt, whose choices hold `text`. See `AnswerFormat`, which this class follows."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong if choices are missing or have the wrong type, else None."""
        choices = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            return "JSON that is no completion"
        return None if choices or streamed else "an answer without choices"

    def is_error(self, chunk: Any) -> bool:
        """Return whether a chunk holds an `error`."""
        return isinstance(chunk, dict) and bool(chunk.get("error"))

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of the first choice."""
        first: Mapping[str, Any] = next((one for one in body["choices"] if one.get("index", 0) == 0), {})
        text = first.get("text")
        return text if isinstance(text, str) else ""

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has text, or says why it ended."""
        return self.is_finished(chunk) or any(choice.get("text") for choice in chunk["choices"])

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has a `finish_reason`."""
        return any(choice.get("finish_reason") for choice in chunk["choices"])

    def tally(self) -> Tally:
        """Return a counter that reads `usage`, which chat completions have too."""
        return counts_of_chat
