"""An upstream that fails in every way, and repeats the credential and the prompt that it got wherever it can."""

from __future__ import annotations

import json
from typing import Any

#: How a candidate fails, by the first part of the path of its `api_base`.
MODES = ("ok", "denied", "wrong", "broken", "garbage", "redirect", "stream_error", "torn", "empty")
LITELLM_MODES = ("ok", "denied", "wrong", "garbage")


def repeating_upstream() -> Any:
    """Return an ASGI application. Each path `/v1/MODE/...` fails in that way."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    async def answer(request: Any) -> Any:
        mode = request.path_params["mode"]
        got = {name: request.headers.get(name, "") for name in ("authorization", "x-api-key", "api-key")}
        told = f"{' '.join(got.values())} {(await request.body()).decode()} {request.url}"
        error = {"error": {"message": f"Incorrect API key provided: {told}", "type": "invalid_request_error"}}
        headers = {"x-request-id": "7", "x-told": got["authorization"], "location": f"https://example.com/?{told[:99]}"}
        if mode in ("denied", "wrong", "broken"):
            status = {"denied": 401, "wrong": 400, "broken": 500}[mode]
            return JSONResponse(error, status_code=status, headers=headers)
        if mode == "redirect":
            return Response(status_code=302, headers={**headers, "location": f"http://127.0.0.1:1/{got['x-api-key']}"})
        if mode == "garbage":
            return Response(told, media_type="application/json")
        if mode in ("stream_error", "torn"):
            first = {"choices": [{"index": 0, "delta": {"content": "Hi"}}], "model": "m"}
            events = [first, error] if mode == "stream_error" else [first]
            lines = [f"data: {json.dumps(one)}\n\n" for one in events]
            return StreamingResponse(iter(lines), media_type="text/event-stream", headers=headers)
        return JSONResponse({} if mode == "empty" else _completion(), headers=headers)

    return Starlette(routes=[Route("/v1/{mode}/{path:path}", answer, methods=["POST"])])


def _completion() -> dict[str, Any]:
    message = {"role": "assistant", "content": "Hello."}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
