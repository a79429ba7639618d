"""An ASGI application on a port of its own, within the event loop that is running."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from router.errors import ConfigError

#: Seconds that an idle connection of a client is kept.
KEPT_S = 75

#: Until then the caller of `listening` is told nothing but the port.
_POLL_S = 0.01


def bound(host: str, port: int, *, share: bool = False) -> socket.socket:
    """A socket bound to the address; `port` 0 takes a free one. It listens once it is served.

    share: whether other processes of ours are bound to the same port (SO_REUSEPORT).

    Raises ConfigError where the address is not to be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only a socket that says it is TCP gets TCP_NODELAY from asyncio; without, every answer waits 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); stop what holds the port, or choose another one (0 "
            f"takes a free one)."
        ) from error
    return listener


@contextlib.asynccontextmanager
async def serving_on(
    listener: socket.socket, app: Any, *, grace_s: Callable[[], float] | None = None
) -> AsyncIterator[int]:
    """Serve `app` on a bound socket, which is closed in the end; yields the port.

    grace_s: asked when the context ends, for how many seconds requests in work may still take; then they are cancelled.
        None waits for them.

    Needs uvicorn and httptools: raises ImportError without.
    """
    with listener:
        import uvicorn

        from router.serving.http_protocol import BoundedProtocol

        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            log_config=None,
            log_level="warning",
            lifespan="off",
            access_log=False,
            # Pools and gateways keep connections for a minute and more; who closes first while the other writes loses.
            timeout_keep_alive=KEPT_S,
            proxy_headers=False,
            ws="none",
        )
        server = uvicorn.Server(config)
        # The signals belong to the service around us.
        server.capture_signals = contextlib.nullcontext
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                if task.done():
                    await task
                await asyncio.sleep(_POLL_S)
            yield int(listener.getsockname()[1])
        finally:
            # Its type is a whole number of seconds, which is no reason to wait for one.
            config.timeout_graceful_shutdown = grace_s() if grace_s else None
            server.should_exit = True
            await task
