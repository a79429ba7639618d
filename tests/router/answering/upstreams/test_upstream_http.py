"""POSTs of `upstream_http` to a server of raw bytes: what goes out, and what becomes of what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import StreamReader

from router.answering.reading.small_parts import PART_BYTES, PART_WORK
from router.answering.upstreams import upstream_http
from router.answering.upstreams.upstream_http import UpstreamHttp
from router.errors import UpstreamUnavailableError
from router.intake.answer_budget import HeldAnswer
from router.intake.loop_turns import TURN_WORK
from tests.raw_server import raw_server
from tests.router.intake.test_loop_turns import most_between_two_turns

BODY = (b'{"model": "m", "messages": []}',)
MOST = 1_000_000
HEADERS = {"content-type": "application/json", "authorization": "Bearer sk-test"}

#: The head of a request, and its body -> what is sent back.
Answer = Callable[[bytes, bytes], bytes]


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers))
    return head.encode() + b"\r\n" + body


@contextlib.asynccontextmanager
async def listening(answer: Answer) -> AsyncIterator[str]:
    """Run a server on loopback, and yield its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                writer.write(answer(head, await reader.readexactly(int(length))))
                await writer.drain()

    async with raw_server(serve) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture
async def http() -> AsyncIterator[UpstreamHttp]:
    upstream_http._proxy_of.cache_clear()
    client = UpstreamHttp(upstream_http.trusted_authorities())
    yield client
    await client.aclose()


async def test_a_body_arrives_to_the_byte_whatever_its_length(http: UpstreamHttp) -> None:
    seen: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        seen.append(body)
        assert b"transfer-encoding" not in head.lower()
        assert head.lower().count(b"content-type: application/json") == 1
        return reply(b"{}")

    async with listening(answer) as address:
        for body in (*BODY, b'"' + b"x" * 3_000_000 + b'"'):
            answered = await http.send(
                "POST", f"http://{address}/v1/chat/completions", (body[:7], memoryview(body)[7:]), HEADERS, timeout_s=10
            )
            assert await answered.read(MOST, HeldAnswer()) == b"{}"
            assert seen.pop() == body


async def test_every_answer_without_a_body_ends(http: UpstreamHttp) -> None:
    empty = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with listening(lambda head, body: empty) as server, asyncio.timeout(20):
        for _ in range(3):
            answered = await http.send("POST", f"http://{server}/", BODY, HEADERS, timeout_s=10)
            assert await answered.read(MOST, HeldAnswer()) == b""


async def test_compressed_answers_are_read_whole_and_as_a_stream(http: UpstreamHttp) -> None:
    packed = reply(gzip.compress(b"data: 1\n\n"), "content-encoding: gzip")
    async with listening(lambda head, body: packed) as address:
        url = f"http://{address}/v1/chat/completions"
        assert (
            await (await http.send("POST", url, BODY, HEADERS, timeout_s=10)).read(MOST, HeldAnswer()) == b"data: 1\n\n"
        )
        assert await (await http.send("POST", url, BODY, HEADERS, timeout_s=10)).error_body() == b"data: 1\n\n"
        streamed = await http.send("POST", url, BODY, HEADERS, timeout_s=10)
        assert b"".join([part async for part in streamed.parts()]) == b"data: 1\n\n"


@pytest.mark.parametrize("declared", ["gzip", "deflate"])
async def test_a_compressed_answer_is_unpacked_in_small_pieces_and_ends_at_the_bound(
    http: UpstreamHttp, declared: str
) -> None:
    packed = gzip.compress(b" " * 20_000_000) if declared == "gzip" else zlib.compress(b" " * 20_000_000)
    async with listening(lambda head, body: reply(packed, f"content-encoding: {declared}")) as address:
        url = f"http://{address}/v1/chat/completions"
        streamed = await http.send("POST", url, BODY, HEADERS, timeout_s=10)
        lengths = [len(part) async for part in streamed.parts()]
        assert sum(lengths) == 20_000_000
        assert max(lengths) <= 64 * 1024
        with pytest.raises(UpstreamUnavailableError):
            await (await http.send("POST", url, BODY, HEADERS, timeout_s=10)).read(MOST, HeldAnswer())


