"""Run an upstream that speaks Anthropic's Messages API and remembers the bytes and headers it was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.serving.http_server import serve_on_loopback
from tests.gateways.loopback import in_thread
from tests.gateways.unsteady import Unsteady

USAGE = {"input_tokens": 4, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 6, "output_tokens": 1}
KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
COST_USD = (4 + 6 + 100) * 1e-6 + 2 * 10e-6


@dataclass
class MessageUpstream:
    """Says its model's name, or does what the model is called.

    That is `fail-STATUS`, `break`, `cut`, `odd`, `hollow` or `forge`.
    """

    sent: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    unsteady: Unsteady = field(default_factory=Unsteady)

    def app(self) -> Starlette:
        paths = ("/v1/messages", "/v1/messages/count_tokens")
        return Starlette(routes=[Route(path, self._answer, methods=["POST"]) for path in paths])

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        if refused := self.unsteady.refusal(json.loads(raw)["model"]):
            error = {"type": KINDS.get(refused[0], "api_error"), "message": "no room today"}
            return JSONResponse({"type": "error", "error": error}, *refused)
        self.sent.append(raw)
        self.headers.append(dict(request.headers))
        self.paths.append(request.url.path)
        body = json.loads(raw)
        model = body["model"]
        if request.url.path.endswith("count_tokens"):
            return JSONResponse({"input_tokens": -17 if model == "odd" else 17})
        if model.startswith("fail-"):
            status = int(model.removeprefix("fail-"))
            error = {"type": "error", "error": {"type": KINDS[status], "message": "no room today"}}
            return JSONResponse(error, status, {"retry-after": "7"})
        if body.get("stream"):
            return StreamingResponse(_events(body), media_type="text/event-stream")
        return JSONResponse(_message(body))


def _blocks(body: dict[str, Any]) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if body.get("thinking"):
        blocks.append({"type": "thinking", "thinking": "hm", "signature": "c2ln"})
    if body.get("tools"):
        blocks.append({"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Köln"}})
    else:
        has_schema = (body.get("output_config") or {}).get("format")
        said = '{"city": "Köln"}' if has_schema else f"{body['model']} says 你好"
        blocks.append({"type": "text", "text": said})
    return blocks


def _message(body: dict[str, Any]) -> dict[str, Any]:
    blocks = _blocks(body)
    reason = "tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn"
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
    usage = USAGE | {"output_tokens": 2}
    return head | {"content": blocks, "stop_reason": reason, "stop_sequence": None, "usage": usage, "x_vendor": [1]}


async def _events(body: dict[str, Any]) -> AsyncIterator[str]:
    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n"

    whole = _message(body)
    if body["model"] == "hollow":
        yield event("message_stop", elle={"candidate": "forged"})
        return
    yield event("message_start", message=whole | {"content": [], "stop_reason": None, "usage": USAGE})
    yield event("ping")
    if body["model"] == "odd":
        yield event("content_block_start", index=10**9, content_block={"type": ["text"]})
    for index, block in enumerate(whole["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        yield event("content_block_start", index=index, content_block=block | empty[block["type"]])
        for delta in _deltas(block):
            forged = {"elle": {"candidate": "forged"}} if body["model"] == "forge" else {}
            yield event("content_block_delta", index=index, delta=delta, **forged)
        if body["model"] == "break":
            yield event("error", error={"type": "overloaded_error", "message": "no room any more"})
            return
        if body["model"] == "cut":
            return
        yield event("content_block_stop", index=index)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield event("message_delta", delta=delta, usage={"output_tokens": "many" if body["model"] == "odd" else 2})
    yield event("message_stop")


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "text":
        return [{"type": "text_delta", "text": part} for part in block["text"].partition(" ")]
    if block["type"] == "thinking":
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return [{"type": "thinking_delta", "thinking": block["thinking"]}, signed]
    whole = json.dumps(block["input"])
    return [{"type": "input_json_delta", "partial_json": part} for part in ("", whole[:5], whole[5:])]


@contextmanager
def running_message_upstream() -> Iterator[tuple[MessageUpstream, str]]:
    """Yield the upstream and its base URL, without a path."""
    upstream = MessageUpstream()
    with in_thread(serve_on_loopback(upstream.app())) as url:
        yield upstream, url.removesuffix("/v1")
