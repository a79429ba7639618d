"""What a protobuf message may be made of, counted field by field before anything is decoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from router.errors import InvalidRequestError

#: Fields in one message, those of messages within it included. A JSON value in a Struct takes four.
MAX_FIELDS = 100_000

_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)

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
                tag, at = _varint(data, at)
                kind = tag & 7
                if kind == _BYTES:
                    length, at = _varint(data, at)
                    if (inner := fields.get(tag >> 3)) is not None:
                        inside.append((at, min(at + length, end), inner))
                    at += length
                elif kind == _VARINT:
                    _, at = _varint(data, at)
                else:
                    at += 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else 0
    except IndexError as error:
        raise InvalidRequestError("the request must be a valid protobuf message; it is cut off.") from error
    return max_fields - left


def messages_in(data: bytes, number: int) -> Iterator[bytes]:
    """The messages of one repeated field, undecoded, of a message whose other fields do not matter.

    Raises InvalidRequestError where the message is cut off.
    """
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            kind = tag & 7
            if kind == _BYTES:
                length, at = _varint(data, at)
                if tag >> 3 == number:
                    yield data[at : at + length]
                at += length
            elif kind == _VARINT:
                _, at = _varint(data, at)
            else:
                at += 8 if kind == _FIXED64 else 4 if kind == _FIXED32 else 0
    except IndexError as error:
        raise InvalidRequestError("the request must be a valid protobuf message; it is cut off.") from error


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and where it ends. Raises IndexError behind the end."""
    value = data[at]
    at += 1
    if value < 0x80:
        return value, at
    value, shift = value & 0x7F, 7
    # Protobuf reads ten bytes at most; a longer number is refused when the message is decoded.
    while shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, at
