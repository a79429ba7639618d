"""Send requests to an OpenAI-compatible upstream over connections that are kept.

By aiohttp, whose parser is C and which LiteLLM brings: above the round trip itself a call takes a fifth of httpx's
time. Nothing is read without a bound: not an answer, not the body of an error, not the time that either takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import urllib.request
import warnings
import zlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from router.answering.reading.small_parts import PART_BYTES, in_small_parts
from router.answering.reading.sse import too_long
from router.errors import UpstreamUnavailableError
from router.intake.answer_budget import HeldAnswer

if TYPE_CHECKING:
    import ssl

    import aiohttp
    from aiohttp.client_proto import ResponseHandler

#: A host that does not take the connection by then is down.
CONNECT_TIMEOUT_S = 5.0

#: Seconds that an idle connection is kept: less than the 5 after which uvicorn, and what is built on it, closes one.
KEPT_S = 4.0

#: Seconds that the end of a TLS connection may take.
FAREWELL_S = 0.2

#: The content encodings that are unpacked, and how many bytes at a time: a few kilobytes may hold gigabytes.
PACKED = frozenset({"gzip", "x-gzip", "deflate"})
_UNPACKED_BYTES = 64 * 1024

#: Heads of a status of the 100s that may come before the head of the answer.
MAX_EARLY_HEADS = 16

#: Bytes that are parsed in one step while a head is read. The shortest head has some twenty.
_HEADS_BYTES = 2048

_SWITCHING = 101

#: Bytes of the body of an error that are read, and seconds that they may take.
MAX_ERROR_BYTES = 64 * 1024
ERROR_BODY_S = 5.0

#: The parts of a body, sent one behind the other.
Body: TypeAlias = tuple[bytes | memoryview, ...]

#: Longer bodies are sent in pieces of this many bytes, between which others have their turn. A body with pictures is
#: never put together: copying 30 MB takes 20 ms, during which no other thread runs.
_PIECE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An HTTP answer of an upstream whose headers have arrived and whose body has not been read.

    Read it, or close it: until then it holds a connection.
    """

    _reply: aiohttp.ClientResponse

    @property
    def is_success(self) -> bool:
        """True if the HTTP status lies between 200 and 299, which means that the upstream accepted the request."""
        return 200 <= self._reply.status < 300

    @property
    def status(self) -> int:
        """The HTTP status code of the answer, for example 429."""
        return self._reply.status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers of the answer as raw bytes, because servers write more than ASCII into them."""
        # The body is decompressed already, and nobody must try again.
        return [(name, value) for name, value in self._reply.raw_headers if name.lower() != b"content-encoding"]

    async def read(self, max_bytes: int, held: HeldAnswer, parts: AsyncIterable[bytes] | None = None) -> bytes:
        """Read the whole body and return it decompressed; `held` counts its bytes. `parts` is the body if it has begun.

        Raises UpstreamUnavailableError if it is longer than the bound, or if all answers together are too long.
        """
        if (declared := self._reply.content_length) is not None and declared > max_bytes:
            self.close()
            raise too_long(max_bytes)
        body, length = list[bytes](), 0
        try:
            async for part in parts or self.parts():
                body.append(part)
                length += len(part)
                held.hold(length)
                if length > max_bytes:
                    break
            else:
                # In one copy, during which other threads run.
                return b"".join(body)
        except BaseException:
            self.close()
            raise
        self.close()
        raise too_long(max_bytes)

    async def error_body(self) -> bytes:
        """Return the first `MAX_ERROR_BYTES` of the body, or the part that arrives within `ERROR_BODY_S` seconds."""
        import aiohttp

        body = bytearray()
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, UpstreamUnavailableError):
            async with asyncio.timeout(ERROR_BODY_S):
                async for part in self.parts():
                    body += part
                    if len(body) >= MAX_ERROR_BYTES:
                        break
        self.close()
        return bytes(body[:MAX_ERROR_BYTES])

    def parts(self) -> AsyncIterator[bytes]:
        """Yield the decompressed body in small parts, as it arrives."""
        packed = self._reply.headers.get("content-encoding", "").strip().lower() in PACKED
        return in_small_parts(unpacked(self._chunks()) if packed else self._chunks())

    async def _chunks(self) -> AsyncIterator[bytes]:
        # Not all that is there at once: it may be thousands of tiny chunks. aiohttp's own loop over chunks has no end
        # for the second answer without a body (status 204), because all of these share one reader.
        content = self._reply.content
        while not content.at_eof():
            data, _ = await content.readchunk()
            yield data

    def close(self) -> None:
        """Close the connection, unless the body has been read to its end."""
        self._reply.close()


class UpstreamHttp:
    """Sends requests over a pool of connections that stay open between requests.

    It is made within the event loop that it belongs to.

    No bound on connections in use: the waiting requests of one dead candidate must not hold up the others. Cookies are
    not kept, redirects are answers. Proxies come from the environment (HTTPS_PROXY, NO_PROXY, ...), as with the SDK.

    Args:
        trusted: the certificate authorities, from `trusted_authorities`.
    """

    def __init__(self, trusted: ssl.SSLContext) -> None:
        import aiohttp

        with warnings.catch_warnings():
            # Of TLS the farewell, which uvloop otherwise waits 30 s for: an upstream that only writes would go on.
            warnings.filterwarnings("ignore", message="The ssl_shutdown_timeout parameter", category=DeprecationWarning)
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEPT_S,
                ssl=trusted,
                ssl_shutdown_timeout=FAREWELL_S,
            )
        bound_heads(connector)
        # Not `trust_env`: it looks for passwords in ~/.netrc, in a thread for every call.
        # aiohttp would unpack up to 32 MB in one step. Twice the buffer, or a sixteenth of as many chunks, is parsed in
        # one step.
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=PART_BYTES,
        )

    async def send(
        self, method: str, url: str, body: Body, headers: Mapping[str, str], *, timeout_s: float
    ) -> HttpAnswer:
        """Send a request and return when the headers of the answer have arrived.

        timeout_s: longest silence, in seconds, then and while the body is read.

        Raises aiohttp.ClientError, of which ServerTimeoutError is one, also for a URL or header that cannot be sent.
        """
        import aiohttp

        headers = {"Accept-Encoding": "gzip, deflate", **headers}
        timeout = aiohttp.ClientTimeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), sock_read=timeout_s)
        length = sum(map(len, body))
        if length <= _PIECE_BYTES:
            data: Any = b"".join(body) or None
        else:
            # The length must be said: without it aiohttp sends chunks, which not every upstream takes.
            data, headers = _in_pieces(body), {**headers, "Content-Length": str(length)}
        try:
            reply = await self._session.request(
                method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False, proxy=_proxy_of(url)
            )
        except ValueError as error:
            if isinstance(error, aiohttp.ClientError):
                raise
            # A host or header that no request can be made of.
            raise aiohttp.InvalidURL(urlsplit(url).hostname or "", str(error)) from error
        return HttpAnswer(reply)

    async def aclose(self) -> None:
        """Close the connections of the pool."""
        await self._session.close()


async def unpacked(parts: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Yield a gzip or zlib body unpacked, at most `_UNPACKED_BYTES` at a time.

    Raises UpstreamUnavailableError if the body is neither.
    """
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    async for part in parts:
        while part and not unpacker.eof:
            try:
                yield unpacker.decompress(part, _UNPACKED_BYTES)
            except zlib.error as error:
                raise UpstreamUnavailableError("the upstream sent a compressed answer that is malformed.") from error
            part = unpacker.unconsumed_tail


