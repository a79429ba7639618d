"""The built-in upstream is an OpenAI-compatible application that answers every request with the same kind of text.

It exists so that the embedded default really goes through LiteLLM and HTTP without any key. It is not a model, and
every answer says so.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def canned_text(model: str) -> str:
    """Return the text that every request to this upstream is answered with."""
    return f"[canned answer of the built-in demo upstream, standing in for {model}; no language model was asked]"


def create_app() -> Starlette:
    """Return the ASGI application of the built-in upstream.

    It serves `POST /v1/chat/completions`, streamed or whole.
    """
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route("/v1/chat/completions", _complete, methods=["POST"])])


async def _complete(request: Request) -> Response:
    from starlette.responses import JSONResponse, StreamingResponse

    try:
        body = json.loads(await request.body())
        messages, model = body["messages"], str(body["model"])
        # The number of words is close enough to the number of tokens for a demo.
        words = sum(len(json.dumps(message, ensure_ascii=False).split()) for message in messages)
    except (ValueError, KeyError, TypeError, RecursionError):
        error = {
            "message": "the body must be a JSON object with `model` and `messages`.",
            "type": "invalid_request_error",
        }
        return JSONResponse({"error": error}, status_code=400)
    usage = {"prompt_tokens": words, "completion_tokens": len(canned_text(model).split())}
    usage["total_tokens"] = sum(usage.values())
    if body.get("stream"):
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return StreamingResponse(_events(model, usage if wants_usage else None), media_type="text/event-stream")
    message = {"role": "assistant", "content": canned_text(model)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse(_envelope(model, "chat.completion") | {"choices": [choice], "usage": usage})


async def _events(model: str, usage: dict[str, int] | None) -> AsyncIterator[str]:
    head = _envelope(model, "chat.completion.chunk")

    def event(**fields: Any) -> str:
        return f"data: {json.dumps(head | fields)}\n\n"

    for word in canned_text(model).split(" "):
        delta = {"role": "assistant", "content": f"{word} "}
        yield event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if usage is not None:
        yield event(choices=[], usage=usage)
    yield "data: [DONE]\n\n"


def _envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
