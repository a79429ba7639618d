"""Read answers of OpenAI's chat completions, whole and in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import AnswerTokens, Mender, UsageReader, Watcher, tokens_of_usage
from router.answering.formats.chat_chunks import chat_mender, has_ended


class OpenAIChat:
    """Reads the answers of OpenAI's chat completions. See `AnswerFormat`, which this class follows."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong if choices or their messages are missing or have the wrong type, else None.

        A chunk may lack choices, or have null for them: it brings the usage then, or nothing.
        """
        part = _part(streamed)
        choices = choices_in(body, streamed=streamed)
        if choices is None or not all(isinstance(choice.get(part), dict | None) for choice in choices):
            return "JSON that is no chat completion"
        if streamed and any(choice.get("message") for choice in choices):
            return "a whole answer where a stream was asked for"
        return None if choices or streamed else "an answer without choices"

    def mender(self) -> Mender:
        """Return a function that gives chunks a list of choices, and an index to every call of a tool."""
        return chat_mender()

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of the first choice. One whose index is no number is the first."""
        first = next((one for one in _choices(body) if not isinstance(one.get("index"), int) or not one["index"]), {})
        text = (first.get(_part(streamed)) or {}).get("content")
        return text if isinstance(text, str) else ""

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a delta holds more than the role of the speaker, or a choice says why it ended."""
        return self.is_finished(chunk) or any(
            value for choice in _choices(chunk) for key, value in (choice.get("delta") or {}).items() if key != "role"
        )

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether a choice has a `finish_reason`."""
        return any(map(has_ended, _choices(chunk)))

    def watcher(self) -> Watcher:
        """Return a watcher that waits until each choice that has begun has its `finish_reason`."""
        return watcher_of_choices()

    def tally(self) -> UsageReader:
        """Return a counter that reads the `usage` of an answer, which in a stream is in its last chunk."""
        return counts_of_chat


def choices_in(body: Any, *, streamed: bool) -> list[dict[str, Any]] | None:
    """Return the choices of an answer or a chunk, or None if it has none as it should. A chunk need not have any."""
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if choices is None and streamed:
        return []
    is_list = isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)
    return choices if is_list else None


def watcher_of_choices() -> Watcher:
    """Return a watcher of chunks with `choices`, of which each ends with a `finish_reason`."""
    begun: dict[int, bool] = {}

    def watch(chunk: Mapping[str, Any]) -> bool:
        for choice in chunk.get("choices") or ():
            index = choice.get("index")
            number = index if isinstance(index, int) else 0
            begun[number] = begun.get(number, False) or has_ended(choice)
        return bool(begun) and all(begun.values())

    return watch


def counts_of_chat(body: Mapping[str, Any]) -> AnswerTokens | None:
    """Return the tokens in the `usage` of an answer, or None if it has none."""
    return tokens_of_usage(body.get("usage"), "prompt_tokens", "completion_tokens")


def _part(streamed: bool) -> str:
    return "delta" if streamed else "message"


def _choices(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return body.get("choices") or []
