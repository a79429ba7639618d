"""Decode one JSON object, and tell where each of its values lies in the bytes (`read_object`).

Long strings are decoded by `router.intake.long_strings`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.intake.long_strings import shorten
from router.quoting import quoted

_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Holds a decoded JSON object, and where each of its values lies in the bytes.

    Attributes:
        fields: the values by key.
        at: for each key the positions at which the bytes of its value begin and end.
    """

    fields: dict[str, Any]
    at: Mapping[str, tuple[int, int]]


def read_object(raw: bytes, long_strings: Sequence[tuple[int, int]] = ()) -> JsonObject:
    """Decode the JSON object that the bytes hold in UTF-8. Its keys must be distinct.

    long_strings: the positions at which strings begin and end, without their quotes, that are decoded by themselves
        (`json_structure.JsonStructure.long_strings`). None of them may be a key.

    Raises ValueError or RecursionError for anything else.
    """
    short = shorten(raw, long_strings)
    text = short.raw.decode()
    fields: dict[str, Any] = {}
    at: dict[str, tuple[int, int]] = {}
    for key, value, begin, end in _members(text):
        fields[key] = short.restore(value)
        at[key] = short.position(text, begin), short.position(text, end)
    return JsonObject(fields, at)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    # Python itself refuses more than 4,300 digits, but its message speaks of Python's settings.
    if len(digits) > 400:
        raise ValueError("it holds an integer beyond the range of a double")
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer)


def _members(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Yield key, value, begin and end of the value of each member of an object. Raise ValueError for anything else."""
    at, keys = _after(text, _skip(text, 0), "{"), set()
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is no string")  # noqa: TRY004  (one kind of error for all malformed text)
        if key in keys:
            # Readers disagree on which of two equal keys counts. The upstream might read another one than was judged.
            raise ValueError(f"key {quoted(key)} occurs twice")
        keys.add(key)
        begin = _after(text, _skip(text, at), ":")
        value, end = _DECODER.raw_decode(text, begin)
        yield key, value, begin, end
        at = _skip(text, end)
        if text[at : at + 1] != "}":
            at = _after(text, at, ",")
            if text[at : at + 1] == "}":
                raise ValueError(f"a key expected at character {at}")
    if _skip(text, at + 1) != len(text):
        raise ValueError(f"something follows the object at character {at + 1}")


def _after(text: str, at: int, sign: str) -> int:
    """Return the position behind `sign`, which must be at `at`, and behind the white space that follows it."""
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} expected at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Return the position behind the white space at `at`, if there is any."""
    match = _SPACE.match(text, at)
    return match.end() if match else at
