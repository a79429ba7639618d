"""Count the values, the depth and the text of a JSON body before it is decoded, and refuse too much.

A decoder holds the interpreter's lock for as long as it runs. Ten million empty objects would stop every other caller,
whichever thread decodes them. So numpy counts the bytes first; it releases the lock. A body that passes is decoded in a
few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.errors import InvalidRequestError
from router.intake.bounds import SMALL_BYTES
from router.intake.long_strings import LONG_STRING_BYTES, escaped_by

#: The largest number of values in one JSON body, without keys. The longest sessions of coding agents have about 20,000.
MAX_VALUES = 50_000

#: The largest number of objects and lists within each other.
MAX_DEPTH = 100

#: The largest number of bytes of text in a body, unless the caller of `check_json` says otherwise.
MAX_TEXT_BYTES = 512 * 1024

#: The largest number of bytes of a body without its long strings. It leaves room for indents, escapes and a hundred
#: small pictures.
MAX_SHORT_BYTES = 8 * 1024 * 1024

#: The number of bytes that are counted in one step.
_BLOCK = 1 << 20

#: The largest number of marks that a value with its key can have: four quotes, colon, comma, two brackets.
_MARKS_PER_VALUE = 8

_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING, _CLOSING = b"[{", b"]}"


@dataclass(frozen=True, slots=True)
class JsonStructure:
    """Says how many values a JSON text holds, how deep it is nested, and where its long strings are.

    Attributes:
        n_values: an upper bound on the number of values.
        depth: an upper bound on the number of objects and lists within each other.
        long_strings: the positions at which strings of at least `LONG_STRING_BYTES` begin and end, without their
            quotes.
    """

    n_values: int
    depth: int
    long_strings: tuple[tuple[int, int], ...] = ()


def check_json(raw: bytes, *, max_text_bytes: int) -> JsonStructure:
    """Count the values, the depth and the text of JSON that was not decoded yet, and refuse too much.

    Whatever a decoder would read is counted.

    The text need not be valid JSON.

    max_text_bytes: the largest number of bytes of text. Anything beyond it must be ASCII, as encoded pictures are.

    Raises InvalidRequestError for more than `MAX_VALUES`, a depth of more than `MAX_DEPTH`, or too much text.
    """
    found = _bounds(raw) if len(raw) <= SMALL_BYTES else None
    if found is None or found.depth > MAX_DEPTH:
        found = _structure(raw, max_text_bytes)
    if found.n_values > MAX_VALUES:
        raise InvalidRequestError(
            f"the body must be a JSON object of at most {MAX_VALUES:,} values, got {found.n_values:,}; send fewer "
            f"messages or tools."
        )
    if found.depth > MAX_DEPTH:
        raise InvalidRequestError(
            f"the body must be a JSON object nested at most {MAX_DEPTH} levels deep, got {found.depth:,}."
        )
    short = len(raw) - sum(end - begin for begin, end in found.long_strings)
    if short > MAX_SHORT_BYTES:
        raise InvalidRequestError(
            f"the body must be a JSON object of at most {MAX_SHORT_BYTES:,} bytes besides strings of "
            f"{LONG_STRING_BYTES:,} and more, got {short:,}; leave out white space, or send less."
        )
    return found


def _bounds(raw: bytes) -> JsonStructure:
    """Return upper bounds of the structure, which count the commas and brackets within strings too."""
    opened = sum(map(raw.count, (b"[", b"{")))
    return JsonStructure(n_values=1 + opened + raw.count(b","), depth=opened)


def _structure(raw: bytes, max_text_bytes: int) -> JsonStructure:
    data = np.frombuffer(raw, np.uint8)
    at = _marks(data, max_text_bytes)
    kind = data[at]
    quote = kind == _QUOTE
    quote &= ~np.isin(at, escaped_by(at[kind == _BACKSLASH]), assume_unique=True)
    inside = (np.cumsum(quote) & 1).astype(bool)
    outside = kind[~inside & ~quote]
    opened = np.isin(outside, list(_OPENING))
    steps = opened.astype(np.int64) - np.isin(outside, list(_CLOSING))
    ends = at[quote]
    # If the number of quotes is odd, the last string has no end, and the decoder will refuse the text.
    begins, ends = ends[0::2][: len(ends) // 2] + 1, ends[1::2]
    long = ends - begins >= LONG_STRING_BYTES
    return JsonStructure(
        n_values=1 + int(opened.sum()) + int((outside == _COMMA).sum()),
        depth=int(np.cumsum(steps).max(initial=0)),
        long_strings=tuple(zip(begins[long].tolist(), ends[long].tolist(), strict=True)),
    )


def _marks(data: NDArray[np.uint8], max_text_bytes: int) -> NDArray[np.int64]:
    """Return the positions of quotes, backslashes, commas, colons and brackets, those within strings included."""
    # Each character of a text may be escaped by a backslash, which is a mark too.
    most = 2 * max_text_bytes + _MARKS_PER_VALUE * MAX_VALUES
    found: list[NDArray[np.int64]] = []
    n_marks = n_not_ascii = 0
    for begin in range(0, len(data), _BLOCK):
        block = data[begin : begin + _BLOCK]
        # With the bit 0x20 set, brackets, braces and the backslash are `{`, `|` and `}`, three codes in a row.
        marks = (block == _QUOTE) | (block == _COMMA) | (block == _COLON) | (((block | 0x20) - ord("{")) <= 2)
        n_marks += int(np.count_nonzero(marks))
        n_not_ascii += int(np.count_nonzero(block & 0x80))
        if n_marks > most or n_not_ascii > 2 * max_text_bytes:
            raise InvalidRequestError(
                f"the body must be a JSON object of at most {MAX_VALUES:,} values and {max_text_bytes:,} bytes of "
                f"text, got more; shorten it, or raise --max-prompt-bytes of the service."
            )
        found.append(np.flatnonzero(marks) + begin)
    return np.concatenate(found) if found else np.empty(0, np.int64)