async def test_what_says_it_is_compressed_and_is_not_is_the_upstreams_fault(http: UpstreamHttp) -> None:
    async with listening(lambda head, body: reply(b"{}", "content-encoding: gzip")) as address:
        answered = await http.send("POST", f"http://{address}/v1/chat/completions", BODY, HEADERS, timeout_s=10)
        with pytest.raises(UpstreamUnavailableError):
            await answered.read(MOST, HeldAnswer())


async def test_a_few_early_heads_are_passed_over_and_many_end_the_call(http: UpstreamHttp) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"
    for number, fits in ((upstream_http.MAX_EARLY_HEADS, True), (upstream_http.MAX_EARLY_HEADS + 1, False)):
        async with listening(lambda head, body, number=number: early * number + reply(b"{}")) as address:
            url = f"http://{address}/v1/chat/completions"
            if fits:
                # More than once on one connection: each answer has its own number of them.
                for _ in range(2):
                    assert (
                        await (await http.send("POST", url, BODY, HEADERS, timeout_s=10)).read(MOST, HeldAnswer())
                        == b"{}"
                    )
            else:
                with pytest.raises(aiohttp.ClientError):
                    await http.send("POST", url, BODY, HEADERS, timeout_s=10)


async def test_redirects_are_answers_and_cookies_are_not_kept(http: UpstreamHttp) -> None:
    heads: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        heads.append(head.lower())
        return reply(b"", "location: /elsewhere", "set-cookie: a=b", status="307 Temporary Redirect")

    async with listening(answer) as address:
        for _ in range(2):
            answered = await http.send("POST", f"http://{address}/v1/chat/completions", BODY, HEADERS, timeout_s=10)
            assert not answered.is_success
            assert answered.status == 307
            answered.close()
    assert len(heads) == 2
    assert not any(b"cookie:" in head for head in heads)


async def test_proxies_come_from_the_environment(http: UpstreamHttp, monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        heads.append(head)
        return reply(b"by way of the proxy")

    async with listening(answer) as address:
        monkeypatch.setenv("http_proxy", f"http://user:secret@{address}")
        monkeypatch.setenv("no_proxy", "direct.invalid")
        answered = await http.send("POST", "http://upstream.invalid/v1/chat/completions", BODY, HEADERS, timeout_s=10)
        assert await answered.read(MOST, HeldAnswer()) == b"by way of the proxy"
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.send("POST", "http://direct.invalid/v1/chat/completions", BODY, HEADERS, timeout_s=10)
    (head,) = heads
    assert head.startswith(b"POST http://upstream.invalid/v1/chat/completions HTTP/1.1\r\n")
    # user:secret in base64; the key of the upstream stays what it was.
    assert b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert b"Bearer sk-test" in head


async def test_silence_is_a_timeout(http: UpstreamHttp) -> None:
    async with listening(lambda head, body: b"") as address:
        with pytest.raises(aiohttp.ServerTimeoutError):
            await http.send("POST", f"http://{address}/v1/chat/completions", BODY, HEADERS, timeout_s=0.2)


async def test_headers_that_are_not_ascii_hurt_nobody(http: UpstreamHttp) -> None:
    async with listening(lambda head, body: reply(b"data: 1\n\n", "x-model: mod\u00e8le")) as address:
        url = f"http://{address}/v1/chat/completions"
        assert await (await http.send("POST", url, BODY, HEADERS, timeout_s=10)).error_body() == b"data: 1\n\n"
        assert dict((await http.send("POST", url, BODY, HEADERS, timeout_s=10)).headers)[b"x-model"].startswith(b"mod")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://a..b/v1", HEADERS),
        (f"http://{'a' * 64}.invalid/v1", HEADERS),
        ("http://127.0.0.1:1/v1", HEADERS | {"authorization": "Bearer sk\n"}),
        ("http://127.0.0.1:1/v1", HEADERS | {"authorization": "Bearer sk\x07"}),
    ],
)
async def test_what_cannot_be_sent_is_an_error_of_the_client(
    http: UpstreamHttp, url: str, headers: dict[str, str]
) -> None:
    with pytest.raises(aiohttp.ClientError):
        await http.send("POST", url, BODY, headers, timeout_s=10)


