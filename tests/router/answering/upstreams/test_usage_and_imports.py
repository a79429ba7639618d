"""LiteLLM invents no tokens for us, and imports nothing once the candidates have been looked at."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from router.answering.formats.lookup import format_of
from router.answering.reading.call_notes import CallNotes
from router.answering.upstream import Upstream
from router.errors import DispatchError
from router.policies.candidates.candidate import Candidate
from router.values import ApiFormat, RouteQuery
from tests.router.answering.upstreams import real_streams as real
from tests.router.answering.upstreams.real_streams import Step
from tests.router.faults import answer

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What the server sends next.
sent: list[Step] = []

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with real.sending(lambda _: sent) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream(formats=tuple(ApiFormat))
    await upstream.load()
    yield upstream
    await upstream.aclose()


def send(body: Any, status: str = "200 OK") -> None:
    raw = json.dumps(body).encode()
    head = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(raw)}", "connection: close")
    sent[:] = ["\r\n".join((*head, "", "")).encode(), raw]


def stream(*chunks: Any) -> None:
    sent[:] = [real.HEAD, *(b"data: " + json.dumps(one).encode() + b"\n\n" for one in chunks), b"data: [DONE]\n\n"]


def chunk(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]} | more


def asked(url: str, provider: str) -> Candidate:
    return Candidate(name="c", model=f"{provider}/m", api_base=f"{url}/v1", timeout_s=60)


def query_of(api: ApiFormat) -> RouteQuery:
    return RouteQuery(({"role": "user", "content": "hi"},), api_format=api, parameters={"max_tokens": 9})


FORMATS = [ApiFormat.OPENAI_CHAT, ApiFormat.ANTHROPIC_MESSAGES, ApiFormat.OPENAI_RESPONSES]


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "uncounted"])
@pytest.mark.parametrize("api", FORMATS)
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "mistral"])
async def test_tokens_are_those_of_the_upstream_or_unknown(
    upstream: Upstream, url: str, provider: str, api: ApiFormat, counted: bool
) -> None:
    candidate, query = asked(url, provider), query_of(api)
    whole = answer() | {"usage": USAGE}
    send(whole if counted else {key: value for key, value in whole.items() if key != "usage"})
    notes = CallNotes()
    body = await upstream.complete(candidate, query, notes)
    found = format_of(api).tally()(body) if notes.has_usage else None
    assert (found is not None and (found.input, found.output) == (10, 2)) == counted
    last = [chunk("", choices=[], usage=USAGE)] if counted else []
    stream(chunk("a"), chunk(" b", "stop"), *last)
    notes, tally, seen = CallNotes(), format_of(api).tally(), []
    async for event in upstream.stream(candidate, query, notes):
        seen.append(tally(event) if notes.has_usage else None)
    counts = [one for one in seen if one is not None]
    assert [(one.input, one.output) for one in counts[-1:]] == ([(10, 2)] if counted else [])


class _Watch:
    """Notes what is looked for among the modules that can be imported."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        self.names.append(name)


async def test_nothing_is_imported_once_the_candidates_have_been_looked_at(upstream: Upstream, url: str) -> None:
    candidates = [
        asked(url, provider) for provider in ("hosted_vllm", "mistral", "openrouter", "deepseek", "anthropic")
    ]
    for candidate in candidates:
        await upstream.litellm.problem_of(candidate)
    watch = _Watch()
    sys.meta_path.insert(0, watch)  # type: ignore[arg-type]
    try:
        for candidate in candidates:
            for status in ("200 OK", "400 Bad Request", "401 No", "429 Slow Down", "500 No"):
                send(answer() if status == "200 OK" else {"error": {"message": "no"}}, status)
                with contextlib.suppress(DispatchError):
                    await upstream.complete(candidate, RouteQuery.from_prompt("hello"))
            stream(chunk("a"), chunk(" b", "stop"))
            with contextlib.suppress(DispatchError):
                [one async for one in upstream.stream(candidate, RouteQuery.from_prompt("hello"))]
    finally:
        sys.meta_path.remove(watch)  # type: ignore[arg-type]
    assert watch.names == []
