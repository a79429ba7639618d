"""The external processor behind the real Envoy: two loopback upstreams, streaming, big bodies, who is refused."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import httpx
import pytest
import yaml

from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.gateways.ext_proc import MAX_HEADERS, ExternalProcessor
from router.policies.loading import load_policies
from router.values import RouteQuery
from router.wire.conversion import MAX_MESSAGE_BYTES
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.envoy import EXAMPLE, cluster, find_envoy, listener, running_envoy
from tests.gateways.envoy_chat import NAMES, chat
from tests.gateways.loopback import Upstream, in_thread, running_upstream

if importlib.util.find_spec("envoy.service") is None:
    pytest.skip("Envoy's protos are not installed; `pip install xds-protos`", allow_module_level=True)


CAPABILITIES = ["text", "image", "tools"]


@dataclass
class Stack:
    """One Envoy with a listener per kind of processor, in front of two upstreams."""

    urls: dict[str, str]
    upstreams: dict[str, Upstream]
    router: Router
    encoder: FakeEncoder

    def post(self, listener: str, body: bytes | dict, path: str = "/v1/chat/completions", **headers: str):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | headers
        return httpx.post(self.urls[listener] + path, content=raw, headers=headers, timeout=60)

    def take(self, name: str):
        """Return the one request that reached this upstream since the last look; none may have reached the other."""
        other = next(one for one in NAMES if one != name)
        assert not self.upstreams[other].seen
        (seen,) = self.upstreams[name].seen
        self.upstreams[name].seen.clear()
        return seen

    def assert_nobody_was_asked(self) -> None:
        assert not any(upstream.seen for upstream in self.upstreams.values())


def fake_router(folder: Path, encoder: FakeEncoder) -> Router:
    candidates = [{"name": name, "model": f"openai/up-{name}", "capabilities": CAPABILITIES} for name in NAMES]
    rule = {"kind": "gain", "thresholds": [0.35]}
    policies = load_policies([write_policy(folder, names=NAMES, candidates=candidates, rule=rule)])
    return Router(policies, {encoder.spec.identity: encoder}, RouterSettings(max_prompt_bytes=1024 * 1024))


@contextlib.asynccontextmanager
async def processor(on_failure: str, router: Router | None) -> AsyncIterator[str]:
    door = ExternalProcessor(on_failure)
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    door.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    if router is not None:
        door.start(router)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(1)


@pytest.fixture(scope="module")
def _world(tmp_path_factory) -> Iterator[Stack]:
    find_envoy()
    config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    folder, encoder = tmp_path_factory.mktemp("envoy"), FakeEncoder()
    with contextlib.ExitStack() as exits:
        upstreams, clusters = {}, []
        for name in NAMES:
            upstreams[name], url = exits.enter_context(running_upstream(name))
            address = url.removeprefix("http://").removesuffix("/v1")
            clusters.append(cluster(config, name, name, address))
        for name, on_failure, ready in (
            ("closed", "closed", True),
            ("open", "open", True),
            ("loading", "closed", False),
        ):
            router = fake_router(folder, encoder) if ready else None
            address = exits.enter_context(in_thread(processor(on_failure, router)))
            clusters.append(cluster(config, "elle-router", name, address))
        listeners = [
            listener(config, "closed", "closed"),
            listener(config, "open", "open", failure_mode_allow=True),
            listener(config, "loading", "loading"),
            listener(config, "unset", "closed", processing_mode={"request_body_mode": "NONE"}),
            listener(config, "eager", "closed", allow_mode_override=False),
        ]
        urls = exits.enter_context(running_envoy(folder, listeners, clusters))
        yield Stack(urls, upstreams, fake_router(folder, encoder), encoder)


@pytest.fixture
def stack(_world: Stack) -> Stack:
    for upstream in _world.upstreams.values():
        upstream.seen.clear()
        upstream.gate.set()
    return _world


def test_the_example_is_valid_for_envoy():
    done = subprocess.run([find_envoy(), "--mode", "validate", "-c", str(EXAMPLE)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_envoy_asks_the_upstream_that_the_router_decides_for_with_nothing_but_the_model_changed(stack):
    chosen = set()
    for number in range(16):
        body = chat(f"question {number} ü", temperature=1.0, unknown={"b": 1, "a": [1e2]})
        raw = json.dumps(body, indent=number % 3 or None, ensure_ascii=bool(number % 2)).encode()
        reply = stack.post("closed", raw)
        decision = stack.router.decide(RouteQuery.from_prompt(f"question {number} ü"))
        seen = stack.take(decision.chosen)
        assert seen.body == raw.replace(b"elle/test", f"up-{decision.chosen}".encode())
        assert reply.json()["choices"][0]["message"]["content"] == f"I am {decision.chosen}"
        for headers in (seen.headers, reply.headers):
            assert headers["x-elle-candidate"] == decision.chosen
            assert headers["x-elle-reason"] == decision.reason.value
            assert len(headers["x-elle-decision-id"]) == 32
        chosen.add(decision.chosen)
    assert chosen == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_candidate_by_name_and_an_anthropic_body_are_routed(stack, name):
    body = {"model": name, "max_tokens": 5, "system": "x", "messages": [{"role": "user", "content": "hello"}]}
    reply = stack.post("closed", body, path="/v1/messages?beta=true")
    assert reply.headers["x-elle-reason"] == "PINNED"
    assert json.loads(stack.take(name).body) == body | {"model": f"up-{name}"}


def test_a_streamed_answer_passes_while_it_is_written(stack):
    name = NAMES[1]
    upstream = stack.upstreams[name]
    upstream.gate.clear()
    body = chat("hello", stream=True) | {"model": name}
    with httpx.stream("POST", stack.urls["closed"] + "/v1/chat/completions", json=body, timeout=60) as reply:
        lines = (line for line in reply.iter_lines() if line)
        # The upstream writes no more before the first event is here.
        assert "I am" in next(lines)
        upstream.gate.set()
        rest = list(lines)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert name in rest[0]
    assert rest[-1] == "data: [DONE]"


def test_a_body_of_two_megabytes_arrives_whole(stack):
    picture = "data:image/png;base64," + base64.b64encode(os.urandom(1_600_000)).decode()
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    raw = json.dumps({"model": NAMES[1], "messages": [{"role": "user", "content": parts}]}).encode()
    assert len(raw) > 2 * 1024 * 1024
    assert stack.post("closed", raw).status_code == 200
    assert stack.take(NAMES[1]).body == raw.replace(b'"gpt-4-turbo"', b'"up-gpt-4-turbo"')


UNDECIDABLE = [
    (b"{", 400, "invalid_request"),
    (b"\xff", 400, "invalid_request"),
    (json.dumps(chat("hello") | {"model": "gpt-4o"}).encode(), 404, "model_not_found"),
    (json.dumps(chat("long " * 500_000)).encode(), 400, "invalid_request"),
    (json.dumps(chat("hello", messages=[{"role": "user", "content": [{"type": "video_url"}]}])).encode(), 400, None),
]


@pytest.mark.parametrize(("raw", "status", "code"), UNDECIDABLE, ids=lambda value: str(value)[:20])
def test_closed_refuses_what_it_cannot_decide_with_an_openai_error_object(stack, raw, status, code):
    reply = stack.post("closed", raw)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"]) == (status, "invalid_request_error")
    assert error["code"] == (code or "no_eligible_candidate")
    assert error["message"]
    assert reply.headers["content-type"] == "application/json"
    stack.assert_nobody_was_asked()


@pytest.mark.parametrize(("raw", "status", "code"), UNDECIDABLE, ids=lambda value: str(value)[:20])
def test_open_passes_on_what_it_cannot_decide_as_it_came(stack, raw, status, code):
    assert stack.post("open", raw).status_code == 200
    seen = stack.take(NAMES[0])
    assert seen.body == raw
    assert seen.headers["x-elle-error"] in {"INVALID_REQUEST", "UNKNOWN_MODEL", "NO_ELIGIBLE_CANDIDATE"}
    assert "x-elle-candidate" not in seen.headers


def test_a_post_without_a_body_is_refused(stack):
    assert stack.post("closed", b"").json()["error"]["message"] == "the body must be set, got none."
    stack.assert_nobody_was_asked()


def test_a_compressed_body_is_refused_by_name(stack):
    reply = stack.post("closed", b"\x1f\x8b", **{"content-encoding": "gzip"})
    assert "content-encoding" in reply.json()["error"]["message"]


def test_while_the_router_loads_chats_are_refused_for_a_while(stack):
    reply = stack.post("loading", chat("hello"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "not_ready")


def test_a_bug_of_ours_is_told_without_its_insides(stack, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("router.gateways.ext_proc.query_from_body", fail)
    reply = stack.post("closed", chat("hello"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in reply.text


@pytest.mark.parametrize("listener", ["closed", "eager"])
def test_all_that_is_no_chat_passes_untouched(stack, listener):
    before = len(stack.encoder.encoded)
    raw = b'{"model": "elle/test", "messages": [{"role": "user", "content": "no chat"}]}'
    assert stack.post(listener, raw, path="/v1/embeddings").status_code == 200
    seen = stack.take(NAMES[0])
    assert (seen.body, seen.path) == (raw, "/v1/embeddings")
    assert httpx.get(stack.urls[listener] + "/v1/chat/completions").status_code == 200
    assert "x-elle-decision-id" not in stack.take(NAMES[0]).headers
    assert len(stack.encoder.encoded) == before


def test_clients_cannot_say_who_answers(stack):
    forged = {"x-elle-candidate": NAMES[1]}
    # Alone it leaves the router nothing to remove, and so no reason to have the route chosen again.
    stack.post("closed", b"{}", path="/v1/embeddings", **forged)
    assert "x-elle-candidate" not in stack.take(NAMES[0]).headers
    forged["x-elle-reason"] = "PINNED"
    reply = stack.post("closed", b"{}", path="/v1/embeddings", **forged)
    assert "x-elle-reason" not in reply.headers
    assert "x-elle-reason" not in stack.take(NAMES[0]).headers
    stack.post("open", b"{", **forged)
    assert "x-elle-candidate" not in stack.take(NAMES[0]).headers


def test_a_filter_that_does_not_send_bodies_refuses_chats_instead_of_passing_them_undecided(stack):
    reply = stack.post("unset", chat("hello"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "router_unavailable")
    stack.assert_nobody_was_asked()


@pytest.mark.parametrize("on_failure", ["closed", "open"])
@pytest.mark.parametrize("fault", ["many headers", "no body"])
def test_what_is_refused_by_its_headers_cannot_say_who_answers(tmp_path, on_failure, fault):
    from envoy.service.ext_proc.v3 import external_processor_pb2, external_processor_pb2_grpc

    message = external_processor_pb2.ProcessingRequest()
    message.request_headers.end_of_stream = fault == "no body"
    sent = {":method": "POST", ":path": "/v1/chat/completions", "x-elle-candidate": NAMES[1]}
    for number in range(MAX_HEADERS if fault == "many headers" else 0):
        sent[f"x-{number}"] = "1"
    for key, value in sent.items():
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    with (
        in_thread(processor(on_failure, fake_router(tmp_path, FakeEncoder()))) as address,
        grpc.insecure_channel(address) as channel,
    ):
        stub = external_processor_pb2_grpc.ExternalProcessorStub(channel)
        (answer,) = stub.Process(iter([message]), timeout=60)
    if on_failure == "closed":
        assert answer.immediate_response.status.code == 400
    else:
        assert "x-elle-candidate" in answer.request_headers.response.header_mutation.remove_headers
