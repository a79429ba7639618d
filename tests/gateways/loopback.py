"""Run real servers on loopback for the tests of gateways: upstreams that remember what reached them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from router.serving.http_server import serve_on_loopback

T = TypeVar("T")


@contextmanager
def in_thread(context: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an asynchronous context in a thread with an event loop of its own."""
    ready, stop = threading.Event(), threading.Event()
    values: list[T] = []
    failures: list[BaseException] = []

    async def hold() -> None:
        async with context as value:
            values.append(value)
            ready.set()
            await asyncio.to_thread(stop.wait)

    def main() -> None:
        try:
            asyncio.run(hold())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=main)
    thread.start()
    try:
        assert ready.wait(60)
        if failures:
            raise failures[0]
        yield values[0]
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert not failures


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Upstream:
    """An OpenAI-compatible upstream. Streams wait after their first event until `gate` is set.

    Whole answers wait until `hurry` is set, which it is unless a test clears it.
    """

    name: str
    seen: list[Seen] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hurry.set()

    def app(self) -> Any:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, StreamingResponse
        from starlette.routing import Route

        async def answer(request: Any) -> Any:
            body = await request.body()
            self.seen.append(Seen(request.url.path, dict(request.headers), body))
            try:
                asked = json.loads(body)
            except ValueError:
                asked = {}
            asked = asked if isinstance(asked, dict) else {}
            if asked.get("stream"):
                return StreamingResponse(self._events(asked["model"]), media_type="text/event-stream")
            await asyncio.to_thread(self.hurry.wait, 20)
            message = {"role": "assistant", "content": f"I am {self.name}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
            head = {"id": "c", "object": "chat.completion", "created": 0, "model": asked.get("model", "")}
            return JSONResponse(head | {"choices": [choice], "usage": usage})

        return Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])

    async def _events(self, model: str) -> AsyncIterator[str]:
        head = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": model}
        for number, word in enumerate(("I am ", self.name)):
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            yield f"data: {json.dumps(head | {'choices': [choice]})}\n\n"
            if number == 0:
                await asyncio.to_thread(self.gate.wait, 20)
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        yield f"data: {json.dumps(head | {'choices': [end]})}\n\n"
        yield "data: [DONE]\n\n"


@contextmanager
def running_upstream(name: str) -> Iterator[tuple[Upstream, str]]:
    """Yield an upstream and its base URL, which ends in /v1."""
    upstream = Upstream(name)
    with in_thread(serve_on_loopback(upstream.app())) as url:
        yield upstream, url
