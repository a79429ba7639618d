"""An upstream that fails in every way, and repeats the credential and the prompt that it got wherever it can."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
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


@contextlib.contextmanager
def repeating_proxy() -> Iterator[int]:
    """Run a proxy that lets nothing through and repeats the password of whoever asks, in every form. Yield its port."""
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Repeats)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


class _Repeats(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        head: dict[bytes, bytes] = {}
        first = self.rfile.readline()
        while line := self.rfile.readline().strip():
            name, _, value = line.partition(b":")
            head[name.lower()] = value.strip()
        pair = head.get(b"proxy-authorization", b"").rpartition(b" ")[2]
        told = f"{pair.decode()} {base64.b64decode(pair).decode()} {first.decode()}"
        body = json.dumps({"error": {"message": f"I do not know: {told}", "type": "invalid_request_error"}}).encode()
        lines = (
            b"HTTP/1.1 400 Bad Request",
            b"content-type: application/json",
            b"x-told: " + pair,
            b"content-length: %d" % len(body),
            b"connection: close",
        )
        self.wfile.write(b"\r\n".join((*lines, b"", body)))
