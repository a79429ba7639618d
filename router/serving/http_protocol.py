"""Extend uvicorn's HTTP protocol by bounds on heads, chunks, pipelined requests, connections and time.

Importing this file needs uvicorn and httptools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Most bytes of the first line and the headers of a request.
MAX_HEAD_BYTES = 32 * 1024

#: Bytes that are parsed at a time while a head is read. A header may be as short as four bytes, so a piece has few.
_PIECE_BYTES = 8 * 1024

#: Most requests that a client may send ahead before it has read the answers.
MAX_PIPELINED = 16

#: Most connections. If there are more, the one that has waited longest for a whole request is closed.
MAX_CONNECTIONS = 1000

#: Seconds within which a client must send a whole head, and after it the whole body.
HEAD_S, BODY_S = 10.0, 60.0

#: Seconds that a client may leave an answer unread.
STALLED_S = 60.0

#: Most bytes that a chunk needs besides what it holds: its length and line ends. An extension may follow the length.
_CHUNK_HEAD_BYTES = 32

#: Number of chunks of a body that may be tiny, and the bytes that chunks must hold on average if there are more.
_FREE_CHUNKS, _MIN_CHUNK_BYTES = 1024, 64

_REASONS = {
    400: "Bad Request",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """Reads and answers the requests of one connection within bounds.

    A request to upgrade the connection, which Java's client sends to ask for HTTP/2, is answered as if it did not ask,
    which the standard allows. httptools would throw the body of such a request away.
    """

    #: The method of a request that asks to upgrade, until its head is parsed once more; empty otherwise.
    _upgraded: bytes

    def __init__(self, *args: Any, refusal: Callable[[str, int, str], bytes] | None = None, **more: Any) -> None:
        """Take what uvicorn gives, and what `router.serving.http_server.serve_app` calls `refusal`."""
        super().__init__(*args, **more)
        self._refusal = refusal
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for a request of a new connection, or refuse the connection if there are too many."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._reset()
        #: When the connection began to wait for the rest of a request; None while a request is answered.
        self.waits_since: float | None = self.loop.time()
        self._limit(HEAD_S)
        if len(self.connections) > MAX_CONNECTIONS and not self._make_room():
            self._refuse(503, f"all {MAX_CONNECTIONS:,} connections are busy; try again later.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of a connection that has closed."""
        self._limit(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes that have arrived; a head is parsed in small pieces."""
        self._unset_keepalive_if_required()
        if self._timer is None and not self._answering:
            self._limit(HEAD_S)
        while data and not self.transport.is_closing():
            piece = data if self._in_body else data[:_PIECE_BYTES]
            data = data[len(piece) :]
            in_head = not self._in_body
            self._sent_bytes += 0 if in_head else len(piece)
            self._parse(piece)
            if self._in_body and self._beside_body > 2 * MAX_HEAD_BYTES and not self.transport.is_closing():
                self._refuse(400, "the chunks of the body must come without long extensions.")
            if in_head and not self._in_body:
                self._head_bytes += len(piece)
                if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                    self._refuse(431, f"the headers must be at most {MAX_HEAD_BYTES:,} bytes.")

    def _parse(self, piece: bytes) -> None:
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._read_as_plain(piece[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self._refuse(400, "the request must be valid HTTP/1.1.")

    def _read_as_plain(self, rest: bytes) -> None:
        """Parse the head once more without the upgrade, and then the bytes behind it."""
        if self._upgraded == b"CONNECT":
            # It asks for a tunnel whatever its headers say, so that parsing it once more would never end.
            self._refuse(405, "CONNECT is not served, because this is no proxy; send the request to its path.")
            return
        # The parser that saw the upgrade reads nothing more. A fresh one takes the same head for a plain request.
        self.parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/1.1" % (self._upgraded, self.url)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in {b"upgrade", b"http2-settings"}]
        self._reset()
        self._parse(b"\r\n".join([*lines, b"", b""]) + rest)

    def on_message_begin(self) -> None:
        """Begin to count what a new request sends. It may come ahead, while another one is answered."""
        super().on_message_begin()
        self._reset()
        self._limit(HEAD_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a header of the request, or count a trailer behind its body.

        `data_received` counts the bytes of a head.
        """
        self._header_bytes += len(name) + len(value) + 4
        if self._in_body and self._header_bytes > MAX_HEAD_BYTES:
            raise ValueError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to work on the request, because all of its headers have arrived."""
        if self.parser.should_upgrade():
            self._upgraded = self.parser.get_method()
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            # A client that sends so many requests without reading answers would not read a refusal either.
            self.transport.abort()
            raise ValueError
        self._in_body = True
        self.waits_since = self.loop.time()
        self._limit(BODY_S)
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Count a chunk of the body."""
        self._n_chunks += 1
        if self._n_chunks > _FREE_CHUNKS and self._n_chunks * _MIN_CHUNK_BYTES > self._body_bytes:
            raise ValueError

    def on_body(self, body: bytes) -> None:
        """Count the bytes of a part of the body, and pass the part on."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the timer for the client, because the whole request has arrived."""
        if self._upgraded:
            return
        self._reset()
        self.waits_since = None
        self._limit(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer, and begin to wait for the next request. The next request may have arrived already."""
        if not self._in_body and not self.pipeline:
            self.waits_since = self.loop.time()
        super().on_response_complete()
        if (self.pipeline or self.flow.write_paused) and not self.transport.is_closing():
            self.flow.pause_reading()

    def pause_writing(self) -> None:
        """Give the client some time to read, because it has stopped reading."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on, because the client reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        # `on_response_complete` stops reading if the client has not read the answer yet. Now the next request may come.
        if not self.pipeline and not self._answering and not self.transport.is_closing():
            self.flow.resume_reading()

    @property
    def _beside_body(self) -> int:
        """The bytes sent for a body that are neither part of it nor needed for its chunks."""
        return self._sent_bytes - self._body_bytes - _CHUNK_HEAD_BYTES * self._n_chunks

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _reset(self) -> None:
        self._in_body = False
        self._upgraded = b""
        self._head_bytes = self._header_bytes = self._sent_bytes = self._body_bytes = self._n_chunks = 0

    def _limit(self, seconds: float | None) -> None:
        """Give the client this many seconds from now; None sets no limit."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if self.pipeline or (self._answering and not self._in_body):
            # Requests that were sent ahead wait until the current one is answered, which is not the client's fault.
            self._limit(HEAD_S)
        elif not self.transport.is_closing():
            self._refuse(408, "the request did not come whole in time; send it faster.")

    def _make_room(self) -> bool:
        """Close the connection that has waited longest for a whole request. Return whether there was one."""
        waiting = [one for one in self.connections if one is not self and one.waits_since is not None]
        if not waiting:
            return False
        oldest: Any = min(waiting, key=lambda one: one.waits_since)
        # `connection_lost` comes only later. Until then the next new connection would count this one and choose it too.
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def _refuse(self, status: int, message: str) -> None:
        """Close the connection, with an error as its last answer unless another answer has begun."""
        if not (self._answering and self.cycle.response_started):
            kind = "text/plain" if self._refusal is None else "application/json"
            body = message.encode() if self._refusal is None else self._refusal(self._path(), status, message)
            head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {kind}\r\nconnection: close\r\n"
            self.transport.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        self.transport.close()

    def _path(self) -> str:
        """Return the path of the request, or an empty text if it has none yet."""
        try:
            return unquote(httptools.parse_url(self.url).path or b"")
        except httptools.HttpParserInvalidURLError:
            return ""
