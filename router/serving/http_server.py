"""Serve an ASGI application on a port of its own, inside the event loop that is running."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from router.answering.canned import create_app
from router.errors import ConfigError, DispatchNotInstalledError

if TYPE_CHECKING:
    from starlette.applications import Starlette

#: Returns the JSON that refuses what is no valid HTTP request: from its path, the status and a message.
Refusal = Callable[[str, int, str], bytes]

_LOOPBACK = "127.0.0.1"

#: Seconds after which an idle connection is closed.
KEEP_ALIVE_S = 75

#: Seconds between two looks at whether uvicorn has started; it offers nothing to wait on.
_POLL_S = 0.01


def bind_socket(host: str, port: int, *, share: bool = False, option: str = "--http") -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet; `port` 0 takes a free one.

    share: whether other processes of ours are bound to the same port (SO_REUSEPORT). option: the option of
    `elle serve` that sets the port.

    Raises ConfigError if the address is not available.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on a socket that says it is TCP. Without it, every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop what holds the port, or choose another one "
            f"({option}; 0 takes a free one) or another address of this machine (--host)."
        ) from error
    return listener


@contextlib.asynccontextmanager
async def serve_app(
    listener: socket.socket,
    app: Any,
    *,
    grace_s: Callable[[], float] | None = None,
    tls: ssl.SSLContext | None = None,
    refusal: Refusal | None = None,
) -> AsyncIterator[int]:
    """Serve an ASGI application on a bound socket while the context lasts. Yield the port.

    grace_s: called when the context ends; it returns the seconds after which requests in flight are cancelled. None
        waits for them without limit.
    tls: encrypts the connections; None serves them as they are.
    refusal: returns the JSON that refuses what is no valid HTTP request, given its path as far as it is known, a status
        and a message. None says it in plain words.

    Raises ImportError if uvicorn or httptools are not installed.
    """
    with listener:
        import uvicorn

        from router.serving.http_protocol import BoundedProtocol

        # uvicorn calls it as it would call the class.
        protocol: Any = functools.partial(BoundedProtocol, refusal=refusal)
        config = uvicorn.Config(
            app,
            http=protocol,
            log_config=None,
            log_level="warning",
            lifespan="off",
            access_log=False,
            # Clients keep idle connections for a minute or more. If we closed first, a request that is already on its
            # way would be lost.
            timeout_keep_alive=KEEP_ALIVE_S,
            proxy_headers=False,
            ws="none",
            ssl_context_factory=None if tls is None else lambda config, default: tls,
        )
        server = uvicorn.Server(config)
        # Signals are handled by the service, in `router.serving.shutdown`.
        server.capture_signals = contextlib.nullcontext
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                if task.done():
                    await task
                await asyncio.sleep(_POLL_S)
            yield int(listener.getsockname()[1])
        finally:
            # uvicorn declares this as a whole number of seconds, but a fraction works.
            config.timeout_graceful_shutdown = grace_s() if grace_s else None
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def serve_on_loopback(app: Starlette | None = None) -> AsyncIterator[str]:
    """Serve an OpenAI-compatible application on a free loopback port while the context lasts. Yield its base URL.

    app: the application; None serves the built-in upstream with canned answers. The base URL ends in `/v1`.

    Raises DispatchNotInstalledError if the extra `dispatch` is not installed.
    """
    try:
        # Imported here so that a missing package is reported before a port is taken.
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401

        app = app or create_app()
    except ImportError as error:
        raise DispatchNotInstalledError(
            "the built-in upstream with canned answers needs uvicorn and starlette, which are not installed; a policy "
            "of your own (--policy) without `api_base: canned` does not."
        ) from error
    async with serve_app(bind_socket(_LOOPBACK, 0), app) as port:
        yield f"http://{_LOOPBACK}:{port}/v1"
