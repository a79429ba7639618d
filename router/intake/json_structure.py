"""What a JSON body may be made of, counted before anything is decoded: values, depth, text that is not ASCII.

Decoders hold the interpreter's lock for as long as they run: ten million empty objects stop every other caller, in
whichever thread they are decoded. So the bytes are counted first, by numpy, which lets go of the lock; what passes is
decoded in a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router.errors import InvalidRequestError
from router.intake.bounds import SMALL_BYTES

#: Values in one JSON body, keys not counted. The longest sessions of coding agents have about 20,000.
MAX_VALUES = 50_000

#: Objects and lists within each other.
MAX_DEPTH = 100

#: Bytes of text that a body may hold where nobody says otherwise.
MAX_TEXT_BYTES = 512 * 1024

#: Bytes of a body without its long strings: indented, escaped, and with a hundred small pictures.
MAX_SHORT_BYTES = 8 * 1024 * 1024

#: A string of at least this many bytes is decoded by itself: a picture, as a rule.
LONG_STRING_BYTES = 64 * 1024

#: Bytes that are looked at at a time.
_BLOCK = 1 << 20

#: Signs that a value with its key can have: four quotes, colon, comma, two brackets.
_SIGNS_PER_VALUE = 8

_QUOTE, _BACKSLASH, _COMMA, _COLON = b'"\\,:'
_OPENING, _CLOSING = b"[{", b"]}"


@dataclass(frozen=True, slots=True)
class JsonStructure:
    """What a JSON text is made of.

    Attributes:
        n_values: values, at most.
        depth: objects and lists within each other, at most.
        long_strings: where strings of `LONG_STRING_BYTES` and more begin and end, without their quotes.
    """

    n_values: int
    depth: int
    long_strings: tuple[tuple[int, int], ...] = ()


def check_json(raw: bytes, *, max_text_bytes: int) -> JsonStructure:
    """The structure of a JSON text, decoded by nobody yet. It need not be valid: whatever a decoder reads is counted.

    max_text_bytes: of text, as the router reads it; what is more than that can only be ASCII, as pictures are.

    Raises InvalidRequestError where there are more than `MAX_VALUES`, more than `MAX_DEPTH`, or too much text.
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
    """Upper bounds, which count signs within strings too."""
    opened = sum(map(raw.count, (b"[", b"{")))
    return JsonStructure(n_values=1 + opened + raw.count(b","), depth=opened)


def _structure(raw: bytes, max_text_bytes: int) -> JsonStructure:
    data = np.frombuffer(raw, np.uint8)
    at = _signs(data, max_text_bytes)
    kind = data[at]
    quote = kind == _QUOTE
    quote &= ~np.isin(at, _escaped(at[kind == _BACKSLASH]), assume_unique=True)
    inside = (np.cumsum(quote) & 1).astype(bool)
    outside = kind[~inside & ~quote]
    opened = np.isin(outside, list(_OPENING))
    steps = opened.astype(np.int64) - np.isin(outside, list(_CLOSING))
    ends = at[quote]
    begins, ends = ends[0::2][: len(ends) // 2] + 1, ends[1::2]
    long = ends - begins >= LONG_STRING_BYTES
    return JsonStructure(
        n_values=1 + int(opened.sum()) + int((outside == _COMMA).sum()),
        depth=int(np.cumsum(steps).max(initial=0)),
        long_strings=tuple(zip(begins[long].tolist(), ends[long].tolist(), strict=True)),
    )


def _signs(data: NDArray[np.uint8], max_text_bytes: int) -> NDArray[np.int64]:
    """Where quotes, backslashes, commas, colons and brackets stand, within strings too."""
    # Each sign of a text may be escaped.
    most = 2 * max_text_bytes + _SIGNS_PER_VALUE * MAX_VALUES
    found: list[NDArray[np.int64]] = []
    n_signs = n_foreign = 0
    for begin in range(0, len(data), _BLOCK):
        block = data[begin : begin + _BLOCK]
        # Brackets and the backslash differ from `{`, `|` and `}` by this bit at most.
        signs = (block == _QUOTE) | (block == _COMMA) | (block == _COLON) | (((block | 0x20) - ord("{")) <= 2)
        n_signs += int(np.count_nonzero(signs))
        n_foreign += int(np.count_nonzero(block & 0x80))
        if n_signs > most or n_foreign > 2 * max_text_bytes:
            raise InvalidRequestError(
                f"the body must be a JSON object of at most {MAX_VALUES:,} values and {max_text_bytes:,} bytes of "
                f"text, got more; shorten it, or raise --max-prompt-bytes of the service."
            )
        found.append(np.flatnonzero(signs) + begin)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _escaped(backslashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the signs that a backslash escapes: in a row of them every second one is escaped itself."""
    if not len(backslashes):
        return backslashes
    starts = np.flatnonzero(np.diff(backslashes, prepend=backslashes[0] - 2) != 1)
    lengths = np.diff(starts, append=len(backslashes))
    in_row = np.arange(len(backslashes)) - np.repeat(starts, lengths)
    escaped: NDArray[np.int64] = backslashes[in_row % 2 == 0] + 1
    return escaped
