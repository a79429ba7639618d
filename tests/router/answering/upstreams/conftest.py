"""What the tests of upstreams share: one upstream for each file, because loading it takes seconds."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from router.answering.upstream import Upstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.load()
    yield upstream
    await upstream.aclose()
