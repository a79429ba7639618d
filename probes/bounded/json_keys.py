"""Refuse JSON in which an object names a key twice, because readers disagree on which of the two values counts."""

from __future__ import annotations

import json
import re
from typing import Any

from probes.bounded.secrets import mask_secrets

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:]', re.DOTALL)


class RepeatedKeyError(ValueError):
    """Says that an object of a JSON text has the same key twice. The message names the key, and its place if known."""


class EachKeyOnce(json.JSONDecoder):
    """Decodes JSON as Python does, but raises RepeatedKeyError for an object that names a key twice."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**(settings | {"object_pairs_hook": _object}))


def loads(text: str, **settings: Any) -> Any:
    """Return the value of a JSON text in which no object names a key twice.

    settings: those of `json.loads`. Raises RepeatedKeyError, and everything that `json.loads` raises.
    """
    try:
        return json.loads(text, cls=EachKeyOnce, **settings)
    except RepeatedKeyError:
        key, position = _second(text)
        raise RepeatedKeyError(f"key {_short(key)!r} occurs twice in one object, {place_in(text, position)}") from None


def place_in(text: str, position: int) -> str:
    """Return the line and column of a position, as in "at line 3, column 14"; a text of one line has a column only."""
    position = min(position, len(text.rstrip()))
    line, before = text.count("\n", 0, position) + 1, text.rfind("\n", 0, position)
    column = f"column {position - before}"
    return f"at {column}" if "\n" not in text.rstrip() else f"at line {line}, {column}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError("a key occurs twice in one object")
    return found


def _second(text: str) -> tuple[str, int]:
    """Return the first key that an object names a second time, and its position in a text that `_object` refused."""
    objects: list[set[str]] = []
    last = ("", 0)
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "{" | "[":
                objects.append(set())
            case "}" | "]":
                objects.pop()
            case ":":
                key = json.loads(last[0])
                if key in objects[-1]:
                    return key, last[1]
                objects[-1].add(key)
            case _:
                last = token[0], token.start()
    raise AssertionError("the text has no repeated key")


def _short(key: str) -> str:
    masked = mask_secrets(key)
    return masked if len(masked) <= 60 else f"{masked[:60]}..."
