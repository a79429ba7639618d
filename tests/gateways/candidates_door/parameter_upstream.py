"""Run an upstream that speaks every API, refuses parameters as real providers do, and remembers what it was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.serving.http_server import serve_on_loopback
from tests.gateways.loopback import in_thread

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}


@dataclass
class ParameterUpstream:
    """Answers `forty-two` in the API of the path.

    refuses: for each model the fields of a body for which it answers 400.
    says: for each model what it answers with the status 400.
    """

    refuses: dict[str, set[str]] = field(default_factory=dict)
    says: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def last(self) -> dict[str, Any]:
        """The last body that it was sent."""
        body: dict[str, Any] = json.loads(self.sent[-1])
        return body

    def app(self) -> Starlette:
        paths = {
            "chat/completions": self._chat,
            # Where Gemini answers in OpenAI's format.
            "openai/chat/completions": self._chat,
            "messages": self._message,
            "responses": self._response,
            "completions": self._completion,
        }
        routes = [Route(f"/v1/{path}", at, methods=["POST"]) for path, at in paths.items()]
        routes += [Route("/v1/models/{name}:generateContent", self._gemini, methods=["POST"])]
        return Starlette(routes=[*routes, Route("/api/chat", self._ollama, methods=["POST"])])

    async def _note(self, request: Request) -> None:
        self.sent.append(await request.body())
        self.headers = {key: value for key, value in request.headers.items() if key != "content-length"}

    async def _read(self, request: Request) -> tuple[dict[str, Any], Response | None]:
        await self._note(request)
        body = self.last
        if (said := self.says.get(body["model"])) is not None:
            return body, JSONResponse(said, 400)
        refused = sorted(self.refuses.get(body["model"], set()) & body.keys())
        if not refused:
            return body, None
        refusal = {"message": f"Unsupported parameter: '{refused[0]}'", "type": "invalid_request_error"}
        return body, JSONResponse({"error": refusal | {"param": refused[0], "code": "unsupported_parameter"}}, 400)

    async def _chat(self, request: Request) -> Response:
        body, refusal = await self._read(request)
        if refusal is not None:
            return refusal
        head = {"id": "c", "created": 1, "model": body["model"]}
        if body.get("stream"):
            choices = [
                {"index": 0, "delta": {"role": "assistant", "content": "forty-two"}, "finish_reason": None},
                {"index": 0, "delta": {}, "finish_reason": "stop"},
            ]
            chunks = [head | {"object": "chat.completion.chunk", "choices": [choice]} for choice in choices]
            events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            return StreamingResponse(iter([*events, "data: [DONE]\n\n"]), media_type="text/event-stream")
        said = {"index": 0, "message": {"role": "assistant", "content": "forty-two"}, "finish_reason": "stop"}
        return JSONResponse(head | {"object": "chat.completion", "choices": [said], "usage": USAGE})

    async def _message(self, request: Request) -> Response:
        body, refusal = await self._read(request)
        head = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
        usage = {"input_tokens": 10, "output_tokens": 2}
        return refusal or JSONResponse(head | {"content": [{"type": "text", "text": "forty-two"}], "usage": usage})

    async def _response(self, request: Request) -> Response:
        body, refusal = await self._read(request)
        text = {"type": "output_text", "text": "forty-two", "annotations": []}
        item = {"id": "i", "type": "message", "role": "assistant", "status": "completed", "content": [text]}
        usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
        head = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": body["model"]}
        return refusal or JSONResponse(head | {"output": [item], "usage": usage})

    async def _gemini(self, request: Request) -> Response:
        await self._note(request)
        said = {"content": {"role": "model", "parts": [{"text": "forty-two"}]}, "finishReason": "STOP"}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12}
        return JSONResponse({"candidates": [said], "usageMetadata": usage})

    async def _ollama(self, request: Request) -> Response:
        await self._note(request)
        said = {"role": "assistant", "content": "forty-two"}
        counts = {"prompt_eval_count": 10, "eval_count": 2}
        return JSONResponse({"model": "m", "message": said, "done": True, "done_reason": "stop"} | counts)

    async def _completion(self, request: Request) -> Response:
        body, refusal = await self._read(request)
        choice = {"index": 0, "text": "forty-two", "finish_reason": "stop", "logprobs": None}
        head = {"id": "c", "object": "text_completion", "created": 1, "model": body["model"]}
        return refusal or JSONResponse(head | {"choices": [choice], "usage": USAGE})


@contextmanager
def running_parameter_upstream() -> Iterator[tuple[ParameterUpstream, str]]:
    """Run the upstream; yield it and its base URL."""
    upstream = ParameterUpstream()
    with in_thread(serve_on_loopback(upstream.app())) as url:
        yield upstream, url
