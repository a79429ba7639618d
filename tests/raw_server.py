"""A TCP server on loopback for tests, which leaves no connection open when it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def raw_server(serve: Serve) -> AsyncIterator[int]:
    """Serve each connection with `serve`; yield the port. At the end every connection that is left is aborted.

    A connection that outlives its event loop is collected later, and the warning would fail whichever test runs then.
    """
    tasks: set[asyncio.Task[None]] = set()
    transports: list[asyncio.Transport] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        transports.append(writer.transport)  # type: ignore[arg-type]
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for task in tuple(tasks):
                task.cancel()
            for transport in transports:
                transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)