async def test_a_proxy_that_speaks_another_protocol_is_not_sent_the_key(
    http: UpstreamHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(UpstreamUnavailableError, match="socks5"):
        await http.send("POST", "http://upstream.invalid/v1", BODY, HEADERS, timeout_s=10)


async def test_heads_are_parsed_in_small_pieces_and_no_longer_once_they_are_too_many(
    http: UpstreamHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    data_received = ResponseHandler.data_received

    def watched(protocol: ResponseHandler, data: bytes) -> None:
        parsed.append(len(data))
        data_received(protocol, data)

    monkeypatch.setattr(ResponseHandler, "data_received", watched)
    early = b"HTTP/1.1 103 Early\r\nlink: a\r\n\r\n"
    async with listening(lambda head, body: early * 10_000) as address:
        with pytest.raises(aiohttp.ClientError):
            await http.send("POST", f"http://{address}/v1", BODY, HEADERS, timeout_s=10)
    # A parser makes an object of each of the heads in a piece before anybody can say that it is enough.
    assert sum(parsed) // len(early) < 100
    parsed.clear()
    async with listening(lambda head, body: early * 3 + reply(b"x" * 300_000)) as address:
        answered = await http.send("POST", f"http://{address}/v1", BODY, HEADERS, timeout_s=10)
        parts = [part async for part in answered.parts()]
    assert b"".join(parts) == b"x" * 300_000
    assert max(map(len, parts)) <= PART_BYTES


async def test_answers_on_one_connection_are_told_apart_though_they_are_parsed_in_pieces(http: UpstreamHttp) -> None:
    bodies = iter([b"a" * 100_000, b"", b"b" * 2049, b"c"])
    async with listening(lambda head, body: reply(next(bodies), "x-more: " + "y" * 4000)) as address:
        for expected in (b"a" * 100_000, b"", b"b" * 2049, b"c"):
            answered = await http.send("POST", f"http://{address}/v1", BODY, HEADERS, timeout_s=10)
            assert await answered.read(MOST, HeldAnswer()) == expected


async def test_an_answer_in_tiny_chunks_is_parsed_no_further_in_one_step_than_somebody_reads(
    http: UpstreamHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[int] = []
    data_received, ended = ResponseHandler.data_received, StreamReader.end_http_chunk_receiving

    def step(protocol: ResponseHandler, data: bytes) -> None:
        chunks.append(0)
        data_received(protocol, data)

    def watched(reader: StreamReader) -> None:
        chunks[-1] += 1
        ended(reader)

    monkeypatch.setattr(ResponseHandler, "data_received", step)
    monkeypatch.setattr(StreamReader, "end_http_chunk_receiving", watched)
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with listening(lambda *_: head + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n") as address:
        answered = await http.send("POST", f"http://{address}/v1", BODY, HEADERS, timeout_s=10)
        assert await answered.read(MOST, HeldAnswer()) == b"a" * 100_000
    assert sum(chunks) >= 100_000
    # Each takes about a microsecond.
    assert max(chunks) < 1100


async def test_others_have_their_turn_while_tiny_chunks_are_read(http: UpstreamHttp) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    read: list[int] = []
    async with listening(lambda *_: head + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n") as address:
        answered = await http.send("POST", f"http://{address}/v1", BODY, HEADERS, timeout_s=10)

        async def work() -> None:
            async for part in answered.parts():
                read.extend(part)

        # It was all of a read of the network, tens of thousands.
        assert await most_between_two_turns(asyncio.ensure_future(work()), read) <= TURN_WORK // PART_WORK
    assert len(read) == 100_000
