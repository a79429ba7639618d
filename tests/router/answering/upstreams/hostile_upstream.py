"""A server of raw bytes that answers as the first part of the path says: too much, too long, without an end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

from tests.raw_server import raw_server
from tests.router.faults import answer

MEGABYTE = 2**20

#: What was asked for, oldest first.
asked: list[str] = []


def _with_probabilities(n_tokens: int) -> dict[str, Any]:
    """Return an answer with the probabilities of its tokens, as `logprobs` and `top_logprobs` ask for them."""
    one = {"token": "a", "logprob": -0.5, "bytes": [97]}
    made = answer()
    made["choices"][0]["logprobs"] = {"content": [{**one, "top_logprobs": [one] * 5}] * n_tokens, "refusal": None}
    return made


#: What each path answers as the body of a whole answer.
BODIES = {
    "half-surrogate": json.dumps(answer("half \ud83d")).encode(),
    "nan": json.dumps(answer() | {"score": float("nan")}).encode(),
    "huge-number": json.dumps(answer()).encode().replace(b'"created": 1', b'"created": 1e400'),
    "long-number": json.dumps(answer()).encode().replace(b'"created": 1', b'"created": ' + b"1" * 5000),
    "deep": json.dumps(answer()).encode()[:-1] + b', "x": ' + b"[" * 970 + b"]" * 970 + b"}",
    "lists": json.dumps(answer()).encode()[:-1] + b', "x": [' + b"[]," * 1_500_000 + b"[]]}",
    "many": json.dumps(answer("é" * 70_000)).encode()[:-1] + b', "x": [' + b"[1]," * 60_000 + b"[]]}",
    "probabilities": json.dumps(_with_probabilities(1000)).encode(),
    "too-many-probabilities": json.dumps(_with_probabilities(10_000)).encode(),
    "many-in-message": json.dumps(answer()).encode().replace(b'"role"', b'"x": [' + b"[1]," * 12_000 + b'[]], "role"'),
    "ok": json.dumps(answer()).encode(),
}


def head(status: int, kind: str, *more: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} S", f"content-type: {kind}", *more, "", "")).encode()


async def _write(mode: str, writer: asyncio.StreamWriter) -> None:
    """Write at most 300 MB, or until the client hangs up."""
    status, _, rest = mode.partition("-")
    if status.isdecimal():
        body = b'{"error": {"message": "' + b"lorem ipsum dolor " * (int(rest) // 18) + b'"}}'
        writer.write(head(int(status), "application/json", f"content-length: {len(body)}") + body)
        return
    if mode in BODIES:
        writer.write(head(200, "application/json", f"content-length: {len(BODIES[mode])}") + BODIES[mode])
        return
    if mode == "silence":
        await asyncio.sleep(5)
        return
    if mode == "long-head":
        writer.write(b"HTTP/1.1 200 OK\r\n")
    elif mode == "early-heads":
        pass
    elif mode == "bomb":
        writer.write(head(200, "application/json", "content-encoding: gzip"))
    else:
        writer.write(head(200, "text/event-stream" if mode.startswith("events") else "application/json"))
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    piece = {
        "endless": b"x" * MEGABYTE,
        "bomb": b" " * MEGABYTE,
        "early-heads": b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n" * 10_000,
        "long-head": b"x-more: %s\r\n" % (b"y" * 4000) * 256,
        "events-one-line": b"y" * MEGABYTE,
        "events-lines": b"data: a\n" * (MEGABYTE // 8),
        "events-comments": b":\n\n" * (MEGABYTE // 3),
    }[mode]
    for _ in range(300):
        writer.write(packer.compress(piece) if mode == "bomb" else piece)
        await writer.drain()


@contextlib.asynccontextmanager
async def hostile_upstream() -> AsyncIterator[str]:
    """Run it in this loop, and yield its URL without the path."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            sent = await reader.readuntil(b"\r\n\r\n")
            length = int(sent.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            asked.append(sent.split(b"/")[1].decode())
            await _write(asked[-1], writer)
            await writer.drain()

    async with raw_server(serve) as port:
        yield f"http://127.0.0.1:{port}"
