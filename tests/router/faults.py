"""Run a real HTTP upstream that misbehaves as its `model` says, and remembers who asked and when they left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.serving.http_server import serve_on_loopback

TEXT = "forty-two"
USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
BIG = 3 * 1024 * 1024


def answer(text: str = TEXT) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "x", "choices": [choice], "usage": USAGE}


def event(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x"}
    return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"


@dataclass
class Seen:
    """Holds one request as the upstream saw it."""

    model: str
    body: bytes
    left_at: float | None = None


@dataclass
class FaultyUpstream:
    """`model` is `FAULT` or `FAULT@anything`; unknown faults answer well."""

    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def of(self, model: str) -> list[Seen]:
        return [one for one in self.seen if one.model == model]

    async def asked(self, model: str, times: int = 1) -> None:
        """Wait until so many requests of this model have arrived."""
        async with asyncio.timeout(60):
            while len(self.of(model)) < times:  # noqa: ASYNC110  (the upstream may live in another loop)
                await asyncio.sleep(0.01)

    async def left(self, model: str) -> float:
        """Wait until all callers of this model are gone; return when the last one went, by the monotonic clock."""
        async with asyncio.timeout(60):
            while any(one.left_at is None for one in self.of(model)):  # noqa: ASYNC110  (as above)
                await asyncio.sleep(0.01)
        return max(one.left_at or 0.0 for one in self.of(model))

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self._complete, methods=["POST"])])

    async def _complete(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw)
        one = Seen(body["model"], raw)
        self.seen.append(one)
        fault = one.model.partition("@")[0]
        first_time = len(self.of(one.model)) == 1
        if fault.isdigit():
            return refusal(int(fault))
        if fault == "429-once" and first_time:
            return refusal(429, retry_after="0.2")
        if fault == "429-wait":
            return refusal(429, retry_after="7")
        if fault == "too-long":
            return refusal(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded")
        if fault == "hang":
            await _until_left(request, one)
        if fault == "html":
            return HTMLResponse("<html>welcome to the captive portal</html>")
        if body.get("stream"):
            return StreamingResponse(_events(fault, request, one), media_type="text/event-stream")
        return _whole(fault)


def refusal(status: int, message: str = "the prompt was: SECRET", *, code: str = "", retry_after: str = "") -> Response:
    headers = {"retry-after": retry_after} if retry_after else {}
    error = {"message": message, "type": "t", "code": code or None}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def _whole(fault: str) -> Response:
    if fault == "malformed":
        return Response('{"choices": [{"message": ', media_type="application/json")
    if fault == "no-choices":
        return JSONResponse({"choices": None})
    if fault == "empty-choices":
        return JSONResponse(answer() | {"choices": []})
    if fault == "text-message":
        return JSONResponse({"choices": [{"index": 0, "message": TEXT, "finish_reason": "stop"}]})
    if fault == "deep":
        return Response(
            json.dumps(answer())[:-1] + ', "x": ' + "[" * 100 + "]" * 100 + "}", media_type="application/json"
        )
    if fault == "big":
        return JSONResponse(answer("x" * BIG))
    if fault == "reset":
        return StreamingResponse(_broken_off(), media_type="application/json")
    return JSONResponse(answer())


async def _broken_off() -> AsyncIterator[str]:
    yield '{"choices": ['
    raise ConnectionResetError("told to break off")


async def _events(fault: str, request: Request, one: Seen) -> AsyncIterator[str]:
    yield event({"role": "assistant", "content": ""})
    if fault in {"malformed", "no-choices", "text-message", "deep"}:
        text = '{"choices": [{"index": 0, "delta": "forty-two"}]}'
        broken = {"malformed": "{nope", "no-choices": '{"choices": null}', "text-message": text, "deep": "[1, 2]"}
        yield f"data: {broken[fault]}\n\n"
        return
    if fault == "slow-first-token":
        await _until_left(request, one)
        return
    if fault == "reset-early":
        raise ConnectionResetError("told to break off")
    if fault == "big":
        yield event({"content": "x" * BIG})
    elif fault in {"endless", "flood"}:
        text, pause_s = ("and ", 0.02) if fault == "endless" else ("x" * 65536, 0.0)
        try:
            while not await request.is_disconnected():
                yield event({"content": text})
                await asyncio.sleep(pause_s)
        finally:  # Starlette cancels us when the client has gone
            one.left_at = time.monotonic()
        return
    else:
        yield event({"content": "forty-"})
    if fault == "reset":
        raise ConnectionResetError("told to break off")
    if fault == "malformed-late":
        yield "data: {nope\n\n"
        return
    if fault == "cut-off":
        return
    if fault == "stall":
        await _until_left(request, one)
        return
    if fault != "big":
        yield event({"content": "two"})
    yield event({}, "stop")
    if (json.loads(one.body).get("stream_options") or {}).get("include_usage"):
        yield f"data: {json.dumps({'id': 'c', 'object': 'chat.completion.chunk', 'choices': [], 'usage': USAGE})}\n\n"
    yield "data: [DONE]\n\n"


async def _until_left(request: Request, one: Seen) -> None:
    """Say nothing until the client closes the connection, but no longer than 20 s."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while (await request.receive())["type"] != "http.disconnect":
                pass
            one.left_at = time.monotonic()


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request's head, then answer with a TCP reset; under `/late/` after the first words of a stream."""
    if b"/late/" in await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(event({"content": "forty-"}).encode())
        await writer.drain()
        # What has not been read by then is lost with the connection.
        await asyncio.sleep(0.1)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def resetting_server() -> AsyncIterator[str]:
    server = await asyncio.start_server(_reset, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def upstream_in_thread() -> Iterator[tuple[FaultyUpstream, str]]:
    """Run the upstream, and a server that resets every connection, in a thread with a loop of its own."""
    upstream, resetting = FaultyUpstream(), [""]
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serve_on_loopback(upstream.app()) as upstream.url, resetting_server() as resetting[0]:
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="upstream")
    thread.start()
    try:
        assert ready.wait(60)
        yield upstream, resetting[0]
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
