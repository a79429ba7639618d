"""The built-in upstream is an OpenAI-compatible application that answers every request with the same kind of text.

It exists so that the embedded default really goes through LiteLLM and HTTP without any key. It is not a model, and
every answer says so. Two model names have a simulated ability, so that `elle start --offline` has something to learn:
`SIMULATED`. Their answers say whether they count as right.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


#: The share of plain prompts and of hard prompts that each simulated model answers rightly. A prompt that the weak one
#: answers rightly is also answered rightly by the strong one.
SIMULATED: Mapping[str, tuple[float, float]] = {"simulated-weak": (0.97, 0.35), "simulated-strong": (0.97, 0.92)}

#: What the answer of a simulated model ends with if it counts as right, and if it does not.
RIGHT, WRONG = "(simulated: right)", "(simulated: wrong)"

#: Words of prompts that count as hard for simulated models, and from how many words on every prompt does.
_HARD = re.compile(
    r"\b(prove|proof|theorem|integral|derive|derivative|equation|algorithm|function|code|python|regex|sql|debug|"
    r"optimi[sz]e|analy[sz]e|calculate|probability|legal|contract|diagnos\w*)\b",
    re.IGNORECASE,
)
_LONG_WORDS = 60


def canned_text(model: str, prompt: str = "") -> str:
    """Return the text that a request to this upstream is answered with. `prompt` matters to simulated models only."""
    text = f"[canned answer of the built-in demo upstream, standing in for {model}; no language model was asked]"
    if model not in SIMULATED:
        return text
    return f"{text} {RIGHT if is_right(model, prompt) else WRONG}"


def is_right(model: str, prompt: str) -> bool:
    """Return whether a simulated model counts as right on a prompt; the same prompt gives the same each time."""
    hard = _HARD.search(prompt) is not None or len(prompt.split()) >= _LONG_WORDS
    draw = int.from_bytes(hashlib.blake2b(prompt.encode("utf-8", "replace"), digest_size=8).digest()) / 2**64
    return draw < SIMULATED[model][hard]


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
        text = canned_text(model, str(messages[-1].get("content")) if messages else "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        error = {
            "message": "the body must be a JSON object with `model` and `messages`.",
            "type": "invalid_request_error",
        }
        return JSONResponse({"error": error}, status_code=400)
    usage = {"prompt_tokens": words, "completion_tokens": len(text.split())}
    usage["total_tokens"] = sum(usage.values())
    if body.get("stream"):
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and bool(options.get("include_usage"))
        return StreamingResponse(_events(model, text, usage if wants_usage else None), media_type="text/event-stream")
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return JSONResponse(_envelope(model, "chat.completion") | {"choices": [choice], "usage": usage})


async def _events(model: str, text: str, usage: dict[str, int] | None) -> AsyncIterator[str]:
    head = _envelope(model, "chat.completion.chunk")

    def event(**fields: Any) -> str:
        return f"data: {json.dumps(head | fields)}\n\n"

    for word in text.split(" "):
        delta = {"role": "assistant", "content": f"{word} "}
        yield event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])
    yield event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    if usage is not None:
        yield event(choices=[], usage=usage)
    yield "data: [DONE]\n\n"


def _envelope(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}
