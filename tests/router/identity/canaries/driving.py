"""Come in by every door of the services, with every kind of credential and failure, and note what they say."""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
import httpx

from router.pb import admin_service_pb2 as admin_pb
from router.pb import admin_service_pb2_grpc as admin_grpc
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from tests.router.identity.canaries.planted import TEXTS, World
from tests.router.identity.canaries.upstream import LITELLM_MODES, MODES
from tests.router.identity.guarded import BODIES, method_and_url

CREDENTIALS = ("nothing", "garbage", "unknown", "expired", "revoked", "route", "complete", "web token", "old web token")
OWN = (*MODES, *(f"{mode}-password" for mode in MODES), "proxied")
LITELLM = (*(f"{mode}-litellm" for mode in LITELLM_MODES), "proxied-litellm")

#: What every request of ours carries beside its credential.
HEADERS = {"x-mine": TEXTS["header of the caller"], "x-session-id": TEXTS["session"]}


def drive_http(world: World, url: str, verify: Any, *, many: bool) -> None:
    """Ask every path with every credential, and let every candidate fail, whole and in a stream."""
    with httpx.Client(verify=verify, timeout=60, headers=HEADERS) as client:
        for name, body in BODIES.items():
            method, path = method_and_url(name)
            for kind in CREDENTIALS:
                _http(world, client, url + path, _with_texts(body), _bearer(world, kind), method)
        for path in ("/v1/nothing", "/v1/chat", f"/v1/models/{TEXTS['unknown field']}"):
            _http(world, client, url + path, None, _bearer(world, "complete"))
        for name in (*OWN, *(LITELLM if many else ())):
            for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
                for stream in (False, True):
                    body = {**_with_texts(BODIES[path], unknown=False), "model": name, "stream": stream}
                    _http(world, client, url + path, body, {"x-api-key": world.tokens["complete"]})
        for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/decisions", "/v1/feedback"):
            for bad in (b"{", b'{"model": 1}', json.dumps({TEXTS["unknown field"]: TEXTS["prompt"]}).encode(), b"\xff"):
                for kind in ("complete", "feedback", "route"):
                    _http(world, client, url + path, bad, _bearer(world, kind))
        feedback = {"kind": "thumb", "value": TEXTS["feedback"], "request_id": "7"}
        _http(world, client, url + "/v1/feedback", feedback, _bearer(world, "feedback"))
        for kind in ("complete", "garbage"):
            _http(world, client, url + "/v1/messages", b"x" * 40_000_000, _bearer(world, kind))


def _http(
    world: World, client: httpx.Client, url: str, body: Any, headers: Mapping[str, str], method: str = ""
) -> None:
    content = body if isinstance(body, bytes | None) else json.dumps(body)
    method = method or ("GET" if body is None else "POST")
    try:
        answer = client.request(method, url, content=content, headers={"content-type": "application/json", **headers})
    except httpx.HTTPError as error:
        said = repr(error)
    else:
        said = f"{answer.status_code} {dict(answer.headers)} {answer.text}"
    world.said[f"HTTP answer {len(world.said)} of {url}"] = said


def _with_texts(body: Any, *, unknown: bool = True) -> Any:
    """Return a body that also holds texts of a caller that nobody else may read, in a field that nobody knows too."""
    if not isinstance(body, dict) or "kind" in body:
        return body
    prompt, system = TEXTS["prompt"], TEXTS["system prompt"]
    full = {**body, "metadata": {"k": TEXTS["metadata of the body"]}, "user": TEXTS["user of the body"]}
    if unknown:
        full["unknown"] = TEXTS["unknown field"]
    if "messages" in body:
        call = {"name": "f", "arguments": json.dumps({"a": TEXTS["arguments of a tool"]})}
        tools = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        }
        answer = {"role": "tool", "tool_call_id": "1", "content": TEXTS["arguments of a tool"]}
        full["messages"] = [{"role": "system", "content": system}, {"role": "user", "content": prompt}, tools, answer]
        full["messages"].append({"role": "user", "content": prompt})
    for key in ("input", "prompt", "state"):
        if key in body:
            full[key] = prompt
    return full


def _bearer(world: World, kind: str) -> dict[str, str]:
    return {} if kind == "nothing" else {"authorization": f"Bearer {world.tokens[kind]}"}


