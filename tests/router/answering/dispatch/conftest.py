"""Fixtures of the dispatch tests: one upstream for the whole folder, and a router with its dispatcher for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from router.answering.upstreams.litellm_import import import_litellm
from tests.router.answering.dispatch.dispatch_stack import KEY, Stack, Upstream, candidate, dispatching


@pytest.fixture(scope="package", autouse=True)
def _imported() -> None:
    """Import LiteLLM before the first test, whose deadline would pass meanwhile on a busy machine."""
    import_litellm()


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server() -> AsyncIterator[Upstream]:
    async with Upstream().running() as upstream:
        yield upstream


@pytest.fixture
def upstream(server: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """Return the server, with nothing remembered."""
    monkeypatch.setenv(KEY, "sk-test")
    server.sent, server.keys, server.answer = [], [], None
    return server


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the policies; the probe beside them is fitted once."""
    return tmp_path_factory.mktemp("policies")


@pytest_asyncio.fixture(loop_scope="package")
async def stack(folder: Path, upstream: Upstream) -> AsyncIterator[Stack]:
    """Return a router and its dispatcher for two candidates at the same upstream."""
    async with dispatching(folder, candidate("small", upstream.url), candidate("large", upstream.url)) as stack:
        yield stack
