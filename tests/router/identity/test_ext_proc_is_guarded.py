"""Envoy's external processor asks Envoy for a token, and tells Envoy's clients apart."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import pytest

from router.gateways.ext_proc import ExternalProcessor
from router.identity.counts import DoorName, Refusal
from router.identity.principal import Scope
from router.serving.grpc_options import MAX_REQUEST_BYTES
from tests.router.identity.guarded import Guarded, add_token, guarded_service

pytest.importorskip("envoy.service")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded_service(tmp_path_factory.mktemp("ext_proc"), ExternalProcessor()) as running:
        yield running


def process(service: Guarded, metadata: Mapping[str, str]) -> Any:
    """Send the headers of one request of a client of Envoy, and return the first answer."""
    pb = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")
    stubs = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2_grpc")
    core = importlib.import_module("envoy.config.core.v3.base_pb2")
    rows = [core.HeaderValue(key=key, raw_value=value) for key, value in ((":method", b"GET"), (":path", b"/"))]
    request = pb.ProcessingRequest(request_headers=pb.HttpHeaders(headers=core.HeaderMap(headers=rows)))
    with grpc.insecure_channel(service.address) as channel:
        call = stubs.ExternalProcessorStub(channel).Process(
            iter([request]), metadata=tuple(metadata.items()), timeout=20
        )
        return next(call)


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


def test_a_message_of_envoy_that_is_too_long_is_refused_and_counted(service: Guarded) -> None:
    metadata = (("authorization", f"Bearer {service.texts['route']}"),)
    with grpc.insecure_channel(service.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        call = channel.stream_stream("/envoy.service.ext_proc.v3.ExternalProcessor/Process")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([bytes(MAX_REQUEST_BYTES + 1)]), metadata=metadata, timeout=20))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert service.gate.counts.snapshot()[DoorName.EXT_PROC, Refusal.OVERSIZED] == 1
