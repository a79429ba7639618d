"""Be the upstream of the fuzzed service: answer well, or with the random answer that a case brings along."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.fuzz import apis
from tests.fuzz.values import Values, to_json

#: An answer as cases hold it: `{"status", "type", "body"}`, bytes as text of one character each.
Answer = dict[str, Any]

JSON, EVENTS = "application/json", "text/event-stream"

GOOD = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "forty-two"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


def good(*, stream: bool) -> Answer:
    """Return the answer to every request that brings no answer of its own."""
    if not stream:
        return {"status": 200, "type": JSON, "body": json.dumps(GOOD)}
    said = [{"index": 0, "delta": {"role": "assistant", "content": "forty-two"}}]
    end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    chunks = [json.dumps({**GOOD, "object": "chat.completion.chunk", "choices": choices}) for choices in (said, end)]
    return {"status": 200, "type": EVENTS, "body": "".join(f"data: {chunk}\n\n" for chunk in (*chunks, "[DONE]"))}


def draw(v: Values, *, stream: bool) -> Answer:
    """Return a random answer that is nearly a chat completion."""
    status = v.random.choice((200,) * 12 + (201, 204, 302, 400, 401, 404, 413, 422, 429, 500, 503, 599))
    kind = v.random.choice((EVENTS if stream else JSON,) * 9 + (JSON, EVENTS, "text/html", ""))
    body = _events(v) if stream else to_json(_error(v) if status >= 400 else _completion(v, "message"))
    if v.chance(0.1):
        at = v.random.randrange(len(body) + 1)
        body = v.one_of(body[:at], body[:at] + v.one_of("\x00", "\xff", "\ud800", "\n\n", "}") + body[at:])
    return {"status": status, "type": kind, "body": body.encode(errors="surrogatepass").decode("latin-1")}


def _events(v: Values) -> str:
    lines = []
    for _ in range(v.one_of(0, 1, 2, 5)):
        lines.append("data: " + to_json(v.usually(lambda: _completion(v, "delta"))))
        if v.chance(0.1):
            lines.append(v.one_of(": comment", "event: ping", "event: error", "id: 5", "retry: x", "nonsense", "data"))
        lines.append("")
    if v.chance(0.8):
        lines += ["data: [DONE]", "", ""]
    return v.one_of("\n", "\n", "\n", "\r\n").join(lines)


def _completion(v: Values, part: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        **GOOD,
        "choices": v.usually(lambda: [_choice(v, part) for _ in range(v.one_of(1, 1, 2, 0))]),
    }
    body["usage"] = v.usually(lambda: _usage(v))
    for _ in range(v.one_of(0, 0, 1, 2)):
        body[v.random.choice((*GOOD, v.text()))] = v.value()
    return body


def _choice(v: Values, part: str) -> dict[str, Any]:
    def said() -> dict[str, Any]:
        found = {"role": "assistant", "content": v.usually(v.text)}
        return found | v.some(
            tool_calls=lambda: [{"index": 0, "id": v.text(), "function": {"name": v.text(), "arguments": v.text()}}],
            reasoning_content=v.text,
            refusal=v.text,
            audio=v.value,
            annotations=v.value,
        )

    choice = {"index": v.usually(lambda: 0), part: v.usually(said), "finish_reason": v.one_of("stop", "length", None)}
    return choice | v.some(logprobs=v.value, finish_reason=v.value, index=v.scalar)


def _usage(v: Values) -> dict[str, Any]:
    counts: dict[str, Callable[[], Any]] = {
        "prompt_tokens": v.scalar,
        "completion_tokens": v.scalar,
        "total_tokens": v.scalar,
        "prompt_tokens_details": lambda: v.usually(lambda: {"cached_tokens": v.scalar()}),
        "cost": v.scalar,
    }
    return v.some(**counts)


def _error(v: Values) -> Any:
    said = {"message": v.usually(v.text), "type": v.scalar(), "code": v.scalar(), "param": v.value()}
    return v.usually(lambda: {"error": said}, 0.8)


class Upstream:
    """Answers requests whose `user`, or `metadata.user_id`, is a key of `answers` with that answer, all others well."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def app(self) -> Starlette:
        paths = ("/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens")
        return Starlette(routes=[Route(path, self._complete, methods=["POST"]) for path in paths])

    async def _complete(self, request: Request) -> Response:
        body = await request.json()
        is_message, metadata = "messages" in request.url.path, body.get("metadata")
        user = body.get("user")
        if is_message:
            user = metadata.get("user_id") if isinstance(metadata, dict) else None
        answer = self.answers.get(user) if isinstance(user, str) else None
        usual = apis.good_message if is_message else good
        answer = answer or usual(stream=bool(body.get("stream")))
        raw = answer["body"].encode("latin-1")
        headers = {"content-type": answer["type"]} if answer["type"] else {}
        return Response(raw if answer["status"] != 204 else b"", answer["status"], headers)
