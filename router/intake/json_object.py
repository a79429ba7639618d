"""Decode one JSON object, and tell where each of its values lies in the bytes (`read_object`).

Long strings are decoded in pieces, so that no single step keeps other threads waiting for long.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.quoting import quoted

#: The number of bytes of a long string that are decoded in one step.
_PIECE = 64 * 1024

#: A string may be cut where the bytes before hold no backslash, this many of them. The longest escape, a surrogate
#: pair, has 12.
_CLEAR = 12

#: The first character that is not a control character. JSON allows no control characters in a string.
_FIRST_PRINTABLE = 0x20

_SPACE = re.compile(r"[ \t\n\r]*")
_KEY_END = re.compile(rb'"[ \t\n\r]*+:')


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
    if any(_KEY_END.match(raw, end) for _, end in long_strings):
        raise ValueError("a key is too long")
    short = _shorten(raw, long_strings)
    text = short.raw.decode()
    fields: dict[str, Any] = {}
    at: dict[str, tuple[int, int]] = {}
    for key, value, begin, end in _members(text):
        fields[key] = short.restore(value)
        at[key] = short.position(text, begin), short.position(text, end)
    return JsonObject(fields, at)


@dataclass(frozen=True, slots=True)
class _Shortened:
    """Holds a JSON text in which a short placeholder replaces each long string.

    Attributes:
        raw: the text with placeholders.
        strings: for each placeholder the string that it replaces.
        shifts: for each placeholder the position at which it ends in `raw`, and by how many bytes that position
            lies before the one in the whole text.
    """

    raw: bytes
    strings: Mapping[str, str]
    shifts: Sequence[tuple[int, int]]

    def position(self, text: str, at: int) -> int:
        """Return the position in the bytes of the whole text of the character `at` of the shortened `text`."""
        short = at if text.isascii() else len(text[:at].encode())
        return short + next((missing for end, missing in reversed(self.shifts) if end <= short), 0)

    def restore(self, value: Any) -> Any:
        """Return a decoded value with the strings in place of their placeholders."""
        if not self.strings:
            return value
        if isinstance(value, str):
            return self.strings.get(value, value)
        if isinstance(value, list):
            return [self.restore(item) for item in value]
        if isinstance(value, dict):
            return {key: self.restore(item) for key, item in value.items()}
        return value


def _shorten(raw: bytes, long_strings: Sequence[tuple[int, int]]) -> _Shortened:
    if not long_strings:
        return _Shortened(raw, {}, ())
    # The placeholder is random, so that nobody can write a body that holds one.
    secret = secrets.token_hex(16)
    pieces: list[bytes] = []
    strings: dict[str, str] = {}
    shifts: list[tuple[int, int]] = []
    done = length = 0
    for number, (begin, end) in enumerate(long_strings):
        name = f"{secret}{number}"
        strings[name] = _decode_string(raw, begin, end)
        pieces += (raw[done:begin], name.encode())
        length += begin - done + len(name)
        done = end
        shifts.append((length, end - length))
    return _Shortened(b"".join([*pieces, raw[done:]]), strings, shifts)


def _decode_string(raw: bytes, begin: int, end: int) -> str:
    if raw.find(b"\\", begin, end) < 0 and np.frombuffer(raw, np.uint8, end - begin, begin).min() >= _FIRST_PRINTABLE:
        return str(memoryview(raw)[begin:end], "utf-8")
    pieces = []
    while begin < end:
        stop = _cut(raw, begin + _PIECE, end)
        pieces.append(_DECODER.decode(f'"{raw[begin:stop].decode()}"'))
        begin = stop
    return "".join(pieces)


def _cut(raw: bytes, wanted: int, end: int) -> int:
    """Return a position near `wanted` at which the string may be cut, or the end of the string."""
    for position in range(wanted, min(wanted + _PIECE, end)):
        if raw[position] < 0x80 and raw.find(b"\\", position - _CLEAR, position) < 0:
            return position
    return end


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
