"""Run an upstream that speaks OpenAI's Responses API, keeps what it answered, and remembers the bytes it was sent."""

from __future__ import annotations

import asyncio
import itertools
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

USAGE = {
    "input_tokens": 110,
    "input_tokens_details": {"cached_tokens": 100},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 112,
}
COST_USD = 110 * 1e-6 + 2 * 10e-6


@dataclass
class ResponseUpstream:
    """Says its model's name, or does what the model is called: `fail-STATUS`, `failed`, `break`, `cut`."""

    name: str = "a"
    sent: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    unsteady: Unsteady = field(default_factory=Unsteady)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def app(self) -> Starlette:
        paths = ("/v1/responses", "/openai/v1/responses")
        routes = [Route(path, self._answer, methods=["POST"]) for path in paths]
        others = [("/v1/completions", self._complete), ("/v1/embeddings", self._embed)]
        kept = [f"{path}/{{response_id}}{below}" for path in paths for below in ("", "/cancel", "/input_items")]
        return Starlette(
            routes=[
                *routes,
                *(Route(path, answer, methods=["POST"]) for path, answer in others),
                *(Route(path, self._keep, methods=["GET", "POST", "DELETE"]) for path in kept),
            ]
        )

    async def _keep(self, request: Request) -> Response:
        """Answer what is asked about a response that is kept. In the background one ends when `end` says so."""
        url = request.url
        self.asked.append((request.method, f"{url.path}?{url.query}" if url.query else url.path))
        self.headers.append(dict(request.headers))
        response = self.kept.get(request.path_params["response_id"])
        if response is None:
            error = {"message": "Response with id not found.", "type": "invalid_request_error", "param": "id"}
            return JSONResponse({"error": error | {"code": None}}, 404)
        if request.method == "DELETE":
            del self.kept[response["id"]]
            return JSONResponse({"id": response["id"], "object": "response", "deleted": True})
        if url.path.endswith("/cancel"):
            if not response["background"]:
                error = {"message": "Only background responses can be cancelled.", "type": "invalid_request_error"}
                return JSONResponse({"error": error | {"param": None, "code": None}}, 400)
            response["status"] = "cancelled"
        elif url.path.endswith("/input_items"):
            part = {"type": "input_text", "text": "hello"}
            item = {"type": "message", "id": "msg_in", "role": "user", "status": "completed", "content": [part]}
            ends = {"first_id": "msg_in", "last_id": "msg_in", "has_more": False}
            return JSONResponse({"object": "list", "data": [item], **ends})
        elif request.query_params.get("stream") == "true":
            return StreamingResponse(_events(response), media_type="text/event-stream")
        return JSONResponse(response)

    def end(self, response_id: str, status: str = "completed", **changes: Any) -> None:
        """End a response that is given in the background."""
        done = {"status": status, "output": _output({"model": "up", "input": ""}), "usage": USAGE}
        self.kept[response_id].update(done | changes)

    async def _complete(self, request: Request) -> Response:
        raw = await request.body()
        self.sent.append(raw)
        body = json.loads(raw)
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        words = [f"{body['model']} goes", " on"]
        whole = {"index": 0, "text": "".join(words), "logprobs": None, "finish_reason": "stop"}
        if not body.get("stream"):
            return JSONResponse(head | {"choices": [whole], "usage": usage})

        async def events() -> AsyncIterator[str]:
            for word in words:
                yield f"data: {json.dumps(head | {'choices': [whole | {'text': word, 'finish_reason': None}]})}\n\n"
            if body["model"] != "cut":
                yield f"data: {json.dumps(head | {'choices': [whole | {'text': ''}], 'usage': usage})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _embed(self, request: Request) -> Response:
        raw = await request.body()
        self.sent.append(raw)
        body = json.loads(raw)
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
        usage = {"prompt_tokens": 3, "total_tokens": 3}
        return JSONResponse({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def _answer(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw)
        model, previous = body["model"], body.get("previous_response_id")
        if refused := self.unsteady.refusal(model):
            return JSONResponse({"error": {"message": "no room today", "type": "server_error"}}, *refused)
        self.sent.append(raw)
        self.headers.append(dict(request.headers))
        if model.startswith("fail-"):
            status = int(model.removeprefix("fail-"))
            error = {"message": "no room today", "type": "server_error", "param": None, "code": None}
            return JSONResponse({"error": error}, status, {"retry-after": "7"})
        if previous is not None and previous not in self.kept:
            error = {"message": f"Previous response with id '{previous}' not found.", "type": "invalid_request_error"}
            return JSONResponse({"error": error | {"param": "previous_response_id", "code": None}}, 400)
        response = self._response(body)
        if body.get("store", True):
            self.kept[response["id"]] = response
        if body.get("stream"):
            return StreamingResponse(_events(response), media_type="text/event-stream")
        return JSONResponse(response)

    def _response(self, body: dict[str, Any]) -> dict[str, Any]:
        failed = body["model"] == "failed"
        return {
            "id": f"resp_{self.name}{next(self.numbers)}",
            "object": "response",
            "created_at": 1,
            "model": body["model"],
            "status": "failed" if failed else "queued" if body.get("background") else "completed",
            "background": body.get("background", False),
            "error": {"code": "server_error", "message": "no room any more"} if failed else None,
            "incomplete_details": None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata") or {},
            "output": [] if failed or body.get("background") else _output(body),
            "parallel_tool_calls": True,
            "previous_response_id": body.get("previous_response_id"),
            "store": body.get("store", True),
            "temperature": 1.0,
            "text": body.get("text") or {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": body.get("tools") or [],
            "top_p": 1.0,
            "usage": None if body.get("background") else USAGE,
            "x_vendor": [1],
        }


def _output(body: dict[str, Any]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    if body.get("reasoning"):
        items.append({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]})
    answered = any(isinstance(item, dict) and item.get("type") == "function_call_output" for item in body["input"])
    if body.get("tools") and not answered:
        call = {"name": body["tools"][0].get("name", "weather"), "arguments": '{"city": "Köln"}', "call_id": "call_1"}
        return [*items, {"type": "function_call", "id": "fc_1", "status": "completed", **call}]
    has_schema = ((body.get("text") or {}).get("format") or {}).get("type") == "json_schema"
    said = '{"city": "Köln"}' if has_schema else f"{body['model']} says 你好"
    part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
    return [*items, {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}]


async def _events(response: dict[str, Any]) -> AsyncIterator[str]:
    numbers = itertools.count()

    def event(kind: str, **fields: Any) -> str:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': next(numbers)} | fields)}\n\n"

    begun = response | {"status": "in_progress", "output": [], "usage": None, "error": None}
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    while response["status"] == "queued":  # noqa: ASYNC110 - it is changed from another thread
        await asyncio.sleep(0.01)
    if response["status"] == "failed":
        yield event("response.failed", response=response)
        return
    for index, item in enumerate(response["output"]):
        empty = {"message": {"content": []}, "function_call": {"arguments": ""}, "reasoning": {"summary": []}}
        started = item | empty[item["type"]] | {"status": "in_progress"}
        yield event("response.output_item.added", output_index=index, item=started)
        where = {"item_id": item["id"], "output_index": index}
        for kind, fields in _deltas(item):
            yield event(kind, **where, **fields)
            if response["model"] == "cut" and kind.endswith("delta"):
                return
            if response["model"] == "break" and kind.endswith("delta"):
                yield event("error", code="server_error", message="no room any more", param=None)
                return
        yield event("response.output_item.done", output_index=index, item=item)
    yield event(f"response.{response['status']}", response=response)


def _deltas(item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if item["type"] == "function_call":
        whole = item["arguments"]
        for part in (whole[:5], whole[5:]):
            yield "response.function_call_arguments.delta", {"delta": part}
        yield "response.function_call_arguments.done", {"arguments": whole, "name": item["name"]}
    elif item["type"] == "reasoning":
        part = item["summary"][0]
        yield "response.reasoning_summary_part.added", {"summary_index": 0, "part": part | {"text": ""}}
        yield "response.reasoning_summary_text.delta", {"summary_index": 0, "delta": part["text"]}
        yield "response.reasoning_summary_text.done", {"summary_index": 0, "text": part["text"]}
        yield "response.reasoning_summary_part.done", {"summary_index": 0, "part": part}
    else:
        part = item["content"][0]
        yield "response.content_part.added", {"content_index": 0, "part": part | {"text": ""}}
        for text in part["text"].partition(" "):
            yield "response.output_text.delta", {"content_index": 0, "delta": text, "logprobs": []}
        yield "response.output_text.done", {"content_index": 0, "text": part["text"], "logprobs": []}
        yield "response.content_part.done", {"content_index": 0, "part": part}


@contextmanager
def running_response_upstream(name: str) -> Iterator[tuple[ResponseUpstream, str]]:
    """Yield the upstream and its base URL, which ends in /v1. Ids of its responses begin with `resp_NAME`."""
    upstream = ResponseUpstream(name)
    with in_thread(serve_on_loopback(upstream.app())) as url:
        yield upstream, url
