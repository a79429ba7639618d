"""Run an OpenAI-compatible upstream that answers in the shape of its request and remembers the bytes it was sent."""

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

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Köln"}'}}


@dataclass
class ChatUpstream:
    """`model` begins with `up-`; what follows is said in the answer.

    calls_once: after the answer of a tool no tool is called again.
    """

    calls_once: bool = False
    sent: list[bytes] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    unsteady: Unsteady = field(default_factory=Unsteady)

    def app(self) -> Starlette:
        paths = {"/v1/chat/completions": self._complete, "/v1/embeddings": self._embed}
        return Starlette(routes=[Route(path, answer, methods=["POST"]) for path, answer in paths.items()])

    async def _embed(self, request: Request) -> Response:
        body = await request.json()
        row = {"object": "embedding", "index": 0, "embedding": [0.5]}
        usage = {} if body["model"] == "up-uncounted" else {"usage": {"prompt_tokens": 10, "total_tokens": 10}}
        return JSONResponse({"object": "list", "data": [row], "model": body["model"], **usage})

    async def _complete(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw)
        if refused := self.unsteady.refusal(body["model"]):
            return JSONResponse({"error": {"message": "no room today", "type": "server_error"}}, *refused)
        self.sent.append(raw)
        self.keys.append(request.headers.get("authorization", ""))
        if self.calls_once and body["messages"][-1]["role"] == "tool":
            body.pop("tools", None)
        if body.get("stream"):
            return StreamingResponse(_events(body), media_type="text/event-stream")
        choices = [_choice(body, index) for index in range(body.get("n") or 1)]
        head = {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"]}
        return JSONResponse(head | {"choices": choices, "usage": USAGE, "x_vendor": [1.0, None]})


def _choice(body: dict[str, Any], index: int) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": f"{body['model']} {index}"}
    choice = {"index": index, "message": said, "finish_reason": "stop"}
    if body.get("tools"):
        said |= {"content": None, "tool_calls": [CALL]}
        choice["finish_reason"] = "tool_calls"
    elif body.get("response_format"):
        said["content"] = '{"city": "Köln"}'
    if body.get("logprobs"):
        token = {"token": "up", "logprob": -0.5, "bytes": [117, 112], "top_logprobs": []}
        choice["logprobs"] = {"content": [token], "refusal": None}
    return choice


async def _events(body: dict[str, Any]) -> AsyncIterator[str]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}

    def event(**fields: Any) -> str:
        return f"data: {json.dumps(head | fields)}\n\n"

    for index in range(body.get("n") or 1):
        whole = _choice(body, index)
        said = whole["message"]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": part} for part in (said["content"] or "").split(" ")] if said["content"] else []
        deltas += [{"tool_calls": [{"index": at, **call}]} for at, call in enumerate(said.get("tool_calls", ()))]
        for delta in deltas:
            choice = {"index": index, "delta": delta, "finish_reason": None}
            yield event(choices=[choice | ({"logprobs": whole["logprobs"]} if "logprobs" in whole else {})])
        yield event(choices=[{"index": index, "delta": {}, "finish_reason": whole["finish_reason"]}])
    if (body.get("stream_options") or {}).get("include_usage"):
        yield event(choices=[], usage=USAGE)
    yield "data: [DONE]\n\n"


@contextmanager
def running_chat_upstream() -> Iterator[tuple[ChatUpstream, str]]:
    """Yield the upstream and its base URL, which ends in /v1."""
    upstream = ChatUpstream()
    with in_thread(serve_on_loopback(upstream.app())) as url:
        yield upstream, url
