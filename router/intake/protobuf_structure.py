"""Count the fields of a protobuf message before it is decoded, and refuse too many (`check_fields`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from router.errors import InvalidRequestError

#: The largest number of fields in one message, with those of the messages within it. A JSON value in a Struct has four.
MAX_FIELDS = 100_000

# The wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

#: A byte of a varint of at least this value is followed by another byte of the same varint.
_CONTINUES = 0x80

#: For each field that is a message, its number and the shape of that message.
Shape = Mapping[int, "Shape"]


def shape_of(descriptor: Any) -> Shape:
    """Return, for all levels of a message type, the numbers of the fields that hold messages themselves.

    A type may contain itself.
    """
    known: dict[str, dict[int, Shape]] = {}

    def shape(message: Any) -> Shape:
        if message.full_name not in known:
            known[message.full_name] = fields = {}
            fields.update({f.number: shape(f.message_type) for f in message.fields if f.message_type is not None})
        return known[message.full_name]

    return shape(descriptor)


def check_fields(data: bytes, shape: Shape, *, max_fields: int = MAX_FIELDS) -> int:
    """Return the number of fields in a message that was not decoded yet.

    shape: the shape of the message's type, as `shape_of` returns it.

    Raises InvalidRequestError if there are more than `max_fields`, or if the message is cut off.
    """
    # For each message that is still to be counted where it begins, where it ends, and its shape; one list, because the
    # garbage collector would have to look at a tuple for each of them.
    left = max_fields
    inside: list[Any] = [0, len(data), shape]
    try:
        while inside:
            fields, end, at = inside.pop(), inside.pop(), inside.pop()
            while at < end:
                left -= 1
                if left < 0:
                    raise InvalidRequestError(
                        f"the request must hold at most {max_fields:,} fields, got more; send fewer messages or tools."
                    )
                # Most varints have one byte. A function call for each would double the time.
                tag = data[at]
                at += 1
                if tag >= _CONTINUES:
                    tag, at = _varint(data, at - 1)
                kind = tag & 7
                if kind == _BYTES:
                    length = data[at]
                    at += 1
                    if length >= _CONTINUES:
                        length, at = _varint(data, at - 1)
                    if length and (inner := fields.get(tag >> 3)) is not None:
                        inside += (at, min(at + length, end), inner)
                    at += length
                elif kind == _VARINT:
                    while data[at] >= _CONTINUES:
                        at += 1
                    at += 1
                else:
                    at += 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else 0
    except IndexError as error:
        raise InvalidRequestError("the request must be a valid protobuf message; it is cut off.") from error
    return max_fields - left


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length integer (varint) at this position, and the position behind it.

    Raise IndexError if the data end before.
    """
    value = shift = 0
    # A varint has at most ten bytes. A longer one is refused when the message is decoded.
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < _CONTINUES:
            break
        shift += 7
    return value, at
