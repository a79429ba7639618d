"""Upstreams that answer too much, too long or nonsense: bounded, the upstream's fault, and nobody else waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.answering.upstream import Upstream
from router.answering.upstreams import bounded_httpx
from router.errors import DispatchError, UpstreamRejectedError, UpstreamUnavailableError
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery
from tests.router.answering.upstreams import hostile_upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: Through our own connection, and through LiteLLM.
PROVIDERS = ["openai", "hosted_vllm"]

FLOAT_MAX = sys.float_info.max

#: Bytes that a whole answer may have in these tests.
MOST = 4 * 2**20

#: Seconds of work of this process during which the loop may stand still: a tenth of what 1 MB of error once took.
STANDSTILL_S = 0.6


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run the upstream in a thread with a loop of its own, so that only its reader holds up the loop of the test."""
    found: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with hostile_upstream.hostile_upstream() as address:
            found.append(address)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    stop.set()
    thread.join(30)


def candidate(provider: str, url: str, mode: str, **more: Any) -> Candidate:
    base = f"{url}/{mode}/v1"
    return Candidate(name="c", model=f"{provider}/x", api_base=base, timeout_s=60, max_answer_bytes=MOST, **more)


async def ask(upstream: Upstream, method: str, asked: Candidate) -> Any:
    query = RouteQuery.from_prompt("hello")
    if method == "unary":
        return await upstream.complete(asked, query)
    async with contextlib.aclosing(upstream.stream(asked, query)) as chunks:
        return [chunk async for chunk in chunks]


@contextlib.asynccontextmanager
async def standstill() -> AsyncIterator[list[float]]:
    """Measure the longest time that the loop stood still meanwhile; yield it in a list.

    It is in seconds of work of this process. Those in which other processes had the processor are nobody's fault here.
    """
    longest = [0.0]

    async def beat() -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.005)
            now = time.process_time()
            longest[0], last = max(longest[0], now - last), now

    beating = asyncio.create_task(beat())
    try:
        yield longest
        await asyncio.sleep(0.01)
    finally:
        beating.cancel()


def peak_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


TOO_MUCH = [
    *(("unary", mode) for mode in ("endless", "bomb", "long-head", "early-heads", "lists")),
    *(("stream", mode) for mode in ("events-one-line", "events-lines", "events-comments", "endless")),
]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(("method", "mode"), TOO_MUCH)
async def test_an_answer_without_an_end_is_cut_off_in_bounded_memory(
    upstream: Upstream, url: str, provider: str, method: str, mode: str
) -> None:
    before = peak_mb()
    # If it were not cut off, this would be the error of a time that is over.
    with pytest.raises(UpstreamUnavailableError):
        await ask(upstream, method, candidate(provider, url, mode))
    assert peak_mb() - before < 100


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("status", [400, 500])
async def test_an_error_of_a_megabyte_does_not_stop_the_loop(
    upstream: Upstream, url: str, provider: str, status: int
) -> None:
    async with standstill() as longest:
        with pytest.raises(DispatchError) as caught:
            await ask(upstream, "unary", candidate(provider, url, f"{status}-1000000"))
    assert longest[0] < STANDSTILL_S
    assert caught.value.http_status == status
    assert isinstance(caught.value, UpstreamRejectedError if status == 400 else UpstreamUnavailableError)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_what_nests_too_deeply_is_the_upstreams_fault(upstream: Upstream, url: str, provider: str) -> None:
    try:
        answered = await upstream.complete(candidate(provider, url, "deep"), RouteQuery.from_prompt("hello"))
    except UpstreamUnavailableError:
        return
    # LiteLLM leaves fields out that it does not know: then there is nothing left to complain of.
    assert provider == "hosted_vllm"
    assert answered["choices"][0]["message"]["content"] == "forty-two"


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("mode", "field", "value"),
    [("nan", "score", None), ("huge-number", "created", FLOAT_MAX), ("long-number", "created", FLOAT_MAX)],
)
async def test_a_number_that_json_does_not_have_is_mended(
    upstream: Upstream, url: str, provider: str, mode: str, field: str, value: float | None
) -> None:
    answered = await upstream.complete(candidate(provider, url, mode), RouteQuery.from_prompt("hello"))
    assert answered["choices"][0]["message"]["content"] == "forty-two"
    if provider == "openai":
        assert answered[field] == value
    json.dumps(answered, allow_nan=False)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_probabilities_of_a_thousand_tokens_arrive_and_litellm_does_not_see_them(
    upstream: Upstream, url: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    watched = bounded_httpx.holds_more
    monkeypatch.setattr(
        bounded_httpx, "holds_more", lambda value, **most: seen.append(json.dumps(value)) or watched(value, **most)
    )
    answered = await upstream.complete(candidate(provider, url, "probabilities"), RouteQuery.from_prompt("hello"))
    expected = json.loads(hostile_upstream.BODIES["probabilities"])
    assert answered["choices"][0]["logprobs"] == expected["choices"][0]["logprobs"]
    assert answered["choices"][0]["message"]["content"] == "forty-two"
    assert [len(one) < 1000 for one in seen] == ([] if provider == "openai" else [True])


@pytest.mark.parametrize(
    ("provider", "mode"),
    [
        ("openai", "too-many-probabilities"),
        ("hosted_vllm", "too-many-probabilities"),
        ("hosted_vllm", "many-in-message"),
    ],
)
async def test_more_values_than_are_read_rest_no_candidate_because_a_caller_may_have_asked_for_them(
    upstream: Upstream, url: str, provider: str, mode: str
) -> None:
    with pytest.raises(UpstreamUnavailableError, match="top_logprobs") as caught:
        await upstream.complete(candidate(provider, url, mode), RouteQuery.from_prompt("hello"))
    assert not caught.value.counts


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_half_of_a_surrogate_pair_is_paid_for_and_arrives(upstream: Upstream, url: str, provider: str) -> None:
    answered = await upstream.complete(candidate(provider, url, "half-surrogate"), RouteQuery.from_prompt("hello"))
    assert answered["choices"][0]["message"]["content"].startswith("half ")


async def test_a_call_that_is_given_up_ends_in_the_other_thread_too(upstream: Upstream, url: str) -> None:
    waiting = asyncio.create_task(ask(upstream, "unary", candidate("hosted_vllm", url, "silence")))
    async with asyncio.timeout(20):
        while "silence" not in hostile_upstream.asked:  # noqa: ASYNC110  (the upstream lives in another loop)
            await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (await upstream.complete(candidate("hosted_vllm", url, "ok"), RouteQuery.from_prompt("hello")))["choices"]
