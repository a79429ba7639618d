"""Large answers: decoded and encoded as small ones are, but in a thread, while the event loop does other things."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import json_format

from router import plain_json
from router.answering.reading.large_answers import LARGE_TEXT, LARGE_VALUES, PatientDecoder, is_large, json_in_pieces
from router.gateways.http import http_reply
from router.gateways.http.http_gateway import HttpGateway
from router.pb import router_service_pb2 as pb
from router.plain_json import PIECE, NotPlainJsonError, loads, utf8_pieces, whole_text
from router.serving.server import ServerSettings, serving
from router.wire import large_structs, servicer
from router.wire.large_structs import with_large_fields
from router.wire.structs import struct_from_answer
from tests.gateways.loopback import in_thread
from tests.router.answering.upstreams.hostile_upstream import BODIES, hostile_upstream

VALUES = [
    {},
    {"a": [], "b": {}, "c": [{}, [[]]]},
    {"é😀\ud83d": '\ud83d half, \\ and "', "null": None, "yes": True, "no": False},
    {"n": [0, -1, 1.5, 1e300, 2**53, -(2**53)]},
    {"long": "é😀\n" * 100_000},
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_written_as_json_writes_it(value: dict[str, Any]) -> None:
    assert json_in_pieces(value) == json.dumps(value, separators=(",", ":")).encode()


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_read_as_json_reads_it(value: dict[str, Any]) -> None:
    assert loads(json.dumps(value).encode(), PatientDecoder) == value


@pytest.mark.parametrize("text", [b"", b"{", b'{"a":}', b"[1,]", b'{"a":NaN}', b'["\xff"]', b"[" * 5000, b"1" * 5000])
def test_what_is_no_plain_json_is_refused_alike(text: bytes) -> None:
    for decoder in (json.JSONDecoder, PatientDecoder):
        with pytest.raises(NotPlainJsonError):
            loads(text, decoder)


@pytest.mark.parametrize("value", VALUES)
def test_a_value_is_serialized_as_protobuf_does_it(value: dict[str, Any]) -> None:
    answer = pb.CompleteResponse.FromString(with_large_fields(b"", text="", body=value))
    assert answer.response == struct_from_answer(value)


def test_a_large_answer_is_put_together_in_one_step_from_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[bytes] = []

    class Watched(large_structs._Backwards):
        def add(self, piece: bytes) -> None:
            pieces.append(piece)
            super().add(piece)

    monkeypatch.setattr(large_structs, "_Backwards", Watched)
    head = pb.CompleteResponse(usage=pb.Usage(input_tokens=7)).SerializeToString()
    for text in ("word " * 100_000, "漢" * 100_000, "a" * (PIECE - 1) + "😀", "a" * (PIECE - 1) + "\ud83d\ude00\ud83d"):
        answer = pb.CompleteResponse.FromString(with_large_fields(head, text=text, body={"a": [{"b": text}]}))
        assert answer.text == answer.response["a"][0]["b"] == whole_text(text)
        assert answer.usage.input_tokens == 7
    assert max(map(len, pieces)) <= 4 * PIECE


@pytest.mark.parametrize("text", ["\ud83d" * 3, "\ud83d\ud83d\ude00", "\ude00\ud83d", "", "ab\ud83d\ude00c"])
def test_text_in_pieces_is_the_whole_text_wherever_it_is_cut(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in (1, 2, 3, 4):
        monkeypatch.setattr(plain_json, "PIECE", length)
        assert b"".join(utf8_pieces(text)).decode() == whole_text(text)


def test_an_answer_is_large_beyond_the_bounds_on_values_and_on_text() -> None:
    assert not is_large({"x": [1] * (LARGE_VALUES - 1)})
    assert is_large({"x": [1] * LARGE_VALUES})
    assert not is_large({"x": ["a" * LARGE_TEXT]})
    assert is_large({"x": ["a" * LARGE_TEXT, "a"]})


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a policy of candidates that send many values, asked with and without LiteLLM."""
    with in_thread(hostile_upstream()) as url:
        offered = [
            {"name": name, "model": f"{name}/x", "api_base": f"{url}/many/v1"} for name in ("openai", "hosted_vllm")
        ]
        rule = {"kind": "fixed", "candidate": "openai"}
        file = {
            "schema": "elle.policy/1",
            "name": "many",
            "candidates": offered,
            "rule": rule,
            "safe_default": "openai",
        }
        path = tmp_path_factory.mktemp("many") / "many.yaml"
        path.write_text(yaml.safe_dump(file))
        yield path


def test_text_is_written_in_pieces_as_it_is_or_refused() -> None:
    value = {"é": ["漢" * 100_000, {"n": 1.5}]}
    assert (
        json_in_pieces(value, ascii_only=False) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    )
    for bad in ({"x": float("nan")}, {"x": "\ud83d"}):
        with pytest.raises(ValueError):
            json_in_pieces(bad, ascii_only=False)


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
async def test_an_answer_of_many_values_is_decoded_and_encoded_apart_from_the_event_loop(
    policy: Path, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked_in: list[str] = []

    def watch(module: Any, name: str) -> None:
        work = getattr(module, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            worked_in.append(f"{name} in {threading.current_thread().name.rstrip('_0')}")
            return work(*arguments, **options)

        monkeypatch.setattr(module, name, watched)

    watch(plain_json, "loads")
    watch(http_reply, "json_in_pieces")
    watch(servicer, "with_large_fields")
    settings = ServerSettings(policies=(policy,), port=0, http=HttpGateway(), http_port=0)
    async with serving(settings) as running:
        raw = await asyncio.to_thread(_over_grpc, running.address, provider)
        body = await asyncio.to_thread(_over_http, running.http_address, provider)
    done = ("loads", "with_large_fields", "loads", "json_in_pieces")
    assert worked_in == [f"{work} in large-answers" for work in done]
    expected = json.loads(BODIES["many"])
    answer = pb.CompleteResponse.FromString(raw)
    assert answer.text == expected["choices"][0]["message"]["content"] == body["choices"][0]["message"]["content"]
    assert answer.decision.chosen == provider
    if provider == "hosted_vllm":
        # Of the other fields LiteLLM makes its own; the large part passes by it.
        assert body["x"] == expected["x"]
    else:
        assert json_format.MessageToDict(answer.response) == expected
        assert {key: body[key] for key in expected} == expected


def _over_grpc(address: str, candidate: str) -> bytes:
    request = pb.RouteRequest(prompt="hello")
    request.overrides.pin = candidate
    asked = pb.CompleteRequest(route=request).SerializeToString()
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        answer: bytes = channel.unary_unary("/elle.router.v1.RouterService/Complete")(asked, timeout=60)
        return answer


def _over_http(address: str | None, candidate: str) -> Any:
    assert address is not None
    connection = http.client.HTTPConnection(address, timeout=60)
    message = {"role": "user", "content": "hello"}
    body = json.dumps({"model": candidate, "messages": [message]})
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    reply = connection.getresponse()
    raw = reply.read()
    connection.close()
    assert reply.status == 200, raw
    return json.loads(raw)