def drive_grpc(world: World, address: str, credentials: grpc.ChannelCredentials | None) -> None:
    """Call every method with every credential, and note answers, messages and trailers."""
    channel = grpc.secure_channel(address, credentials) if credentials else grpc.insecure_channel(address)
    with channel:
        router, admin = pb_grpc.RouterServiceStub(channel), admin_grpc.AdminServiceStub(channel)
        query = pb.RouteRequest(prompt=TEXTS["prompt"], session_id=TEXTS["session"])
        query.parameters.update({"metadata": {"k": TEXTS["metadata of the body"]}, "user": TEXTS["user of the body"]})
        pinned = [pb.RouteRequest.FromString(query.SerializeToString()) for _ in (*OWN, *LITELLM)]
        for one, name in zip(pinned, (*OWN, *LITELLM), strict=True):
            one.overrides.pin = name
        calls: list[tuple[Any, Any]] = [
            (router.Route, query),
            (router.BatchRoute, pb.BatchRouteRequest(requests=[query])),
            (router.GetPolicy, pb.GetPolicyRequest()),
            (router.Feedback, pb.FeedbackRequest(decision_id=TEXTS["feedback"], kind=1, value=1)),
            (admin.Reload, admin_pb.ReloadRequest()),
        ]
        for kind in CREDENTIALS:
            for method, request in calls:
                _grpc(world, method, request, kind)
        for one in pinned:
            _grpc(world, router.Complete, pb.CompleteRequest(route=one), "complete")
            _grpc(world, router.StreamComplete, pb.StreamCompleteRequest(route=one), "complete")
        for method in ("Route", "Nothing"):
            raw = channel.unary_unary(f"/elle.router.v1.RouterService/{method}")
            _grpc(world, raw, TEXTS["prompt"].encode(), "route")


def _grpc(world: World, method: Any, request: Any, kind: str) -> None:
    metadata = tuple({**_bearer(world, kind), "x-mine": TEXTS["header of the caller"]}.items())
    call = method(request, metadata=metadata, timeout=60) if not hasattr(method, "with_call") else None
    try:
        if call is None:
            answer, call = method.with_call(request, metadata=metadata, timeout=60)
        else:
            answer = list(call)
        said = f"{answer} {call.trailing_metadata()}"
    except grpc.RpcError as error:
        said = f"{error.code()} {error.details()} {error.trailing_metadata()} {error}"  # type: ignore[attr-defined]
    world.said[f"gRPC answer {len(world.said)} of {getattr(method, '_method', method)}"] = said


def drive_ext_proc(world: World, address: str, credentials: grpc.ChannelCredentials) -> None:
    """Let Envoy's clients come with every credential of Envoy."""
    messages = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2")
    stubs = importlib.import_module("envoy.service.ext_proc.v3.external_processor_pb2_grpc")
    core = importlib.import_module("envoy.config.core.v3.base_pb2")
    rows = ((":method", "POST"), (":path", "/v1/chat/completions"), ("authorization", world.tokens["unknown"]))
    header = core.HeaderMap(headers=[core.HeaderValue(key=key, raw_value=value.encode()) for key, value in rows])
    body = json.dumps(_with_texts(BODIES["/v1/chat/completions"])).encode()
    requests = [
        messages.ProcessingRequest(request_headers=messages.HttpHeaders(headers=header)),
        messages.ProcessingRequest(request_body=messages.HttpBody(body=body, end_of_stream=True)),
    ]
    with grpc.secure_channel(address, credentials) as channel:
        for kind in CREDENTIALS:
            _grpc(world, _Stream(stubs.ExternalProcessorStub(channel).Process, requests), None, kind)


class _Stream:
    """Sends requests of its own, whatever it is given."""

    def __init__(self, method: Any, requests: Iterable[Any]) -> None:
        self._process, self._requests = method, tuple(requests)
        self._method = "Process"

    def __call__(self, _: Any, **options: Any) -> Any:
        return self._process(iter(self._requests), **options)


def drive_admin(world: World) -> None:
    """Look at the operator's page and the metrics with every credential, and try a prompt."""
    with httpx.Client(verify=world.verify, timeout=60) as client:
        for kind in (*CREDENTIALS, "admin"):
            for path in ("/", "/status.json", "/static/page.css", "/nothing", "/static/../site.py"):
                basic = base64.b64encode(f"me:{world.tokens.get(kind, '')}".encode()).decode()
                for headers in (_bearer(world, kind), {"authorization": f"Basic {basic}"}):
                    answer = client.get(world.admin_url + path, headers=headers)
                    world.said[f"page {path} for {kind} {len(world.said)}"] = f"{dict(answer.headers)} {answer.text}"
        headers = _bearer(world, "admin")
        for form in ({"prompt": "hello", "policy": ""}, {"prompt": "hello", "policy": "none"}, {}):
            answer = client.post(world.admin_url + "/try", data=form, headers=headers)
            world.said[f"trial {form}"] = f"{answer.status_code} {dict(answer.headers)} {answer.text}"
        world.said["metrics"] = client.get(f"{world.metrics_url}/metrics").text
