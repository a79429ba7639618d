"""The external processor writes a candidate's parameters into the body that Envoy sends on, and takes out others."""

from __future__ import annotations

import importlib
import json
from typing import Any

import grpc
import pytest

from tests.gateways.candidates_door.conftest import Door

pytest.importorskip("envoy.service", reason="Envoy's protos are not installed; `pip install xds-protos`")


def rewritten(door: Door, body: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[dict[str, Any], Any]:
    """Return the body that Envoy is told to send on, and the headers that it is told to set."""
    pb = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")
    stubs = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2_grpc")
    headers = pb.HttpHeaders()
    for key, value in ((":method", "POST"), (":path", path)):
        headers.headers.headers.add(key=key, raw_value=value.encode())
    sent = (
        pb.ProcessingRequest(request_headers=headers),
        pb.ProcessingRequest(request_body=pb.HttpBody(body=json.dumps(body).encode(), end_of_stream=True)),
    )
    with grpc.insecure_channel(door.address) as channel:
        answers = list(stubs.ExternalProcessorStub(channel).Process(iter(sent), timeout=60))
    common = answers[-1].request_body.response
    told = {one.header.key: one.header.raw_value.decode() for one in common.header_mutation.set_headers}
    return json.loads(common.body_mutation.body), told


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def test_of_a_chat(door: Door) -> None:
    body, told = rewritten(door, {"model": "low", **CHAT, "max_tokens": -1})
    assert body == {"model": "thinker", **CHAT, "reasoning_effort": "low", "verbosity": "low", "max_tokens": 500}
    assert "x-elle-dropped-parameters" not in told


def test_of_a_message_in_anthropics_words(door: Door) -> None:
    body, _ = rewritten(door, {"model": "claude", **CHAT, "max_tokens": 5}, path="/v1/messages")
    own = {"output_config": {"effort": "low"}, "stop_sequences": ["END"], "top_k": 5}
    assert body == {"model": "claude-opus-4-5", **CHAT, "max_tokens": 5, **own}


def test_what_a_candidate_refuses_is_taken_out_and_told(door: Door) -> None:
    body, told = rewritten(door, {"model": "elle/drop", **CHAT, "temperature": 1, "n": 1})
    assert body == {"model": "fussy", **CHAT}
    assert told["x-elle-dropped-parameters"] == "n,temperature"
