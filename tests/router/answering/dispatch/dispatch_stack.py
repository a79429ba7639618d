"""The loopback upstream, the router and the dispatcher that the dispatch tests share."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.decision import RoutingDecision
from router.policies.loading import load_policies
from router.serving.http_server import serve_on_loopback
from router.values import RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.router.faults import answer

KEY = "TEST_UPSTREAM_KEY"

PRICES = {
    "input_usd_per_million_tokens": 1.0,
    "output_usd_per_million_tokens": 10.0,
    "cached_input_usd_per_million_tokens": 0.1,
}


class Upstream:
    """A real HTTP server that remembers the bytes it was sent and answers as told."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.keys: list[str | None] = []
        self.answer: Response | None = None
        self.url = ""

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(sent) for sent in self.sent]

    async def _complete(self, request: Request) -> Response:
        self.sent.append(await request.body())
        self.keys.append(request.headers.get("authorization"))
        return self.answer or JSONResponse(answer())

    async def _message(self, request: Request) -> Response:
        self.sent.append(await request.body())
        usage = {"input_tokens": 10, "output_tokens": 2}
        said = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}
        return JSONResponse(said | {"content": [{"type": "text", "text": "forty-two"}], "usage": usage})

    async def _other(self, request: Request) -> Response:
        self.sent.append(await request.body())
        counted = request.url.path.endswith("count_tokens")
        return self.answer or JSONResponse({"input_tokens": 14} if counted else {"data": [{"embedding": [0.5]}]})

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Upstream]:
        routes = [Route("/v1/chat/completions", self._complete, methods=["POST"])]
        others = ("/v1/messages/count_tokens", "/v1/embeddings")
        routes += [Route(path, self._other, methods=["POST"]) for path in others]
        app = Starlette(routes=[*routes, Route("/v1/messages", self._message, methods=["POST"])])
        async with serve_on_loopback(app) as self.url:
            yield self


def candidate(name: str, url: str, **changes: Any) -> dict[str, Any]:
    common = {"name": name, "model": f"openai/real-{name}", "api_base": url, "api_key_env": KEY, "prices": PRICES}
    return common | {"capabilities": ["text", "image", "tools", "json_schema"], "timeout_s": 5} | changes


class Stack:
    """A router on a fake encoder, and its dispatcher."""

    def __init__(self, folder: Path, candidates: list[dict[str, Any]], **policy: Any) -> None:
        encoder = FakeEncoder()
        candidates = [one | {"probe_model": name} for one, name in zip(candidates, ("small", "large"), strict=True)]
        policy.setdefault("safe_default", candidates[-1]["name"])
        policies = load_policies([write_policy(folder, candidates=candidates, **policy)])
        self.router = Router(policies, {encoder.spec.identity: encoder})
        self.dispatcher = Dispatcher(self.router.policies)

    async def decide(self, query: RouteQuery) -> RoutingDecision:
        return await self.router.adecide(query)

    async def complete(self, query: RouteQuery, timeout_s: float | None = 20) -> Any:
        return await self.dispatcher.complete(query, await self.decide(query), timeout_s=timeout_s)

    async def stream(self, query: RouteQuery, timeout_s: float | None = 20) -> list[Any]:
        steps = self.dispatcher.stream(query, await self.decide(query), timeout_s=timeout_s)
        return [step async for step in steps]


@contextlib.asynccontextmanager
async def dispatching(folder: Path, *candidates: dict[str, Any], **policy: Any) -> AsyncIterator[Stack]:
    stack = Stack(folder, list(candidates), **policy)
    try:
        yield stack
    finally:
        await stack.dispatcher.aclose()
        await stack.router.close()


def pin(name: str) -> Any:
    from router.values import Overrides

    return Overrides(pin=name)
