"""Write answers of upstreams with the fields on which LiteLLM stumbles if they are missing or misshapen.

The answers are chat completions of OpenAI's API, and those of Anthropic's and Gemini's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

_ROLES = frozenset({"assistant", "user", "system", "tool", "function", "developer"})

#: The tokens of an answer that says nothing about them.
_NO_USAGE: Mapping[str, int] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

#: The same of Anthropic's API.
_NO_TOKENS: Mapping[str, int] = {"input_tokens": 0, "output_tokens": 0}

#: More digits than any time or index has.
_MOST_DIGITS = 15


def readable_answer(body: Any, *, streamed: bool) -> Any:
    """Return an answer, or an event of one, in a form that LiteLLM reads; the very same object if it needs nothing.

    What is missing is filled in, and what has another type than the API says is written as that type. Tokens that
    nobody counted are 0 in a whole answer, so whoever calls this must know that they were not counted.
    """
    if not isinstance(body, dict):
        return body
    made = body
    if are_objects(body.get("choices")):
        made = _readable_chat(body, streamed=streamed)
    elif are_objects(body.get("candidates")):
        made = _readable_of_gemini(body, streamed=streamed)
    elif body.get("type") == "message" and not streamed:
        made = _readable_message(body)
    elif streamed and isinstance(body.get("type"), str):
        made = _with_counts(body, "usage", None)
        if isinstance(message := made.get("message"), dict):
            made = {**made, "message": _with_counts(message, "usage", _NO_TOKENS)}
    return body if made == body else made


def are_objects(value: Any) -> bool:
    """Return whether a value is a list of objects."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _readable_of_gemini(body: dict[str, Any], *, streamed: bool) -> dict[str, Any]:
    candidates = [{**one, **_typed(one, "index", int, at)} for at, one in enumerate(body["candidates"])]
    return _with_counts({**body, "candidates": candidates}, "usageMetadata", None if streamed else {})


def _readable_message(body: dict[str, Any]) -> dict[str, Any]:
    parts = body.get("content") if are_objects(body.get("content")) else ()
    calls_tools = any(part.get("type") == "tool_use" for part in parts or ())
    usual = {"model": "", "stop_reason": "tool_use" if calls_tools else "end_turn"}
    missing = {name: value for name, value in usual.items() if not isinstance(body.get(name), str)}
    return _with_counts({**body, **missing}, "usage", _NO_TOKENS)


def _with_counts(body: dict[str, Any], name: str, missing: Mapping[str, int] | None) -> dict[str, Any]:
    """Return a body whose counts of tokens hold no null. Without counts it gets those of `missing`, or none at all."""
    counts = body.get(name)
    if isinstance(counts, dict):
        kept = {key: value for key, value in counts.items() if value is not None}
        return {**body, name: {**(missing or {}), **kept}}
    rest = {key: value for key, value in body.items() if key != name}
    return rest if missing is None else {**rest, name: dict(missing)}


def _readable_chat(body: dict[str, Any], *, streamed: bool) -> dict[str, Any]:
    made = {
        **body,
        **_typed(body, "id", str, "chatcmpl"),
        **_typed(body, "model", str, ""),
        **_typed(body, "created", int, int(time.time())),
        "choices": [_readable_choice(one, at, streamed=streamed) for at, one in enumerate(body["choices"])],
    }
    if not isinstance(body.get("usage"), dict) and (not streamed or "usage" in body):
        made["usage"] = None if streamed else dict(_NO_USAGE)
    if not streamed:
        # LiteLLM reads it of every answer of Groq.
        made.setdefault("service_tier", None)
    return made


def _readable_choice(choice: dict[str, Any], at: int, *, streamed: bool) -> dict[str, Any]:
    made, part = {**choice, **_typed(choice, "index", int, at)}, "delta" if streamed else "message"
    said, reason = choice.get(part), choice.get("finish_reason")
    if isinstance(said, dict) and "role" in said and said["role"] not in _ROLES:
        rest = {key: value for key, value in said.items() if key != "role"}
        made[part] = rest if streamed else {**rest, "role": "assistant"}
    if not streamed and not isinstance(reason, str):
        made["finish_reason"] = "tool_calls" if isinstance(said, dict) and said.get("tool_calls") else "stop"
    return made


def _typed(holder: Mapping[str, Any], name: str, kind: type, missing: Any) -> dict[str, Any]:
    """Return a field as text or as a whole number, whichever it should be; empty if it is that, `missing` if neither.

    kind: `str` or `int`.
    """
    value = holder.get(name)
    if isinstance(value, kind) and not isinstance(value, bool):
        return {}
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS
    return {name: kind(value) if is_number or is_digits else missing}


class OpenChoices:
    """Notes which choices of a stream have begun, and makes the chunk that ends them if the stream does not say so."""

    def __init__(self) -> None:
        self._calls_tools: dict[int, bool] = {}

    def note(self, chunk: Any) -> None:
        """Note the choices of a chunk that `readable_answer` returned."""
        choices = chunk.get("choices") if isinstance(chunk, dict) else None
        for choice in choices if isinstance(choices, list) else ():
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if isinstance(delta, dict):
                index = choice["index"]
                self._calls_tools[index] = self._calls_tools.get(index, False) or bool(delta.get("tool_calls"))

    @property
    def end(self) -> dict[str, Any] | None:
        """The chunk that says of each choice that it is over; None if none has begun."""
        if not self._calls_tools:
            return None
        ends: list[dict[str, Any]] = [
            {"index": index, "delta": {}, "finish_reason": "tool_calls" if calls_tools else "stop"}
            for index, calls_tools in self._calls_tools.items()
        ]
        chunk = {"object": "chat.completion.chunk", "choices": ends}
        return _readable_chat(chunk, streamed=True)
