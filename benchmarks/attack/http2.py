"""Speak HTTP/2 by hand, for gRPC calls that no gRPC client makes, such as messages that never finish."""

from __future__ import annotations

import contextlib
import socket
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4


def open_calls(connection: socket.socket, method: str, number: int, beginning: bytes) -> None:
    """Begin so many calls of a method, each with the beginning of a message and no end."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", method.encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    ]
    # Literal, without an index and without Huffman's code.
    packed = b"".join(b"\x00" + bytes((len(a),)) + a + bytes((len(b),)) + b for a, b in headers)
    sent = _PREFACE + _frame(_SETTINGS, 0, 0, b"")
    for one in range(number):
        sent += _frame(_HEADERS, _END_HEADERS, 2 * one + 1, packed) + _frame(_DATA, 0, 2 * one + 1, beginning)
    connection.sendall(sent)


def calls_ended(connection: socket.socket, received: bytearray) -> int:
    """Return how many calls the server has ended so far; `received` keeps what the connection has sent."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while data := connection.recv(65_536):
            received += data
    ended, at = set(), 0
    while at + 9 <= len(received):
        length = int.from_bytes(received[at : at + 3])
        kind, flags = received[at + 3], received[at + 4]
        if kind == _RST_STREAM or (kind == _HEADERS and flags & _END_STREAM):
            # A call may be ended by both.
            ended.add(bytes(received[at + 5 : at + 9]))
        at += 9 + length
    return len(ended)


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + content
