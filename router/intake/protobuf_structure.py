"""What a protobuf message may be made of, counted field by field before anything is decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequestError

#: Fields in one message, those of messages within it included. A JSON value in a Struct takes four.
MAX_FIELDS = 100_000

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: From here on a byte of a number says that there is another one.
_LONGER = 0x80

#: For the number of each field that is a message: the same of that message.
Shape = Mapping[int, "Shape"]


def shape_of(descriptor: Any) -> Shape:
    """Which fields of a message are messages, and of those likewise. Messages may hold themselves."""
    known: dict[str, dict[int, Shape]] = {}

    def shape(message: Any) -> Shape:
        if message.full_name not in known:
            known[message.full_name] = fields = {}
            fields.update({f.number: shape(f.message_type) for f in message.fields if f.message_type is not None})
        return known[message.full_name]

    return shape(descriptor)


def check_fields(data: bytes, shape: Shape, *, max_fields: int = MAX_FIELDS) -> int:
    """The number of fields in a message, which nobody has decoded yet.

    Raises InvalidRequestError where there are more than `max_fields`, or where the message is cut off.
    """
    left, inside = max_fields, [(0, len(data), shape)]
    try:
        while inside:
            at, end, fields = inside.pop()
            while at < end:
                left -= 1
                if left < 0:
                    raise InvalidRequestError(
                        f"the request must hold at most {max_fields:,} fields, got more; send fewer messages or tools."
                    )
                # Most numbers have one byte, and a call for each would take twice as long as all else.
                tag = data[at]
                at += 1
                if tag >= _LONGER:
                    tag, at = _varint(data, at - 1)
                kind = tag & 7
                if kind == _BYTES:
                    length = data[at]
                    at += 1
                    if length >= _LONGER:
                        length, at = _varint(data, at - 1)
                    if length and (inner := fields.get(tag >> 3)) is not None:
                        inside.append((at, min(at + length, end), inner))
                    at += length
                elif kind == _VARINT:
                    while data[at] >= _LONGER:
                        at += 1
                    at += 1
                else:
                    at += 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else 0
    except IndexError as error:
        raise InvalidRequestError("the request must be a valid protobuf message; it is cut off.") from error
    return max_fields - left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and where it ends. Raises IndexError behind the end."""
    value = shift = 0
    # Protobuf reads ten bytes at most; a longer number is refused when the message is decoded.
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _LONGER:
            break
        shift += 7
    return value, at
