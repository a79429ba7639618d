"""Write the messages of a request as OpenTelemetry's conventions for generative AI want them in a span (`as_parts`)."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_Part = dict[str, Any]

#: How the APIs call a part of a message that is text.
_TEXTS = ("text", "input_text", "output_text")

#: Most characters of a role, of a kind, and of the id and the name of a call.
_MOST_NAME = 200


def as_parts(messages: Sequence[Mapping[str, Any]], most: int) -> str:
    """Return messages as JSON of at most `most` characters: a list of objects with a role and its parts.

    Texts, calls of tools and their results are told. Of anything else, such as a picture, only the kind is. A long text
    is cut, and if not all messages fit, the oldest are left out.
    """
    kept: deque[str] = deque()
    left = most - len("[]")
    for message in reversed(messages):
        text, is_whole = _told(message, left, most // 2)
        if not is_whole and kept:
            break
        kept.appendleft(text)
        left -= len(text) + len(",")
        if not is_whole:
            break
    return f"[{','.join(kept)}]"


def _told(message: Mapping[str, Any], left: int, most: int) -> tuple[str, bool]:
    """Return a message with as many of its parts as fit, and whether all do. most: characters of one text."""
    role = _json(_role_of(message))
    parts: list[str] = []
    size = len('{"role":,"parts":[]}') + len(role)
    is_whole = True
    for part in map(_json, _parts(message, most)):
        size += len(part) + len(",")
        if size > left:
            is_whole = False
            break
        parts.append(part)
    return f'{{"role":{role},"parts":[{",".join(parts)}]}}', is_whole


def _role_of(message: Mapping[str, Any]) -> str:
    if "role" in message:
        return _cut(message["role"], _MOST_NAME)
    # Items of the Responses API that are no messages have a type in place of a role.
    return "tool" if str(message.get("type")).endswith("_output") else "assistant"


def _parts(message: Mapping[str, Any], most: int) -> Iterator[_Part]:
    if "role" not in message:
        yield _part(message, most)
        return
    content = message.get("content")
    if message["role"] == "tool":
        yield _response(message.get("tool_call_id"), content, most)
        return
    for one in content if isinstance(content, list) else [] if content is None else [content]:
        yield _part(one, most) if isinstance(one, Mapping) else {"type": "text", "content": _cut(one, most)}
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield _call(call.get("id"), function.get("name"), function.get("arguments"), most)


def _part(part: Mapping[str, Any], most: int) -> _Part:
    match part.get("type"):
        case kind if kind in _TEXTS:
            return {"type": "text", "content": _cut(part.get("text"), most)}
        case "tool_use":
            return _call(part.get("id"), part.get("name"), part.get("input"), most)
        case "function_call":
            return _call(part.get("call_id"), part.get("name"), part.get("arguments"), most)
        case "tool_result":
            return _response(part.get("tool_use_id"), part.get("content"), most)
        case "function_call_output":
            return _response(part.get("call_id"), part.get("output"), most)
        case kind:
            return {"type": _cut(kind, _MOST_NAME)}


def _call(call_id: Any, name: Any, arguments: Any, most: int) -> _Part:
    return {
        "type": "tool_call",
        "id": _cut(call_id, _MOST_NAME),
        "name": _cut(name, _MOST_NAME),
        "arguments": _cut(arguments, most),
    }


def _response(call_id: Any, response: Any, most: int) -> _Part:
    return {"type": "tool_call_response", "id": _cut(call_id, _MOST_NAME), "response": _cut(response, most)}


def _cut(value: Any, most: int) -> str:
    """Return a value as text whose JSON has at most `most` characters."""
    text = value if isinstance(value, str) else _json(value)
    text = text[:most]
    while len(_json(text)) > most:
        text = text[: len(text) // 2]
    return text


def _json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
