"""Read answers of Anthropic's Messages API, whole and in the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.answering.formats.answer_format import AnswerTokens, Mender, UsageReader, Watcher, as_count

#: Blocks that bring nothing when they start: their deltas do.
_EMPTY_AT_START = frozenset({"text", "thinking"})

#: Fields of `usage` that add up to the tokens of the input. The second one holds those from the prompt cache.
_INPUT_FIELDS = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class AnthropicMessages:
    """Reads messages of Anthropic's API. See `AnswerFormat`, which this class follows, for what the methods return."""

    def fault_in(self, body: Any, *, streamed: bool) -> str | None:
        """Return what is wrong if an event has no type, or if a message has no list of content blocks, else None."""
        return None if _is_well_formed(body, streamed=streamed) else "JSON that is no message of Anthropic's API"

    def mender(self) -> Mender:
        """Return a function that returns events as they are."""
        return lambda event: event

    def text_of(self, body: Mapping[str, Any], *, streamed: bool) -> str:
        """Return the text of all text blocks, or of a text delta."""
        blocks = [body.get("delta") or {}] if streamed else body["content"]
        wanted = "text_delta" if streamed else "text"
        texts = (block.get("text") for block in blocks if block.get("type") == wanted)
        return "".join(text for text in texts if isinstance(text, str))

    def has_content(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether an event brings a delta of a block, a tool call, or the end of the message."""
        if chunk["type"] == "content_block_start":
            kind = (chunk.get("content_block") or {}).get("type")
            return not isinstance(kind, str) or kind not in _EMPTY_AT_START
        return chunk["type"] == "content_block_delta" or self.is_finished(chunk)

    def is_finished(self, chunk: Mapping[str, Any]) -> bool:
        """Return whether an event says why the message stopped, which `message_stop` by itself does not."""
        return bool((chunk.get("delta") or {}).get("stop_reason"))

    def watcher(self) -> Watcher:
        """Return a watcher that waits for the reason of the stop, or for `message_stop` behind some content."""
        has_begun = is_whole = False

        def watch(chunk: Mapping[str, Any]) -> bool:
            nonlocal has_begun, is_whole
            has_begun = has_begun or self.has_content(chunk)
            is_whole = is_whole or self.is_finished(chunk) or (has_begun and chunk["type"] == "message_stop")
            return is_whole

        return watch

    def tally(self) -> UsageReader:
        """Return a counter that adds the input of `message_start` to the output of `message_delta`."""
        seen: dict[str, int | None] = {}

        def count(body: Mapping[str, Any]) -> AnswerTokens | None:
            message = body.get("message") if body["type"] == "message_start" else body
            usage = message.get("usage") if isinstance(message, Mapping) else None
            if not isinstance(usage, Mapping):
                return None
            # Anthropic leaves cached tokens out as null.
            said = [name for name in (*_INPUT_FIELDS, "output_tokens") if usage.get(name) is not None]
            seen.update({name: as_count(usage[name]) for name in said})
            counts = [seen.get(name, 0) for name in _INPUT_FIELDS]
            written = seen.get("output_tokens")
            known = [count for count in counts if count is not None]
            if body["type"] == "message_start" or written is None or "input_tokens" not in seen:
                return None
            return AnswerTokens(sum(known), written, counts[1] or 0) if len(known) == len(counts) else None

        return count


def _is_well_formed(body: Any, *, streamed: bool) -> bool:
    if not isinstance(body, dict) or not isinstance(body.get("type"), str):
        return False
    parts = ("message", "delta", "content_block", "usage") if streamed else ("usage",)
    content = [] if streamed else body.get("content")
    are_objects = isinstance(content, list) and all(isinstance(block, dict) for block in content)
    return are_objects and all(isinstance(body.get(part), dict | None) for part in parts)
