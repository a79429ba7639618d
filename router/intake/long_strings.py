"""Find the long strings of a JSON text and decode them in pieces, so that no single step keeps other threads waiting.

A decoder reads a string of 4 MB in one step of 10 to 20 ms, during which no other thread runs.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.intake.joined_text import joined

#: A string of at least this many bytes is decoded by itself. It is a picture as a rule.
LONG_STRING_BYTES = 64 * 1024

#: The number of bytes of a long string that are decoded in one step.
_PIECE = 64 * 1024

#: The number of bytes in which quotes are looked for in one step.
_BLOCK = 1 << 20

#: A string may be cut where the bytes before hold no backslash, this many of them. The longest escape, a surrogate
#: pair, has 12.
_CLEAR = 12

#: The first character that is not a control character, which JSON allows in no string, and the first beyond ASCII.
_FIRST_PRINTABLE, _FIRST_FOREIGN = 0x20, 0x80

#: How the second and each later byte of a character begins in UTF-8, of which the first two bits count.
_CONTINUES = 0x80

_QUOTE, _BACKSLASH = b'"\\'
_KEY_END = re.compile(rb'"[ \t\n\r]*+:')

#: The first half of a surrogate pair as an escape, which has six bytes.
_FIRST_HALF = re.compile(rb"\\u[dD][89abAB]")


@dataclass(frozen=True, slots=True)
class ShortenedJson:
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


def find_long_strings(raw: bytes) -> tuple[tuple[int, int], ...]:
    """Return where the strings of at least `LONG_STRING_BYTES` begin and end in a JSON text, without their quotes."""
    found: list[tuple[int, int]] = []
    data = np.frombuffer(raw, np.uint8)
    opened: list[int] = []
    is_escaped = False
    for begin in range(0, len(data), _BLOCK):
        block = data[begin : begin + _BLOCK]
        at = np.flatnonzero((block == _QUOTE) | (block == _BACKSLASH))
        # The first byte of a block may be escaped by the last one of the block before.
        at = at[1:] if is_escaped and len(at) and at[0] == 0 else at
        kind = block[at]
        escaped = escaped_by(at[kind == _BACKSLASH])
        is_escaped = bool(len(escaped)) and int(escaped[-1]) == len(block)
        quotes = at[kind == _QUOTE]
        ends = np.concatenate((opened, np.setdiff1d(quotes, escaped, assume_unique=True) + begin)).astype(np.int64)
        begins, ends, opened = ends[0::2][: len(ends) // 2] + 1, ends[1::2], ends[len(ends) // 2 * 2 :].tolist()
        long = ends - begins >= LONG_STRING_BYTES
        found += zip(begins[long].tolist(), ends[long].tolist(), strict=True)
    return tuple(found)


def escaped_by(backslashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of the characters that a backslash escapes, given the positions of all backslashes."""
    if not len(backslashes):
        return backslashes
    starts = np.flatnonzero(np.diff(backslashes, prepend=backslashes[0] - 2) != 1)
    lengths = np.diff(starts, append=len(backslashes))
    # In a row of backslashes every second one is escaped itself.
    in_row = np.arange(len(backslashes)) - np.repeat(starts, lengths)
    escaped: NDArray[np.int64] = backslashes[in_row % 2 == 0] + 1
    return escaped


def shorten(raw: bytes, long_strings: Sequence[tuple[int, int]]) -> ShortenedJson:
    """Decode the long strings of a JSON text, and put placeholders in their places.

    Raises ValueError if one of them is a key or is malformed.
    """
    if any(_KEY_END.match(raw, end) for _, end in long_strings):
        raise ValueError("a key is too long")
    if not long_strings:
        return ShortenedJson(raw, {}, ())
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
    return ShortenedJson(b"".join([*pieces, raw[done:]]), strings, shifts)


def _decode_string(raw: bytes, begin: int, end: int) -> str:
    pieces: list[str] = []
    if raw.find(b"\\", begin, end) < 0 and _is_plain(np.frombuffer(raw, np.uint8, end - begin, begin)):
        pieces += (raw[at : min(at + _PIECE, end)].decode("ascii") for at in range(begin, end, _PIECE))
    else:
        while begin < end:
            stop = _cut(raw, begin + _PIECE, end)
            pieces.append(json.loads(f'"{raw[begin:stop].decode()}"'))
            begin = stop
    return joined(pieces)


def _is_plain(characters: NDArray[np.uint8]) -> bool:
    return bool(characters.min() >= _FIRST_PRINTABLE and characters.max() < _FIRST_FOREIGN)


def _cut(raw: bytes, wanted: int, end: int) -> int:
    """Return a position near `wanted` at which the string may be cut, or the end of the string."""
    for position in range(wanted, min(wanted + _PIECE, end)):
        if raw[position] == _BACKSLASH:
            # The first backslash of a row begins an escape. What it escapes may be the second half of a pair.
            if raw[position - 1] != _BACKSLASH and not _FIRST_HALF.match(raw, position - 6):
                return position
        elif raw[position] & 0xC0 != _CONTINUES and raw.find(b"\\", position - _CLEAR, position) < 0:
            return position
    return end
