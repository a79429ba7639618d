"""Be an upstream that means harm: `/MODE/v1/chat/completions` answers as the function of that name here says.

    python -m benchmarks.attack.hostile_upstream

Says its URL on stderr. Ends when it is terminated.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import zlib
from collections.abc import Awaitable, Callable

from benchmarks.attack.courtesy import step_back

Writer = asyncio.StreamWriter
Mode = Callable[[Writer], Awaitable[None]]

MB = 1_000_000
PIECE = b"x" * 65_536

_START = b'{"id":"c","object":"chat.completion","created":1,"model":"x",'
_CHOICE = b'"choices":[{"index":0,"message":{"role":"assistant","content":"forty-two"},"finish_reason":"stop"}]'


async def good(writer: Writer) -> None:
    """Answer well."""
    await _whole(writer, _START + _CHOICE + b"}")


async def error_of_100_kilobytes(writer: Writer) -> None:
    """Answer with an error that takes long to search."""
    await _error(writer, 100_000)


async def error_of_a_megabyte(writer: Writer) -> None:
    """Answer with an error that is longer."""
    await _error(writer, MB)


async def endless_error(writer: Writer) -> None:
    """Answer with an error that has no end."""
    await _head(writer, "500 Broken")
    while True:
        await _send(writer, PIECE)


async def answer_of_100_megabytes(writer: Writer) -> None:
    """Answer without saying how long the answer is."""
    await _long(writer, 100 * MB)


async def answer_of_a_gigabyte(writer: Writer) -> None:
    """Answer without saying how long the answer is."""
    await _long(writer, 1000 * MB)


async def gzip_bomb(writer: Writer) -> None:
    """Answer with two gigabytes of blanks, compressed to two megabytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    await _head(writer, "200 OK", "content-type: application/json", "content-encoding: gzip")
    for _ in range(2000):
        await _send(writer, packer.compress(b" " * MB))
    await _send(writer, packer.flush())


async def empty_lists(writer: Writer) -> None:
    """Answer with five million empty lists beside the answer."""
    await _whole(writer, _START + _CHOICE + b',"x":[' + b"[]," * (5 * MB) + b"[]]}")


async def as_many_values_as_pass(writer: Writer) -> None:
    """Answer with lists of one number each, just as many as are read of an answer."""
    await _whole(writer, _START + _CHOICE + b',"x":[' + b"[1]," * 99_000 + b"[]]}")


async def as_many_probabilities_as_pass(writer: Writer) -> None:
    """Answer with token probabilities, which a library checks, just as many as are read of an answer."""
    token = b'{"token":"a","logprob":-1.5,"bytes":[97],"top_logprobs":[' + b",".join(
        [b'{"token":"a","logprob":-1.5}'] * 20
    )
    many = b",".join([token + b"]}"] * 3_000)
    choice = _CHOICE.removesuffix(b"}]") + b',"logprobs":{"content":[' + many + b"]}}]"
    await _whole(writer, _START + choice + b"}")