def bound_heads(connector: aiohttp.BaseConnector) -> None:
    """Let the connections of aiohttp that are made from now on give up on servers that send only early heads.

    aiohttp has no setting for this. It keeps every early head that a server sends, however many they are.
    """
    connector._factory = functools.partial(_protocol(), loop=asyncio.get_running_loop())


@functools.cache
def _protocol() -> type[ResponseHandler]:
    """Return aiohttp's protocol of a connection with a bound on early heads. It parses in small pieces."""
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.http import HttpProcessingError

    class FewEarlyHeads(ResponseHandler):
        _n_early = 0

        def data_received(self, data: bytes) -> None:
            # The parser makes an object of each head in one step, and only then is asked how many they are. A body it
            # parses by itself no further than somebody reads.
            while not self._in_body and len(data) > _HEADS_BYTES:
                super().data_received(data[:_HEADS_BYTES])
                data = data[_HEADS_BYTES:]
                if self._n_early > MAX_EARLY_HEADS or self.exception() is not None:
                    return
            super().data_received(data)

        @property
        def _in_body(self) -> bool:
            return self._payload is not None and not self._payload.is_eof()

        def feed_data(self, data: Any, *size: int) -> None:
            if self._n_early > MAX_EARLY_HEADS:
                # The connection has been given up; what else the piece brought does not count.
                return
            code = data[0].code
            self._n_early = self._n_early + 1 if 100 <= code < 200 and code != _SWITCHING else 0
            if self._n_early <= MAX_EARLY_HEADS:
                super().feed_data(data, *size)
                return
            if self.transport is not None:
                self.transport.abort()
            self.set_exception(HttpProcessingError(code=502, message="too many early heads"))

    return FewEarlyHeads


async def _in_pieces(body: Body) -> AsyncIterator[bytes]:
    for part in body:
        for at in range(0, len(part), _PIECE_BYTES):
            yield bytes(part[at : at + _PIECE_BYTES])


def trusted_authorities() -> ssl.SSLContext:
    """Return the certificate authorities that the OpenAI SDK trusts: certifi's, or those of SSL_CERT_FILE."""
    import httpx

    return httpx.create_ssl_context()


@functools.lru_cache(maxsize=1024)
def _proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, with its password if it has one."""
    parts, named = urlsplit(url), urllib.request.getproxies()
    proxy = named.get(parts.scheme) or named.get("all")
    if not proxy or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in {"http", "https"}:
        raise UpstreamUnavailableError(
            f"the environment names a proxy of scheme {scheme!r}, not http or https; set NO_PROXY for this host."
        )
    return proxy
