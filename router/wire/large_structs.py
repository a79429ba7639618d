"""Serialize a large answer as a google.protobuf.Struct, so that other threads can run meanwhile.

Protobuf serializes a message in one call that no other thread can interrupt. For small answers it is faster, so
`router.wire.structs` uses it for those.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from router.plain_json import whole_text

_DOUBLE = struct.Struct("<d")


def struct_bytes(body: Mapping[str, Any]) -> bytes:
    """Return the bytes of the Struct that `struct_from_answer` returns."""
    return b"".join(field_bytes(1, _entry(key, item)) for key, item in body.items())


def field_bytes(number: int, content: bytes) -> bytes:
    """Return the bytes of one field of a protobuf message, which holds bytes, text or another message.

    `number` is at most 15.
    """
    head, rest = bytearray((number << 3 | 2,)), len(content)
    while rest >= 0x80:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return bytes(head) + content


def _entry(key: str, item: Any) -> bytes:
    return field_bytes(1, whole_text(key).encode()) + field_bytes(2, _value(item))


def _value(item: Any) -> bytes:
    """Return a `google.protobuf.Value`, whose field says what kind of value it holds."""
    if item is None:
        return b"\x08\x00"
    if isinstance(item, bool):
        return b"\x20\x01" if item else b"\x20\x00"
    if isinstance(item, str):
        return field_bytes(3, whole_text(item).encode())
    if isinstance(item, int | float):
        return b"\x11" + _DOUBLE.pack(item)
    if isinstance(item, Mapping):
        return field_bytes(5, struct_bytes(item))
    return field_bytes(6, b"".join(field_bytes(1, _value(one)) for one in item))
