"""What an upstream sends while it thinks is a sign of life, and its errors in status 200 lead to another candidate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from router.answering import time_limits
from router.attempts import AttemptOutcome as A
from router.errors import UpstreamInterruptedError, UpstreamTimeoutError
from router.values import RouteQuery
from tests.router.answering.dispatch.dispatch_stack import KEY, Stack, candidate, dispatching, pin
from tests.router.answering.upstreams import real_streams as real
from tests.router.answering.upstreams.real_streams import Step, data, reported

pytestmark = pytest.mark.asyncio(loop_scope="package")

#: Half a second of comments, which is longer than the first content may take in these tests.
COMMENTS: list[Step] = [b": still here\n\n", real.PAUSE] * 10

#: What the upstream of each path sends.
STREAMS: dict[str, list[Step]] = {
    "thinks": [real.HEAD, *COMMENTS, real.TEXT + real.STOP + real.DONE],
    "thinks-only": [real.HEAD, *COMMENTS, real.STAY],
    "silent": [real.HEAD, real.STAY],
    "fails": [real.HEAD, data(reported(code=502, message="no room"))],
    "filters-late": [
        real.HEAD + real.FIRST,
        data(reported(code="content_filter", param="messages", message="not this")),
    ],
    "limits": [real.HEAD + real.TEXT + real.STOP + real.DONE],
}


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def url() -> AsyncIterator[str]:
    async with real.sending(STREAMS.__getitem__) as url:
        yield url


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sk-test")


def asks(
    folder: Path, url: str, provider: str, first: str, second: str = "limits"
) -> AbstractAsyncContextManager[Stack]:
    """Return the context of a router with two candidates, of which the first is pinned or chosen."""
    changes = {"first_token_timeout_s": 0.25, "retries": 0, "timeout_s": 20}
    both = [
        candidate(name, f"{url}/{path}/v1", model=f"{provider}/x", **changes)
        for name, path in (("small", first), ("large", "limits"))
    ]
    return dispatching(folder, *both, rule={"kind": "gain", "thresholds": [0.99]}, safe_default="small")


async def pinned(stack: Stack) -> list[Any]:
    return await stack.stream(RouteQuery.from_prompt("hi", overrides=pin("small")))


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_an_upstream_that_sends_comments_may_think_longer_than_one_that_is_silent(
    folder: Path, url: str, provider: str
) -> None:
    async with asks(folder, url, provider, "thinks") as stack:
        assert "".join(step.text for step in await pinned(stack)) == "forty-two"
    async with asks(folder, url, provider, "silent") as stack:
        with pytest.raises(UpstreamTimeoutError, match=r"silent for 0\.25 s"):
            await pinned(stack)


async def test_comments_alone_are_not_waited_for_without_end(
    folder: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limits, "MOST_THINKING_S", 0.4)
    async with asks(folder, url, "openai", "thinks-only") as stack:
        with pytest.raises(UpstreamTimeoutError):
            await pinned(stack)


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_after_an_error_in_status_200_another_candidate_answers_and_tells_its_rate_limits(
    folder: Path, url: str, provider: str
) -> None:
    async with asks(folder, url, provider, "fails") as stack:
        first, *_ = await stack.stream(RouteQuery.from_prompt("hi"))
    assert [(one.candidate, one.outcome, one.http_status) for one in first.delivery.attempts] == [
        ("small", A.UNAVAILABLE, 502),
        ("large", A.ANSWERED, None),
    ]
    assert first.delivery.rate_limits == {"x-ratelimit-remaining-requests": "7"}


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_an_error_in_the_middle_of_a_stream_comes_with_the_providers_code_and_words(
    folder: Path, url: str, provider: str
) -> None:
    async with asks(folder, url, provider, "filters-late") as stack:
        with pytest.raises(UpstreamInterruptedError, match=r"broke off.* It says: not this") as caught:
            await pinned(stack)
    assert (caught.value.provider_code, caught.value.provider_param) == ("content_filter", "messages")
