"""Run a real service in a thread: gRPC on a free port, the real encoder, LiteLLM over loopback HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from router.serving.server import RunningService, serving
from router.serving.settings import ServerSettings


@contextmanager
def running_service(settings: ServerSettings) -> Iterator[str]:
    """Run a service in a thread with an event loop of its own; yield its address, and drain it at the end."""
    with running(settings) as service:
        yield service.address


@contextmanager
def running(settings: ServerSettings) -> Iterator[RunningService]:
    """Run a service as `running_service` does; yield all that is known of it."""
    ready, stop = threading.Event(), threading.Event()
    services: list[RunningService] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        async with serving(settings) as service:
            services.append(service)
            ready.set()
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main, name="service")
    thread.start()
    try:
        assert ready.wait(60)
        if failures:
            raise failures[0]
        yield services[0]
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures
