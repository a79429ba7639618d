"""Run a service whose callers need tokens, and ask each of its doors; the policy needs no encoder."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from router.gateways.http.http_application import KEPT_PATHS
from router.gateways.http.http_gateway import HttpGateway
from router.identity.gate import Gate, IdentitySettings
from router.identity.principal import Scope, TokenLimits
from router.identity.token_book import Token, changing, new_token, now_utc
from router.pb import admin_service_pb2 as admin_pb
from router.pb import admin_service_pb2_grpc as admin_grpc
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.ports import ServicePorts
from router.serving.server import _serving
from router.serving.settings import Door, ServerSettings
from router.values import RouteQuery
from router.wire import conversion
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.loopback import in_thread
from tests.router.policies.score_policy import write_score_policy

NAMES = ("small", "large")
PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 2.0}
#: The methods of our services, as their protos name them.
ADMIN_METHODS = tuple(admin_pb.DESCRIPTOR.services_by_name["AdminService"].methods_by_name)
ROUTER_METHODS = tuple(pb.DESCRIPTOR.services_by_name["RouterService"].methods_by_name)
EASY, HARD = {"confidence": 0.9}, {"confidence": 0.1}


@dataclass(frozen=True)
class Guarded:
    """A running service: where it listens, its gate, its file of tokens, and one token of each kind."""

    address: str
    http_url: str
    gate: Gate
    tokens: Path
    texts: Mapping[str, str]


def add_token(path: Path, name: str, *scopes: Scope, **limits: Any) -> tuple[str, Token]:
    """Add a valid token to the file."""
    with changing(path) as known:
        text, token = new_token(
            name, scopes or (Scope.ROUTE, Scope.COMPLETE), limits=TokenLimits.model_validate(limits)
        )
        known.append(token)
    return text, token


def usual_tokens(path: Path) -> dict[str, str]:
    """Write a file with a token of each kind, and return the tokens by kind."""
    texts = {scope.value: add_token(path, scope.value, scope)[0] for scope in Scope}
    with changing(path) as known:
        for name, change in (
            ("expired", {"expires_at": now_utc() - datetime.timedelta(seconds=1)}),
            ("revoked", {"revoked_at": now_utc()}),
        ):
            texts[name], token = new_token(name, tuple(Scope))
            known.append(token.model_copy(update=change))
    return texts | {"unknown": new_token("other", tuple(Scope))[0], "garbage": "no token at all"}


@contextmanager
def guarded_service(folder: Path, *doors: Door, **settings: Any) -> Iterator[Guarded]:
    """Run a service with two candidates and tokens of each kind."""
    tokens = folder / "tokens.json"
    texts = usual_tokens(tokens)
    with running_chat_upstream() as (_, url):
        common = {"api_base": url, "speaks": ["responses", "completions", "embeddings"], "prices": PRICES}
        candidates = [{"name": name, "model": f"openai/up-{name}", **common} for name in NAMES]
        policy = write_score_policy(folder, names=NAMES, candidates=candidates)
        given = ServerSettings(
            policies=(policy,),
            port=0,
            drain_s=1,
            doors=doors,
            http=HttpGateway(max_body_bytes=100_000),
            identity=IdentitySettings(tokens),
            **settings,
        )
        ports = ServicePorts(given)
        with in_thread(_serving(given, ports)) as running:
            yield Guarded(running.address, f"http://{running.http_address}", ports.gate, tokens, texts)


def grpc_status(service: Guarded, method: str, metadata: Mapping[str, str]) -> tuple[str, str]:
    """Return the status code and the message with which a method answers."""
    with grpc.insecure_channel(service.address) as channel:
        try:
            _call(channel, method, tuple(metadata.items()))
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


def _call(channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
    route = conversion.query_to_wire(RouteQuery.from_prompt("hello", scores=EASY))
    stub = pb_grpc.RouterServiceStub(channel)
    if method in ADMIN_METHODS:
        empty = getattr(admin_pb, f"{method}Request")()
        getattr(admin_grpc.AdminServiceStub(channel), method)(empty, metadata=metadata, timeout=60)
        return
    if method == "StreamComplete":
        list(stub.StreamComplete(pb.StreamCompleteRequest(route=route), metadata=metadata, timeout=60))
    elif method == "Health":
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), metadata=metadata, timeout=60)
    elif method == "Reflection":
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        list(stub.ServerReflectionInfo(iter([request]), metadata=metadata, timeout=60))
    else:
        request = {
            "Route": route,
            "BatchRoute": pb.BatchRouteRequest(requests=[route]),
            "Complete": pb.CompleteRequest(route=route),
            "GetPolicy": pb.GetPolicyRequest(),
            "Feedback": pb.FeedbackRequest(),
        }[method]
        getattr(stub, method)(request, metadata=metadata, timeout=60)


CHAT = {"model": "test", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
#: A body for each path of the HTTP door; None is a GET.
BODIES: Mapping[str, Any] = {
    "/v1/chat/completions": CHAT,
    "/v1/messages": CHAT,
    "/v1/messages/count_tokens": CHAT,
    "/v1/responses": {"model": "test", "input": "hello"},
    "/v1/completions": {"model": "test", "prompt": "hello"},
    "/v1/embeddings": {"model": "test", "input": "hello"},
    "/v1/systemone": {"model": "test", "state": "hello"},
    "/v1/decisions": {"model": "test", "input": "hello"},
    "/v1/feedback": {"kind": "thumb", "value": "up", "request_id": "7"},
    "/openai/responses": {"model": "test", "input": "hello"},
    "/openai/deployments/test/chat/completions": CHAT,
    "/openai/deployments/test/responses": {"input": "hello"},
    "/openai/deployments/test/completions": {"prompt": "hello"},
    "/openai/deployments/test/embeddings": {"input": "hello"},
    "/v1/models": None,
    "/v1/models/test": None,
    **dict.fromkeys(f"{method} {path}" for path, methods in KEPT_PATHS.items() for method in methods),
}


def method_and_url(path: str) -> tuple[str, str]:
    """Return the method and the path that a key of `BODIES` stands for."""
    method, _, url = path.rpartition(" ")
    return method or ("GET" if BODIES[path] is None else "POST"), url.replace("{response_id}", "resp_1")


def http_answer(service: Guarded, path: str, headers: Mapping[str, str]) -> httpx.Response:
    """Ask a path of the HTTP door, with the method in front of it or else the usual one."""
    body = BODIES[path]
    method, url = method_and_url(path)
    return httpx.request(
        method,
        service.http_url + url,
        content=None if body is None else json.dumps(body),
        headers={"content-type": "application/json", **headers},
        timeout=60,
    )
