"""Serialize a large answer as a google.protobuf.Struct, so that other threads can run meanwhile.

Protobuf serializes a message in one call that no other thread can interrupt. For small answers it is faster, so
`router.wire.structs` uses it for those.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from router.answering.reading.large_answers import Pieces
from router.plain_json import utf8_pieces

_DOUBLE = struct.Struct("<d")


def with_large_fields(head: bytes, *, text: str, body: Mapping[str, Any]) -> bytes:
    """Return the bytes of an answer message: those of its other fields, its text, and its body as a Struct.

    `text` and `response` of a CompleteResponse are fields 2 and 3, like `text_delta` and `chunk` of a streamed answer.
    """
    written = _Backwards()
    written.struct(3, body)
    written.text(2, text)
    written.add(head)
    return written.joined()


def field_bytes(number: int, content: bytes) -> bytes:
    """Return the bytes of one field of a protobuf message, which holds bytes, text or another message.

    `number` is at most 15.
    """
    return _head(number, len(content)) + content


class _Backwards:
    """Collects the bytes of a message from its end to its beginning.

    The length of a field stands before its content, and is known once the content is written.
    """

    def __init__(self) -> None:
        self._pieces = Pieces(backwards=True)
        self._length = 0

    def add(self, piece: bytes) -> None:
        self._pieces.add(piece)
        self._length += len(piece)

    def text(self, number: int, text: str) -> None:
        end = self._length
        for piece in reversed(list(utf8_pieces(text))):
            self.add(piece)
        self._close(number, end)

    def struct(self, number: int, body: Mapping[str, Any]) -> None:
        """Write a `google.protobuf.Struct`, whose entries have a key and a value."""
        end = self._length
        for key, item in reversed(list(body.items())):
            entry_end = self._length
            value_end = self._length
            self._value(item)
            self._close(2, value_end)
            self.text(1, key)
            self._close(1, entry_end)
        self._close(number, end)

    def joined(self) -> bytes:
        return self._pieces.joined()

    def _close(self, number: int, end: int) -> None:
        """Write the beginning of a field whose content was written since the length was `end`."""
        self.add(_head(number, self._length - end))

    def _value(self, item: Any) -> None:
        """Write the content of a `google.protobuf.Value`, whose field says what kind of value it holds."""
        if item is None:
            self.add(b"\x08\x00")
        elif isinstance(item, bool):
            self.add(b"\x20\x01" if item else b"\x20\x00")
        elif isinstance(item, str):
            self.text(3, item)
        elif isinstance(item, int | float):
            self.add(b"\x11" + _DOUBLE.pack(item))
        elif isinstance(item, Mapping):
            self.struct(5, item)
        else:
            end = self._length
            for one in reversed(item):
                value_end = self._length
                self._value(one)
                self._close(1, value_end)
            self._close(6, end)


def _head(number: int, length: int) -> bytes:
    """Return the tag and the length of a field, for which protobuf has variable-length integers."""
    head = bytearray((number << 3 | 2,))
    while length >= 0x80:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)