async def text_of_many_commas(writer: Writer) -> None:
    """Answer with a text of 4 MB that has more commas than are read."""
    begun = _START + b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    await _whole(writer, begun + b"word, " * (4 * MB // 6) + b'"},"finish_reason":"stop"}]}')


async def text_as_long_as_passes(writer: Writer) -> None:
    """Answer with a text of 4 MB without a comma."""
    begun = _START + b'"choices":[{"index":0,"message":{"role":"assistant","content":"'
    await _whole(writer, begun + b"word  " * (4 * MB // 6) + b'"},"finish_reason":"stop"}]}')


async def slow_answer(writer: Writer) -> None:
    """Answer by one byte every 50 ms."""
    await _head(writer, "200 OK", "content-type: application/json", "content-length: 100000")
    await _drip(writer)


async def slow_error(writer: Writer) -> None:
    """Answer with an error by one byte every 50 ms."""
    await _head(writer, "500 Broken", "content-type: application/json", "content-length: 100000")
    await _drip(writer)


async def endless_headers(writer: Writer) -> None:
    """Send headers without an end."""
    await _send(writer, b"HTTP/1.1 200 OK\r\n")
    while True:
        await _send(writer, b"x-%b: %b\r\n" % (b"a" * 20, b"y" * 4000))


async def endless_header(writer: Writer) -> None:
    """Send one header without an end."""
    await _send(writer, b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        await _send(writer, PIECE)


async def endless_early_heads(writer: Writer) -> None:
    """Send heads of status 103, and never the last one."""
    while True:
        await _send(writer, b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n" * 100)


async def endless_chunks(writer: Writer) -> None:
    """Answer in chunks of one byte, without an end."""
    await _head(writer, "200 OK", "content-type: application/json", "transfer-encoding: chunked")
    while True:
        await _send(writer, b"1\r\n \r\n" * 10_000)


async def endless_line(writer: Writer) -> None:
    """Send a stream whose first line has no end."""
    await _head(writer, "200 OK", "content-type: text/event-stream")
    await _send(writer, b"data: ")
    while True:
        await _send(writer, PIECE)


async def endless_event(writer: Writer) -> None:
    """Send a stream whose first event has no end."""
    await _events(writer, b"data: a\n" * 8192)


async def endless_comments(writer: Writer) -> None:
    """Send a stream that consists of comments."""
    await _events(writer, b":\n\n" * 16_384)


async def endless_events(writer: Writer) -> None:
    """Send a stream of events without an end, each of one letter."""
    delta = b'{"index":0,"delta":{"content":"a"},"finish_reason":null}'
    await _events(writer, (b"data: " + _START + b'"choices":[' + delta + b"]}\n\n") * 500)


async def events_of_many_values(writer: Writer) -> None:
    """Send a stream of events, each of as many values as are read of one."""
    delta = b'{"index":0,"delta":{"content":"a"},"finish_reason":null}'
    many = b',"x":[' + b"[1]," * 99_000 + b"[]]"
    await _events(writer, b"data: " + _START + b'"choices":[' + delta + b"]" + many + b"}\n\n")


MODES: dict[str, Mode] = {
    mode.__name__: mode
    for mode in (
        *(good, error_of_100_kilobytes, error_of_a_megabyte, endless_error, answer_of_100_megabytes),
        *(answer_of_a_gigabyte, gzip_bomb, empty_lists, as_many_values_as_pass, as_many_probabilities_as_pass),
        *(text_of_many_commas, text_as_long_as_passes),
        *(slow_answer, slow_error, endless_headers, endless_header, endless_early_heads, endless_chunks),
        *(endless_line, endless_event, endless_comments, endless_events, events_of_many_values),
    )
}

#: Those that are asked for a stream.
STREAMED = frozenset(
    mode.__name__ for mode in (endless_line, endless_event, endless_comments, endless_events, events_of_many_values)
)


async def _send(writer: Writer, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _head(writer: Writer, status: str, *headers: str) -> None:
    await _send(writer, "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode())


async def _whole(writer: Writer, body: bytes) -> None:
    await _head(writer, "200 OK", "content-type: application/json", f"content-length: {len(body)}")
    await _send(writer, body)


async def _error(writer: Writer, size: int) -> None:
    body = json.dumps({"error": {"message": "lorem ipsum dolor " * (size // 18)}}).encode()
    await _head(writer, "500 Broken", "content-type: application/json", f"content-length: {len(body)}")
    await _send(writer, body)


async def _long(writer: Writer, size: int) -> None:
    await _head(writer, "200 OK", "content-type: application/json")
    await _send(writer, _START + b'"choices":[{"index":0,"message":{"role":"assistant","content":"')
    for _ in range(size // len(PIECE)):
        await _send(writer, PIECE)


async def _drip(writer: Writer) -> None:
    while True:
        await _send(writer, b" ")
        await asyncio.sleep(0.05)


async def _events(writer: Writer, again: bytes) -> None:
    await _head(writer, "200 OK", "content-type: text/event-stream")
    while True:
        await _send(writer, again)


async def _serve(reader: asyncio.StreamReader, writer: Writer) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            mode = head.split(b" ")[1].split(b"/")[1].decode()
            await MODES[mode](writer)
            if mode not in {"good", "error_of_100_kilobytes"}:
                break
    writer.close()


async def main() -> None:
    """Serve the upstream until it is terminated."""
    step_back()
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(f"hostile upstream on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
