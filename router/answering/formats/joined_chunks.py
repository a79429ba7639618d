"""Join the chunks of a streamed chat completion that bring nothing but text (`joined_texts`). Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def joined_texts(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the chunks of a chat completion with the texts of chunks that bring nothing else in one chunk each."""
    joined: list[dict[str, Any]] = []
    texts: list[str] = []
    for chunk in chunks:
        text = _only_text(chunk)
        if text is None or not texts:
            _put_text(joined, texts)
            joined.append(chunk)
            texts = [] if text is None else [text]
        else:
            texts.append(text)
    _put_text(joined, texts)
    return joined


def _put_text(joined: list[dict[str, Any]], texts: list[str]) -> None:
    """Give the last chunk the text of the chunks that were left out behind it."""
    if len(texts) > 1:
        last = joined[-1]
        choice = last["choices"][0]
        joined[-1] = {**last, "choices": [{**choice, "delta": {**choice["delta"], "content": "".join(texts)}}]}


def _only_text(chunk: Mapping[str, Any]) -> str | None:
    """Return the text of a chunk that has one choice with a text and nothing else, or None for any other chunk."""
    choices = chunk.get("choices") or []
    if len(choices) != 1 or choices[0].get("finish_reason") or choices[0].get("logprobs") or chunk.get("usage"):
        return None
    delta = choices[0].get("delta") or {}
    text = delta.get("content")
    others = any(value for key, value in delta.items() if key not in {"content", "role"})
    return text if isinstance(text, str) and not others else None
