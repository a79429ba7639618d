"""Dispatch through LiteLLM to a real loopback upstream: what arrives there, and what its faults become here."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router import canned, errors
from router.dispatch import ERRORS_BY_NAME, Dispatcher
from router.errors import DispatchError
from router.loading import load_policies
from router.pipeline import Router
from router.types import RouteQuery
from tests.fakes import FakeEncoder, write_policy

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "x",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "forty-two"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


class Upstream:
    """A real HTTP server that remembers what it was sent and answers as told."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answer: Response | None = None
        self.delay_s = 0.0
        self.url = ""

    async def _complete(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        await asyncio.sleep(self.delay_s)
        return self.answer or JSONResponse(ANSWER)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        app = Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])
        async with canned.running(app) as self.url:
            yield self


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream().running() as upstream:
        yield upstream


async def ask(
    folder: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None = 20, **parameters: Any
) -> Any:
    if "TEST_UPSTREAM_KEY" not in os.environ:
        monkeypatch.setenv("TEST_UPSTREAM_KEY", "sk-test")
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}
    candidates = [
        {
            "name": name,
            "model": f"openai/real-{name}",
            "api_base": upstream.url,
            "api_key_env": "TEST_UPSTREAM_KEY",
            "prices": prices,
            "capabilities": ["text", "tools"],
        }
        for name in ("small", "large")
    ]
    encoder = FakeEncoder()
    policies = load_policies([write_policy(folder, candidates=candidates)])
    router = Router(policies, {encoder.spec.identity: encoder})
    query = RouteQuery.from_prompt("hello", parameters=parameters)
    decision = await router.adecide(query)
    return await Dispatcher(router.policies).complete(query, decision, timeout_s=timeout_s)


async def test_the_upstream_gets_the_request_as_it_was_asked_and_nothing_else(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"temperature": 0.5, "seed": 7, "stop": ["x"], "brand_new_field": {"a": [1, 2]}}
    answer = await ask(tmp_path, upstream, monkeypatch, **asked)
    (body,) = upstream.bodies
    assert body.pop("model").startswith("real-")
    assert body == {"messages": [{"role": "user", "content": "hello"}], **asked}
    assert answer.text == "forty-two"
    assert answer.usage.cost_usd == pytest.approx(10e-6 + 20e-6)


async def test_tools_arrive_unchanged(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    # LiteLLM without its `mcp` extra refuses every request that carries tools.
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    await ask(tmp_path, upstream, monkeypatch, tools=tools)
    assert upstream.bodies[0]["tools"] == tools


async def test_litellms_own_keywords_are_not_a_callers_to_set(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen = {"api_base": "http://127.0.0.1:1/v1", "api_key": "x", "mock_response": "pwned", "base_url": "http://x"}
    answer = await ask(tmp_path, upstream, monkeypatch, **stolen)
    assert answer.text == "forty-two"
    assert stolen.items() <= upstream.bodies[0].items()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.UpstreamRejectedError),
        (401, errors.UpstreamDeniedError),
        (402, errors.UpstreamDeniedError),
        (403, errors.UpstreamDeniedError),
        (404, errors.UpstreamNotFoundError),
        (422, errors.UpstreamRejectedError),
        (429, errors.UpstreamRateLimitedError),
        (500, errors.UpstreamUnavailableError),
        (503, errors.UpstreamUnavailableError),
    ],
)
async def test_each_http_status_becomes_its_kind_of_error_after_one_attempt(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[DispatchError]
) -> None:
    upstream.answer = JSONResponse({"error": {"message": "the prompt was: hello", "type": "t"}}, status_code=status)
    with pytest.raises(kind) as caught:
        await ask(tmp_path, upstream, monkeypatch)
    assert type(caught.value) is kind
    assert "hello" not in str(caught.value)
    assert len(upstream.bodies) == 1


async def test_nonsense_from_the_upstream_is_its_fault(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.answer = PlainTextResponse("<html>welcome</html>")
    with pytest.raises(errors.UpstreamUnavailableError):
        await ask(tmp_path, upstream, monkeypatch)


async def test_a_slow_upstream_is_given_up_at_the_callers_deadline(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.delay_s = 5
    with pytest.raises(errors.UpstreamTimeoutError):
        await ask(tmp_path, upstream, monkeypatch, timeout_s=0.3)


async def test_a_dead_upstream_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = Upstream()
    dead.url = "http://127.0.0.1:9/v1"
    with pytest.raises(errors.UpstreamUnavailableError):
        await ask(tmp_path, dead, monkeypatch)


async def test_a_missing_key_names_its_variable(
    tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_UPSTREAM_KEY", "")
    with pytest.raises(errors.UpstreamDeniedError, match="TEST_UPSTREAM_KEY"):
        await ask(tmp_path, upstream, monkeypatch)


def test_every_exception_of_litellm_is_mapped() -> None:
    import litellm.exceptions

    raised = {
        name
        for name, value in vars(litellm.exceptions).items()
        if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
    }
    assert raised - ERRORS_BY_NAME.keys() == set()


def test_every_error_of_the_router_has_a_status_that_grpc_knows() -> None:
    import grpc

    for value in vars(errors).values():
        if inspect.isclass(value) and issubclass(value, errors.RouterError):
            assert value.status in grpc.StatusCode.__members__
