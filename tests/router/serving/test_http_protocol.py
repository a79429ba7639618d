"""Connections of the HTTP door: what they may send before a request, how long they may take, how many there may be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from router.serving import http_protocol
from router.serving.http_server import bind_socket, serve_app
from tests.gateways.loopback import in_thread

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\n"


BIG = 20 * 1024 * 1024


async def echo(scope, receive, send):
    """Answer with the number of bytes of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    raw = b"a" * BIG if scope["path"] == "/big" else str(size).encode()
    head = [(b"content-length", str(len(raw)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": raw})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    for name, seconds in (("HEAD_S", 0.3), ("BODY_S", 0.3)):
        monkeypatch.setattr(http_protocol, name, seconds)
    monkeypatch.setattr(http_protocol, "MAX_CONNECTIONS", 20)
    with in_thread(serve_app(bind_socket("127.0.0.1", 0), echo, grace_s=lambda: 1.0)) as port:
        yield port


def answered(port: int, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """All that comes back until the service hangs up, or nothing more comes for a while."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        try:
            for piece in pieces:
                one.sendall(piece)
                time.sleep(pause_s)
            one.shutdown(socket.SHUT_WR) if not pieces else None
            while data := one.recv(65_536):
                received += data
                if received.endswith(b"!"):
                    break
        except ConnectionError:
            pass
    return received


def status(received: bytes) -> int:
    return int(received.split()[1]) if received else 0


def ask(port: int, raw: bytes, n_answers: int = 1) -> list[bytes]:
    """Read so many answers, and return their bodies."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one, one.makefile("rb") as stream:
        one.sendall(raw)
        bodies = []
        for _ in range(n_answers):
            length = 0
            while (line := stream.readline()) not in {b"\r\n", b""}:
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            bodies.append(stream.read(length))
        return bodies


def test_a_connection_goes_on_after_a_large_answer_that_its_client_read_late(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one, one.makefile("rb") as stream:
        for _ in range(2):
            one.sendall(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
            # The answer is complete for the server long before its client begins to read it.
            time.sleep(0.5)
            while stream.readline() != b"\r\n":
                pass
            assert len(stream.read(BIG)) == BIG


def test_a_body_arrives_whole_or_in_chunks_and_so_do_requests_sent_ahead(port):
    body = b"a" * 1_000_000
    assert ask(port, POST + b"content-length: 1000000\r\n\r\n" + body) == [b"1000000"]
    chunked = b"".join(b"%x\r\n%b\r\n" % (1000, b"a" * 1000) for _ in range(100)) + b"0\r\n\r\n"
    assert ask(port, POST + b"transfer-encoding: chunked\r\n\r\n" + chunked) == [b"100000"]
    assert ask(port, GET * 10, 10) == [b"0"] * 10


def test_a_body_with_an_upgrade_to_http2_arrives_and_so_does_the_next_request(port):
    upgrade = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    raw = POST + upgrade + b"content-length: 5\r\n\r\nhello"
    assert ask(port, raw) == [b"5"]
    assert ask(port, raw + POST + b"content-length: 2\r\n\r\nhi", 2) == [b"5", b"2"]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (POST + b"x-a: b\r\n" * 5000, 431),
        (POST + b"x: " + b"a" * 40_000, 431),
        (b"GET /" + b"a" * 40_000, 431),
        (POST + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3000, 400),
        (POST + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + b"x-a: b\r\n" * 5000, 400),
        (POST + b"transfer-encoding: chunked\r\n\r\n1;x=" + b"a" * 1_000_000, 400),
        (POST + b"transfer-encoding: chunked\r\n\r\n" + b"0" * 1_000_000, 400),
        (b"nonsense\r\n\r\n", 400),
        (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nmore", 405),
        (POST, 408),
        (b"", 0),
        (b"\r\n" * 10, 408),
        (POST + b"content-length: 5\r\n\r\nhell", 408),
    ],
    ids=[
        "headers",
        "header",
        "url",
        "chunks",
        "trailers",
        "chunk-extension",
        "chunk-length",
        "nonsense",
        "tunnel",
        "upgraded-tunnel",
        "slow-head",
        "closed",
        "line-ends",
        "slow-body",
    ],
)
def test_what_never_becomes_a_request_is_refused(port, raw, expected):
    assert status(answered(port, *([raw] if raw else []))) == expected


def test_a_connection_that_sends_nothing_is_closed(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one:
        assert one.recv(1000).startswith(b"HTTP/1.1 408 ")
        assert one.recv(1000) == b""


def test_requests_sent_ahead_without_an_end_are_cut_off(port):
    with socket.create_connection(("127.0.0.1", port), timeout=60) as one, pytest.raises(ConnectionError):
        one.sendall(GET * 1_000_000)


def test_a_new_connection_takes_the_place_of_one_that_asks_for_nothing(port):
    idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(40)]
    assert ask(port, GET) == [b"0"]
    for one in idle:
        one.close()
