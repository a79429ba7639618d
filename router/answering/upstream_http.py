"""POST to an OpenAI-compatible upstream over connections that are kept.

By aiohttp, whose parser is C and which LiteLLM brings: above the round trip itself a call takes a fifth of httpx's
time. What the OpenAI SDK has to read, streams and errors, is handed to it as the `httpx.Response` it knows.
"""

from __future__ import annotations

import functools
import io
import urllib.request
import warnings
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from router.errors import UpstreamUnavailableError

if TYPE_CHECKING:
    import aiohttp
    import httpx

#: A host that does not take the connection by then is down.
CONNECT_TIMEOUT_S = 5.0

#: Seconds that an idle connection is kept: less than the 5 after which uvicorn, and what is built on it, closes one.
KEPT_S = 4.0

#: Seconds that the end of a TLS connection may take.
FAREWELL_S = 0.2

#: Longer bodies are sent in pieces, between which others have their turn.
_ONE_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer whose body has not been read. Read it, or close it: until then it holds a connection."""

    _reply: aiohttp.ClientResponse

    @property
    def is_success(self) -> bool:
        """Whether the status is of the 200s."""
        return 200 <= self._reply.status < 300

    async def read(self) -> bytes:
        """The body, decompressed."""
        return await self._reply.read()

    async def whole(self) -> httpx.Response:
        """Status, headers and body, for the OpenAI SDK's errors."""
        return _response(self._reply, content=await self._reply.read())

    def streamed(self) -> httpx.Response:
        """The same with a body that is read as it comes; closing it hangs up."""
        return _response(self._reply, stream=_body_class()(self._reply))


class UpstreamHttp:
    """One pool of connections. Made within the event loop that it belongs to.

    No bound on connections in use: the waiting requests of one dead candidate must not hold up the others. Cookies are
    not kept, redirects are answers. Proxies come from the environment (HTTPS_PROXY, NO_PROXY, ...), as with the SDK.
    """

    def __init__(self) -> None:
        import aiohttp
        import httpx

        with warnings.catch_warnings():
            # Of TLS the farewell, which uvloop otherwise waits 30 s for: an upstream that only writes would go on.
            warnings.filterwarnings("ignore", message="The ssl_shutdown_timeout parameter", category=DeprecationWarning)
            connector = aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEPT_S,
                # The authorities that the SDK trusts: certifi's, or those of SSL_CERT_FILE.
                ssl=httpx.create_ssl_context(),
                ssl_shutdown_timeout=FAREWELL_S,
            )
        # Not `trust_env`: it looks for passwords in ~/.netrc, in a thread for every call.
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answered:
        """Send; back when the headers of the answer are there.

        timeout_s: longest silence, in seconds, then and while the body is read.

        Raises aiohttp.ClientError, of which ServerTimeoutError is one, also for a URL or header that cannot be sent.
        """
        import aiohttp

        timeout = aiohttp.ClientTimeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), sock_read=timeout_s)
        data = body if len(body) <= _ONE_PIECE_BYTES else io.BytesIO(body)
        try:
            reply = await self._session.post(
                url, data=data, headers=headers, timeout=timeout, allow_redirects=False, proxy=_proxy_of(url)
            )
        except ValueError as error:
            if isinstance(error, aiohttp.ClientError):
                raise
            # A host or header that no request can be made of.
            raise aiohttp.InvalidURL(urlsplit(url).hostname or "", str(error)) from error
        return Answered(reply)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


def _response(reply: aiohttp.ClientResponse, **body: Any) -> httpx.Response:
    import httpx

    # The body is decompressed already, and httpx must not try again.
    # Raw, because servers write more than ASCII into them.
    headers = [(name, value) for name, value in reply.raw_headers if name.lower() != b"content-encoding"]
    request = httpx.Request(reply.method, str(reply.url))
    return httpx.Response(reply.status, headers=headers, request=request, **body)


@functools.cache
def _body_class() -> Any:
    # In a function because serving without the extra `dispatch` must not need httpx.
    import httpx

    class Body(httpx.AsyncByteStream):
        def __init__(self, reply: aiohttp.ClientResponse) -> None:
            self._reply = reply

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._reply.content.iter_any():
                yield chunk

        async def aclose(self) -> None:
            self._reply.close()

    return Body


@functools.lru_cache(maxsize=1024)
def _proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL, with the password if it names one."""
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
