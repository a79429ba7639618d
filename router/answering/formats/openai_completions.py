"""Read answers of OpenAI's old completions of a prompt, whole and in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import Mender, UsageReader, Watcher
from router.answering.formats.chat_chunks import has_ended
from router.answering.formats.openai_chat import choices_in, counts_of_chat, watcher_of_choices


class OpenAICompletions:
    """Reads completions of a prompt, whose choices hold `text`. See `AnswerFormat`, which this class follows."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong if choices are missing or have the wrong type, else None. A chunk may lack them."""
        choices = choices_in(body, streamed=streamed)
        if choices is None:
            return "JSON that is no completion"
        return None if choices or streamed else "an answer without choices"

    def mender(self) -> Mender:
        """Return a function that gives chunks a list of choices, because clients loop over it without checking it."""
        return lambda chunk: chunk if chunk.get("choices") is not None else {**chunk, "choices": []}

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of the first choice."""
        first: Mapping[str, Any] = next((one for one in body.get("choices") or () if one.get("index", 0) == 0), {})
        text = first.get("text")
        return text if isinstance(text, str) else ""

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has text, or says why it ended."""
        return self.is_finished(chunk) or any(choice.get("text") for choice in chunk.get("choices") or ())

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has a `finish_reason`."""
        return any(map(has_ended, chunk.get("choices") or ()))

    def watcher(self) -> Watcher:
        """Return a watcher that waits until each choice that has begun has its `finish_reason`."""
        return watcher_of_choices()

    def tally(self) -> UsageReader:
        """Return a counter that reads `usage`, which chat completions have too."""
        return counts_of_chat
