"""Send cases through the doors of a running service, and say how each ended and whether that is our fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httptools

from tests.fuzz.answers import Answer
from tests.fuzz.cases import PROCESS, STREAMS_IN, Case
from tests.fuzz.protobuf import encode

#: Seconds after which a case that has no answer is a fault.
PATIENCE_S = 20.0

#: Characters of an error's message, bytes of a status with its details: more is a caller's text given back whole.
MAX_MESSAGE, MAX_STATUS = 4000, 6000

#: What no input may cause. The last two mean that nobody answered; RESOURCE_EXHAUSTED is told apart below.
FAULTY_CODES = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS", "DEADLINE_EXCEEDED", "CANCELLED"})

#: What a server says to a client that asks whether to send its body.
_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"

#: How bodies begin that are events, and what uvicorn says of a request that is no HTTP.
_NOT_JSON = (b"data: ", b"event: ", b"Invalid HTTP")

#: What grpc.aio says where the service had ended the stream before the client wrote its next message.
_NOT_OF_THE_SERVICE = "Internal error from Core"


@dataclass(frozen=True)
class Ended:
    """Says how a case ended: a status in words, and what is wrong with it, which is empty if nothing is."""

    status: str
    fault: str = ""
    detail: str = ""


class Doors:
    """Holds connections to one service. Use as a context manager, in one event loop."""

    def __init__(
        self, grpc_address: str, http_address: str, answers: dict[str, Answer], *, n_connections: int = 8
    ) -> None:
        self._answers = answers
        self._grpc_address = grpc_address
        self._host, _, port = http_address.rpartition(":")
        self._port = int(port)
        self._places = asyncio.Semaphore(n_connections)
        self._idle: list[_Connection] = []

    async def __aenter__(self) -> Doors:
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(self._grpc_address, options=options)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._channel.close()
        for connection in self._idle:
            connection.close()

    async def send(self, case: Case) -> Ended:
        """Send one case, and return how it ended."""
        async with self._places:
            if "answer" in case:
                self._answers[case["user"]] = case["answer"]
            try:
                async with asyncio.timeout(PATIENCE_S):
                    ended = await (self._http(case) if case["door"] == "http" else self._grpc(case))
            except TimeoutError:
                return Ended("no answer", "no answer")
            finally:
                self._answers.pop(case.get("user", ""), None)
            return _judge_answered(case, ended) if "answer" in case else ended

    async def _grpc(self, case: Case) -> Ended:
        metadata = tuple(
            (key, value.encode(errors="surrogatepass") if key.endswith("-bin") else value)
            for key, value in case["metadata"]
        )
        messages = [encode(tree) for tree in case["messages"]]
        try:
            if case["method"] in STREAMS_IN:
                call: Any = self._channel.stream_stream(case["method"])(_one_by_one(messages), metadata=metadata)
            else:
                call = self._channel.unary_stream(case["method"])(b"".join(messages[:1]), metadata=metadata)
            answers = [answer async for answer in call]
        except grpc.aio.AioRpcError as error:
            if error.details() == _NOT_OF_THE_SERVICE and len(messages) > 1:
                return await self._grpc({**case, "messages": case["messages"][:-1]})
            return _judge_grpc(error)
        if case["method"] == PROCESS:
            return _judge_envoy(answers)
        return Ended("OK")

    async def _http(self, case: Case) -> Ended:
        connection = self._idle.pop() if self._idle else await _Connection.open(self._host, self._port)
        try:
            answer = await connection.ask(_http_bytes(case), is_head=case["method"] == "HEAD")
        except (ConnectionError, asyncio.IncompleteReadError, httptools.HttpParserError) as error:
            connection.close()
            return Ended("broken", f"no whole answer: {type(error).__name__}", f"{error} {connection.last[:200]!r}")
        except BaseException:
            connection.close()
            raise
        if answer.keep:
            self._idle.append(connection)
        else:
            connection.close()
        return _judge_http(case, answer)


async def _one_by_one(messages: list[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def _judge_answered(case: Case, ended: Ended) -> Ended:
    """Return how a case with a failing upstream ended: a status that blames us or the caller is a fault."""
    is_ours = ended.status in {"INTERNAL", "UNKNOWN", "500"}
    is_blamed = case["answer"]["status"] < 400 and ended.status in {"INVALID_ARGUMENT", "400"}
    is_whole = ended.fault in FAULTY_CODES or ended.fault.isdigit()
    fault = ended.status if is_ours or is_blamed else "" if is_whole else ended.fault
    return Ended(f"upstream {ended.status}", fault, ended.detail)


def _judge_grpc(error: grpc.aio.AioRpcError) -> Ended:
    code, words = error.code().name, error.details() or ""
    details = b"".join(value for key, value in error.trailing_metadata() or () if key == "grpc-status-details-bin")
    fault = ""
    if code in FAULTY_CODES or (code == "RESOURCE_EXHAUSTED" and not details):
        fault = code
    elif len(words) > MAX_MESSAGE or len(details) > MAX_STATUS:
        fault = "echo"
    return Ended(code, fault, words[:300])


def _judge_envoy(answers: list[bytes]) -> Ended:
    # Imported late: Envoy's messages are many.
    from envoy.service.ext_proc.v3 import external_processor_pb2

    for raw in answers:
        answer = external_processor_pb2.ProcessingResponse.FromString(raw)
        if answer.HasField("immediate_response"):
            status = int(answer.immediate_response.status.code)
            body = answer.immediate_response.body
            fault = f"envoy {status}" if status >= 500 else "echo" if len(body) > MAX_MESSAGE else ""
            return Ended(f"envoy {status}", fault, body[:300].decode(errors="replace"))
    return Ended("envoy OK")


@dataclass
class _Answer:
    status: int
    body: bytes
    keep: bool


def _judge_http(case: Case, answer: _Answer) -> Ended:
    status, words = str(answer.status), answer.body[:300].decode(errors="replace")
    timed = any(name == "x-elle-timeout-s" for name, _ in case["headers"])
    # A decision model that declines says so with status 503, by design: nothing else must look like an answer.
    declined = answer.status == 503 and b'"code":"undecided"' in answer.body
    if answer.status >= 500 and not declined and not (answer.status == 504 and timed):
        return Ended(status, status, words)
    if answer.status >= 400 and len(answer.body) > MAX_MESSAGE:
        return Ended(status, "echo", words)
    if answer.body and case["method"] != "HEAD" and not answer.body.startswith(_NOT_JSON):
        try:
            json.loads(answer.body, parse_constant=_no_json)
        except ValueError:
            return Ended(status, "the answer is not JSON", words)
    return Ended(status, detail=words if answer.status >= 400 else "")


def _no_json(name: str) -> Any:
    raise ValueError(name)


def _http_bytes(case: Case) -> bytes:
    body, framing = case["body"].encode("latin-1"), case.get("framing")
    length = f"content-length: {len(body) if framing is None else framing}"
    if framing == "chunked":
        pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
        length = "transfer-encoding: chunked"
    lines = [f"{case['method']} {case['target']} HTTP/1.1", "host: fuzz", length]
    lines += [f"{name}: {value}" for name, value in case["headers"]]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class _Connection:
    """Keeps one connection open and sends one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer, self.last = reader, writer, b""

    @classmethod
    async def open(cls, host: str, port: int) -> _Connection:
        return cls(*await asyncio.open_connection(host, port))

    def close(self) -> None:
        self._writer.close()

    async def ask(self, request: bytes, *, is_head: bool) -> _Answer:
        self._writer.write(request)
        body, done = bytearray(), []
        answer = _Reading(body, done)
        parser = httptools.HttpResponseParser(answer)
        while not done:
            self.last = data = await self._reader.read(65536)
            if not data:
                raise ConnectionResetError("closed before the answer was whole")
            # It comes before the answer, and perhaps together with it.
            parser.feed_data(data.removeprefix(_GO_ON))
            if answer.headed and is_head:
                break
        return _Answer(parser.get_status_code(), bytes(body), not is_head and parser.should_keep_alive())


class _Reading:
    """Receives what httptools parses."""

    def __init__(self, body: bytearray, done: list[bool]) -> None:
        self._body, self._done, self.headed = body, done, False

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        self._done.append(True)


@contextlib.asynccontextmanager
async def connected(
    addresses: dict[str, str], answers: dict[str, Answer], *, n_connections: int = 8
) -> AsyncIterator[Doors]:
    """Open the doors at `{"grpc": ..., "http": ...}`, before an upstream that gives these answers."""
    async with Doors(addresses["grpc"], addresses["http"], answers, n_connections=n_connections) as doors:
        yield doors
