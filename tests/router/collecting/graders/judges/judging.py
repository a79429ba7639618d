"""Serve judges over HTTP on loopback, and let graders ask them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.collecting.values import ModelAnswer
from router.serving.http_server import serve_on_loopback

_DATA = re.compile(r"<<<([0-9a-f]{16}) ([A-Z ]+)\n(.*?)\n\1>>>", re.DOTALL)

#: Takes the body of a request, and returns the text of the reply.
Reply = Callable[[Mapping[str, Any]], str]


def data_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the data of a question by their titles, as a judge reads them."""
    return {title: text for _, title, text in _DATA.findall(body["messages"][1]["content"])}


def verdict_json(verdict: object) -> str:
    return json.dumps({"reason": "because", "verdict": verdict})


@dataclass
class Asking:
    """A context that asks an upstream over HTTP, and knows the answers of other models to the sample."""

    client: httpx.AsyncClient
    bodies: list[dict[str, Any]]
    answers: dict[str, str] = field(default_factory=dict)

    async def ask(
        self, model: str, messages: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]
    ) -> ModelAnswer:
        body = {"model": model, "messages": list(messages), **parameters}
        reply = await self.client.post("chat/completions", json=body)
        reply.raise_for_status()
        choice = reply.json()["choices"][0]
        return ModelAnswer(model, choice["message"]["content"], choice["finish_reason"])

    async def answer_of(self, model: str) -> ModelAnswer:
        return ModelAnswer(model, self.answers[model])


@asynccontextmanager
async def judge_upstream(reply: Reply) -> AsyncIterator[Asking]:
    """Yield a context whose judges all reply as `reply` says; it keeps the bodies that it was sent."""
    bodies: list[dict[str, Any]] = []

    async def complete(request: Request) -> Response:
        bodies.append(await request.json())
        message = {"role": "assistant", "content": reply(bodies[-1])}
        body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        # As ASCII, so that a judge can also send half of a surrogate pair.
        return Response(json.dumps(body), media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    async with serve_on_loopback(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield Asking(client, bodies)
