"""Open connections that are not used, send heads and bodies that never end, and leave answers unread."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

from benchmarks.attack.target import Found, Target, p99_ms

MB = 1_000_000

#: Seconds after which a connection that asks for nothing must have been closed.
CLOSED_S = 20.0

POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


def endless_headers(target: Target) -> Found:
    """Send headers without an end, as fast as they are taken."""
    return target.attacked_by(lambda: _sent(target, POST, b"x-%b: 1\r\n" % (b"a" * 20) * 1000), grown_mb=100)


def endless_header(target: Target) -> Found:
    """Send one header without an end."""
    return target.attacked_by(lambda: _sent(target, POST + b"x: ", b"a" * 65_536), grown_mb=100)


def endless_trailers(target: Target) -> Found:
    """Send trailers without an end behind a body in chunks."""
    head = POST + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    return target.attacked_by(lambda: _sent(target, head, b"x-%b: 1\r\n" % (b"a" * 20) * 1000), grown_mb=100)


def tiny_chunks(target: Target) -> Found:
    """Send a body in chunks of one byte."""
    head = POST + b"transfer-encoding: chunked\r\n\r\n"
    return target.attacked_by(lambda: _sent(target, head, b"1\r\na\r\n" * 10_000), grown_mb=100)


def endless_chunk_extension(target: Target) -> Found:
    """Send the head of a chunk with an extension that never ends."""
    head = POST + b"transfer-encoding: chunked\r\n\r\n1;x="
    return target.attacked_by(lambda: _sent(target, head, b"a" * 65_536), grown_mb=100)


def endless_line_ends(target: Target) -> Found:
    """Send empty lines where a request should begin."""
    return target.attacked_by(lambda: _sent(target, b"", b"\r\n" * 10_000, at_most=50 * MB), grown_mb=100)


def unread_pipelined_gets(target: Target) -> Found:
    """Send many requests ahead, and do not read the answers."""
    return target.attacked_by(
        lambda: _sent(target, b"", b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n" * 1000), grown_mb=100
    )


def unfinished_bodies(target: Target) -> Found:
    """Send forty bodies of 32 MB of which a byte is missing."""
    with _connections(target, 40) as opened:

        def fill() -> str:
            for one in opened:
                with contextlib.suppress(OSError):
                    one.sendall(POST + b"content-length: 33000000\r\n\r\n")
            for one in opened:
                with contextlib.suppress(OSError):
                    for _ in range(33):
                        one.sendall(b" " * 999_999)
            return "sent"

        return target.attacked_by(fill, grown_mb=400)


def idle_http_connections(target: Target) -> Found:
    """Open two thousand connections to the HTTP door that send nothing."""
    return _idle(target, target.http, 2000)


def idle_grpc_connections(target: Target) -> Found:
    """Open two thousand connections to the gRPC port that send nothing."""
    return _idle(target, target.grpc, 2000)


def slow_heads(target: Target) -> Found:
    """Open three hundred connections that send a byte of their headers every second."""
    with _connections(target, 300) as opened:
        for one in opened:
            one.sendall(POST + b"x: ")

        def trickle() -> str:
            for one in opened:
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
            time.sleep(1)
            return "sent"

        return target.attacked_by(trickle, grown_mb=100)


def _idle(target: Target, where: str, number: int) -> Found:
    calm, before = target.rss_mb(), time.monotonic()
    with _connections(target, number, where) as opened:
        height, began = target.rss_mb(), time.monotonic()
        ends = began + CLOSED_S + 5
        open_still = set(opened)
        while open_still and time.monotonic() < ends:
            time.sleep(0.5)
            height = max(height, target.rss_mb())
            open_still = {one for one in open_still if not _is_closed(one)}
        took = time.monotonic() - began
    measured = {
        "opened": len(opened),
        "open_still": len(open_still),
        "closed_after_s": round(took, 1),
        "grown_mb": round(height - calm, 1),
        "attacked_p99_ms": p99_ms(target.waits(before, time.monotonic())),
    }
    return Found(measured, {"open_still": 0, "closed_after_s": CLOSED_S, "grown_mb": 200})


@contextlib.contextmanager
def _connections(target: Target, number: int, where: str | None = None) -> Iterator[list[socket.socket]]:
    opened: list[socket.socket] = []
    try:
        for _ in range(number):
            with contextlib.suppress(OSError):
                opened.append(target.connect(where))
        yield opened
    finally:
        for one in opened:
            one.close()


def _is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while data := one.recv(65_536):
            del data
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _sent(target: Target, head: bytes, again: bytes, *, at_most: int = 30 * MB) -> str:
    """Send a head and then the same until the service hangs up or it is enough; nothing is read but the status."""
    with target.connect() as one:
        one.settimeout(2)
        sent = 0
        try:
            one.sendall(head)
            while sent < at_most:
                one.sendall(again)
                sent += len(again)
        except TimeoutError:
            return "not read"
        except OSError:
            return "closed"
        return "read on"


ATTACKS: tuple[Callable[[Target], Found], ...] = (
    *(endless_headers, endless_header, endless_trailers, tiny_chunks, endless_chunk_extension, endless_line_ends),
    unread_pipelined_gets,
    *(unfinished_bodies, idle_http_connections, idle_grpc_connections, slow_heads),
)
QUICK = (endless_headers, unread_pipelined_gets)
