"""A real service, started once: real encoder, the shipped probe, gRPC on a free port, LiteLLM over loopback HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from probes.encoder import MINILM_L6, find_encoder
from probes.errors import EncoderError
from router.client import RouterClient
from router.pipeline import Router
from router.server import ServerSettings, serving


@contextmanager
def running_service(settings: ServerSettings) -> Iterator[str]:
    """A service in a thread with an event loop of its own; yields its address, drains at the end."""
    ready, stop = threading.Event(), threading.Event()
    address: list[str] = []
    failures: list[BaseException] = []

    async def serve() -> None:
        async with serving(settings) as running:
            address.append(running.address)
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
        yield address[0]
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures


@pytest.fixture(scope="session")
def _real_encoder() -> None:
    """Without the real encoder nothing here can be tested, and that is said."""
    try:
        find_encoder(MINILM_L6)
    except EncoderError as error:
        pytest.skip(f"the real encoder is not on this machine: {error}")


@pytest.fixture(scope="session")
def address(_real_encoder: None) -> Iterator[str]:
    """Address of the service on its embedded default."""
    with running_service(ServerSettings(port=0, drain_s=1)) as address:
        yield address


@pytest.fixture(scope="session")
def router(_real_encoder: None) -> Router:
    """The same policy in this process."""
    return Router.from_files()


@pytest.fixture
def client(address: str) -> Iterator[RouterClient]:
    with RouterClient(address) as client:
        yield client
