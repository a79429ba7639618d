"""Envoy's external processor asks Envoy for a token, and tells Envoy's clients apart."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.gateways.ext_proc import ExternalProcessor, OnFailure
from router.identity.counts import DoorName, Refusal
from router.identity.principal import Scope
from router.serving.grpc_options import MAX_REQUEST_BYTES
from tests.router.identity.guarded import CHAT, EASY, HARD, Guarded, add_token, guarded_service

pytest.importorskip("envoy.service")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_service(tmp_path_factory.mktemp("ext_proc"), ExternalProcessor()) as running:
        yield running


def process(service: Guarded, metadata: Mapping[str, str], body: bytes | None = None) -> Any:
    """Send one request of a client of Envoy, a chat if it has a body, and return the last answer."""
    pb = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")
    stubs = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2_grpc")
    core = importlib.import_module("envoy.config.core.v3.base_pb2")
    is_chat = body is not None
    line = {":method": b"POST", ":path": b"/v1/chat/completions"} if is_chat else {":method": b"GET", ":path": b"/"}
    rows = [core.HeaderValue(key=key, raw_value=value) for key, value in line.items()]
    requests = [pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=core.HeaderMap(headers=rows)))]
    if is_chat:
        requests.append(pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True)))
    with grpc.insecure_channel(service.address) as channel:
        call = stubs.ExternalProcessorStub(channel).Process(
            iter(requests), metadata=tuple(metadata.items()), timeout=60
        )
        return list(call)[-1]


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("", grpc.StatusCode.UNAUTHENTICATED, Refusal.NO_TOKEN),
        ("unknown", grpc.StatusCode.UNAUTHENTICATED, Refusal.UNKNOWN_TOKEN),
        ("expired", grpc.StatusCode.UNAUTHENTICATED, Refusal.EXPIRED),
        ("revoked", grpc.StatusCode.UNAUTHENTICATED, Refusal.REVOKED),
        ("complete", grpc.StatusCode.PERMISSION_DENIED, Refusal.WRONG_SCOPE),
    ],
)
def test_an_envoy_without_the_right_token_is_refused(
    service: Guarded, kind: str, code: grpc.StatusCode, reason: Refusal
) -> None:
    before = service.gate.counts.snapshot()[DoorName.EXT_PROC, reason]
    with pytest.raises(grpc.RpcError) as caught:
        process(service, {"authorization": f"Bearer {service.texts[kind]}"} if kind else {})
    assert caught.value.code() is code
    assert service.gate.counts.snapshot()[DoorName.EXT_PROC, reason] == before + 1


def test_an_envoy_with_the_right_token_is_answered(service: Guarded) -> None:
    answer = process(service, {"authorization": f"Bearer {service.texts['route']}"})
    assert answer.WhichOneof("response") == "request_headers"


def test_an_envoy_over_its_limit_is_refused(service: Guarded) -> None:
    text, _ = add_token(service.tokens, "used up", Scope.ROUTE, requests_per_minute=1)
    service.gate.refresh()
    assert process(service, {"authorization": f"Bearer {text}"})
    with pytest.raises(grpc.RpcError) as caught:
        process(service, {"authorization": f"Bearer {text}"})
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.gate.counts.snapshot()[DoorName.EXT_PROC, Refusal.OVER_RATE] == 1


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_nobody_gets_past_a_limit_through_envoy(tmp_path: Path, on_failure: OnFailure) -> None:
    hard = {**CHAT, "model": "auto", "metadata": {"elle_scores": HARD}}
    with guarded_service(tmp_path, ExternalProcessor(on_failure)) as service:
        text, _ = add_token(service.tokens, "cheap only", Scope.ROUTE, strong_share=0)
        service.gate.refresh()
        metadata = {"authorization": f"Bearer {text}"}
        refused = process(service, metadata, json.dumps(hard).encode())
        assert refused.immediate_response.status.code == 429
        assert service.gate.counts.snapshot()[DoorName.EXT_PROC, Refusal.OVER_STRONG_SHARE] == 1
        easy = {**hard, "metadata": {"elle_scores": EASY}}
        assert process(service, metadata, json.dumps(easy).encode()).WhichOneof("response") == "request_body"


def test_a_message_of_envoy_that_is_too_long_is_refused_and_counted(service: Guarded) -> None:
    metadata = (("authorization", f"Bearer {service.texts['route']}"),)
    with grpc.insecure_channel(service.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([bytes(MAX_REQUEST_BYTES + 1)]), metadata=metadata, timeout=60))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.gate.counts.snapshot()[DoorName.EXT_PROC, Refusal.OVERSIZED] == 1
