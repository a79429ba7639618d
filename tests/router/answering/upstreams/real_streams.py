"""What upstreams really send, in each API format, and a server of raw bytes that sends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.raw_server import raw_server

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nretry-after: 9\r\nX-RateLimit-Remaining-Requests: 7\r\n\r\n"
)

USAGE = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}

#: What is sent, or one of these: say nothing, keep the connection open until the client leaves, or reset it.
Step = bytes | str
PAUSE, STAY, RESET = "pause", "stay", "reset"


def data(value: Any, name: str = "") -> bytes:
    """Return an event; bytes are sent as they are."""
    named = f"event: {name}\n".encode() if name else b""
    return named + b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def chunk(
    delta: dict[str, Any] | None, finish_reason: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "x"}
    return {**head, "choices": [choice], **more}


FIRST, SECOND, STOP = (
    data(chunk({"role": "assistant", "content": "forty-"})),
    data(chunk({"content": "two"})),
    data(chunk({}, "stop")),
)
DONE = data(b"[DONE]")
TEXT = FIRST + SECOND

WRONG_TYPE = "a wrong content type"

#: Streams of chat completions that are whole, whatever else is in them.
WHOLE_CHATS: dict[str, list[Step]] = {
    "usage without choices": [TEXT + STOP + data({"id": "c", "usage": USAGE}) + DONE],
    "usage with choices null": [TEXT + STOP + data({"id": "c", "choices": None, "usage": USAGE}) + DONE],
    "usage with choices empty": [TEXT + STOP + data({"id": "c", "choices": [], "usage": USAGE}) + DONE],
    "null": [data(b"null") + FIRST + data(b"null") + SECOND + STOP + data(b"null") + DONE],
    "comments": [b": hi\n\n" + FIRST + b": hi\n\n:\n" + SECOND + STOP + b": bye\n\n" + DONE],
    "id and retry": [b"id: 1\n\nretry: 5\n\n" + FIRST + b"id: 7\nretry: 3\n" + SECOND + STOP + b"id\n" + DONE],
    "pings": [data({"type": "ping"}, "ping") + FIRST + b"event: ping\n\n" + SECOND + data(b"", "ping") + STOP + DONE],
    "empty events": [b"\n\ndata:\n\n" + FIRST + b"data\n\n\n\n" + SECOND + STOP + b"data: \n\n" + DONE],
    "CRLF": [(TEXT + STOP + DONE).replace(b"\n", b"\r\n")],
    "CR": [(TEXT + STOP + DONE).replace(b"\n", b"\r")],
    "a byte order mark": [b"\xef\xbb\xbf" + TEXT + STOP + DONE],
    "data in lines": [b"data: {\ndata: " + FIRST[7:] + SECOND + STOP + DONE],
    "no empty line at the end": [TEXT + STOP + b"data: [DONE]"],
    "no DONE": [TEXT + STOP],
    "no reason of the end": [TEXT + DONE],
    "half of an event at the end": [TEXT + STOP + b'data: {"id": "c", "cho'],
    "nonsense behind the end": [TEXT + STOP + data(b"{nope") + data({"choices": "many"})],
    "a reset behind the end": [TEXT + STOP, PAUSE, RESET],
    "a connection that stays open": [TEXT + STOP, STAY],
    "empty reasons and a pause": [
        data(chunk({"content": "forty-"}, "")),
        *[PAUSE] * 6,
        data(chunk({"content": "two"}, "null")) + STOP + DONE,
    ],
    "-Infinity": [FIRST + data(chunk({"content": "two"}, score=[float("-inf"), float("nan")])) + STOP + DONE],
    "1e400": [FIRST + SECOND.replace(b'"id"', b'"score": 1e400, "id"') + STOP + DONE],
    "bytes that are no UTF-8": [FIRST + SECOND.replace(b'"x"', b'"\xff"') + STOP + DONE],
    "a delta that is null": [data(chunk(None)) + TEXT + STOP + DONE],
    WRONG_TYPE: [TEXT + STOP + DONE],
}

#: Half of a surrogate pair, the other half of which comes in the next chunk or never.
SURROGATE = FIRST.replace(b"forty-", b"\\ud83d") + SECOND + STOP + DONE


def reported(**error: Any) -> dict[str, Any]:
    return {"error": {"message": "sk-abcdefghijklmnopqrstuvwxyz123456 it failed", **error}}


#: Errors in an answer of status 200, as each is sent, with the class, the code, the parameter and the wait of ours.
ERRORS: dict[str, tuple[dict[str, Any], str, str | None, str | None, float | None]] = {
    "OpenAI's code and param": (
        reported(type="invalid_request_error", code="context_length_exceeded", param="messages"),
        *("UPSTREAM_CONTEXT_WINDOW", "context_length_exceeded", "messages", 9.0),
    ),
    "a filter": (reported(code="content_filter", param="prompt"), "UPSTREAM_REJECTED", "content_filter", "prompt", 9.0),
    "OpenRouter's status and wait": (
        reported(code=429, metadata={"headers": {"Retry-After": "7"}}),
        *("UPSTREAM_RATE_LIMITED", None, None, 7.0),
    ),
    "a wait in milliseconds": (
        reported(type="rate_limit_error", code="rate_limit_exceeded", retry_after_ms=250),
        *("UPSTREAM_RATE_LIMITED", "rate_limit_exceeded", None, 0.25),
    ),
    "a choice that ended in error": (
        chunk({"content": ""}, "error", error={"code": 502, "message": "it failed"}),
        *("UPSTREAM_UNAVAILABLE", None, None, 9.0),
    ),
    "a choice that says no more": (chunk({}, "error"), "UPSTREAM_UNAVAILABLE", None, None, 9.0),
    "Ollama's words": ({"error": "it failed"}, "UPSTREAM_UNAVAILABLE", None, None, 9.0),
    "vLLM's object": (
        {"object": "error", "message": "it failed", "type": "BadRequestError", "param": None, "code": 400},
        *("UPSTREAM_REJECTED", None, None, 9.0),
    ),
    "a key that is refused": (reported(code="invalid_api_key"), "UPSTREAM_DENIED", None, None, 9.0),
}


def whole_of(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error as an answer in one piece reports it, whose choices hold messages."""
    choices = error.get("choices")
    return error | (
        {"choices": [{**one, "message": one.pop("delta")} for one in map(dict, choices)]} if choices else {}
    )


async def send(writer: asyncio.StreamWriter, steps: list[Step]) -> None:
    for step in steps:
        if step == PAUSE:
            await asyncio.sleep(0.05)
        elif step == STAY:
            await asyncio.sleep(60)
        elif step == RESET:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            assert isinstance(step, bytes)
            writer.write(step)
            await writer.drain()


@contextlib.asynccontextmanager
async def sending(find: Callable[[str], list[Step]]) -> AsyncIterator[str]:
    """Serve what `find` returns for the first part of the path; yield the URL without the path."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            await send(writer, find(head.split(b"/")[1].decode()))

    async with raw_server(serve) as port:
        yield f"http://127.0.0.1:{port}"
