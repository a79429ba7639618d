"""One JSON object with the places of its members. Long strings are decoded in pieces, so that no step takes long."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from router.quoting import quoted

#: Bytes of a long string that are decoded at a time.
_PIECE = 64 * 1024

#: Bytes without a backslash before a place where a string may be cut: more than the longest escape, a surrogate pair.
_CLEAR = 12

#: Strings hold no control characters.
_FIRST_PRINTED = 0x20

_SPACE = re.compile(r"[ \t\n\r]*")
_KEY_END = re.compile(rb'"[ \t\n\r]*+:')


@dataclass(frozen=True, slots=True)
class JsonObject:
    """A JSON object.

    Attributes:
        fields: the object, decoded.
        at: for each key where the bytes of its value begin and end.
    """

    fields: dict[str, Any]
    at: Mapping[str, tuple[int, int]]


def read_object(raw: bytes, long_strings: Sequence[tuple[int, int]] = ()) -> JsonObject:
    """Decode one JSON object in UTF-8 with distinct keys.

    long_strings: where strings begin and end, without their quotes, that are to be decoded by themselves
        (`structure.JsonStructure.long_strings`). None of them may be a key.

    Raises ValueError or RecursionError for anything else.
    """
    if any(_KEY_END.match(raw, end) for _, end in long_strings):
        raise ValueError("a key is too long")
    short = _without(raw, long_strings)
    text = short.raw.decode()
    fields: dict[str, Any] = {}
    at: dict[str, tuple[int, int]] = {}
    for key, value, begin, end in _members(text):
        fields[key] = short.restored(value)
        at[key] = short.place(text, begin), short.place(text, end)
    return JsonObject(fields, at)


@dataclass(frozen=True, slots=True)
class _Short:
    """A JSON text in which a short name stands for each long string.

    Attributes:
        raw: the text.
        texts: for each name the string.
        shifts: for each name where it ends in `raw`, and how many bytes are missing up to there.
    """

    raw: bytes
    texts: Mapping[str, str]
    shifts: Sequence[tuple[int, int]]

    def place(self, text: str, at: int) -> int:
        """Where in the whole text the character `at` of the short one stands."""
        place = at if text.isascii() else len(text[:at].encode())
        return place + next((missing for end, missing in reversed(self.shifts) if end <= place), 0)

    def restored(self, value: Any) -> Any:
        """The same value with the strings themselves."""
        if not self.texts:
            return value
        if isinstance(value, str):
            return self.texts.get(value, value)
        if isinstance(value, list):
            return [self.restored(item) for item in value]
        if isinstance(value, dict):
            return {key: self.restored(item) for key, item in value.items()}
        return value


def _without(raw: bytes, long_strings: Sequence[tuple[int, int]]) -> _Short:
    if not long_strings:
        return _Short(raw, {}, ())
    # Nobody who writes a body can guess what stands for a string in it.
    secret = secrets.token_hex(16)
    pieces: list[bytes] = []
    texts: dict[str, str] = {}
    shifts: list[tuple[int, int]] = []
    done = length = 0
    for number, (begin, end) in enumerate(long_strings):
        name = f"{secret}{number}"
        texts[name] = _long_text(raw, begin, end)
        pieces += (raw[done:begin], name.encode())
        length += begin - done + len(name)
        done = end
        shifts.append((length, end - length))
    return _Short(b"".join([*pieces, raw[done:]]), texts, shifts)


def _long_text(raw: bytes, begin: int, end: int) -> str:
    if raw.find(b"\\", begin, end) < 0 and np.frombuffer(raw, np.uint8, end - begin, begin).min() >= _FIRST_PRINTED:
        return str(memoryview(raw)[begin:end], "utf-8")
    pieces = []
    while begin < end:
        stop = _cut(raw, begin + _PIECE, end)
        pieces.append(_DECODER.decode(f'"{raw[begin:stop].decode()}"'))
        begin = stop
    return "".join(pieces)


def _cut(raw: bytes, wanted: int, end: int) -> int:
    """A place near `wanted` at which the string may be cut; its end if there is none nearby."""
    for place in range(wanted, min(wanted + _PIECE, end)):
        if raw[place] < 0x80 and raw.find(b"\\", place - _CLEAR, place) < 0:
            return place
    return end


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _integer(digits: str) -> int:
    # Python converts no more than 4,300 digits, and says so in its own terms.
    if len(digits) > 400:
        raise ValueError("it holds an integer beyond the range of a double")
    return int(digits)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_integer)


def _members(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Key, value, begin and end of the value, of each member of a JSON object. Raises ValueError for anything else."""
    at, keys = _after(text, _skip(text, 0), "{"), set()
    while text[at : at + 1] != "}":
        key, at = _DECODER.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is no string")  # noqa: TRY004  (one kind of error for all malformed text)
        if key in keys:
            # Readers disagree on which of two counts; the upstream might answer another one than was judged.
            raise ValueError(f"key {quoted(key)} stands twice")
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
    """Where the text goes on after `sign`, which must stand at `at`, and the white space behind it."""
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} expected at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    """Where the white space at `at`, if any, ends."""
    match = _SPACE.match(text, at)
    return match.end() if match else at
