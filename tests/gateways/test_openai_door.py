"""The OpenAI door with the official SDKs and real upstreams: what arrives, what is told, what stops."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.client import RouterClient
from router.deciding import pipeline
from router.errors import ConfigError, GatewayNotInstalledError
from router.gateways.openai_door import OpenAIDoor
from router.serving.http_server import bind_socket, serve_app
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.conftest import ROOT
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import CALL, ChatUpstream, running_chat_upstream
from tests.gateways.loopback import in_thread
from tests.router.faults import FaultyUpstream, upstream_in_thread

NAMES = ("small", "large")
CAPABILITIES = ["text", "image", "tools", "json_schema"]
FAULTS = ("429", "401", "400", "500", "hang", "malformed", "reset", "stall", "endless", "too-long", "429-wait", "ok")
MAX_BODY_BYTES = 4 * 1024 * 1024
NODE = Path(__file__).parent / "node"
JSON = {"content-type": "application/json"}


@dataclass
class World:
    """A running service with its HTTP door, in front of an upstream that answers and one that fails as told."""

    url: str
    address: str
    chat: ChatUpstream
    chat_url: str
    faulty: FaultyUpstream
    encoder: FakeEncoder

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def post(self, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}/chat/completions", json=body, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, encoder = tmp_path_factory.mktemp("policies"), FakeEncoder()
    with (
        pytest.MonkeyPatch.context() as patch,
        running_chat_upstream() as (chat, chat_url),
        upstream_in_thread() as (faulty, _),
    ):
        patch.setattr(pipeline, "load_encoder", lambda *_: encoder)
        policies = _write_policies(folder, chat_url, faulty.url)
        door = OpenAIDoor(max_body_bytes=MAX_BODY_BYTES)
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=door))) as running:
            url = f"http://{running.http_address}/v1"
            yield World(url, running.address, chat, chat_url, faulty, encoder)


def _write_policies(folder: Path, chat_url: str, faulty_url: str) -> tuple[Path, ...]:
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}
    good = [
        {"name": name, "model": f"openai/up-{name}", "api_base": chat_url, "capabilities": CAPABILITIES}
        | {"prices": prices}
        for name in NAMES
    ]
    common = {"api_base": faulty_url, "retries": 0, "break_after": 1000, "timeout_s": 20}
    bad = [{"name": f"fault-{fault}", "model": f"openai/{fault}", **common} for fault in FAULTS]
    plain: dict[str, Any] = {"probe": None, "safe_default": "fault-ok"}
    first, second, last = ({"name": name, **common} for name in ("first", "second", "last"))
    falls = [
        first | {"model": "openai/500@falls", "probe_model": "small"},
        second | {"model": "openai/ok@falls", "probe_model": "large"},
    ]
    cheap = {"kind": "gain", "thresholds": [0.99]}
    # Longer than any deadline of a test.
    slow = {"timeout_s": 60, "first_token_timeout_s": 60}
    stalls = [
        first | {"model": "openai/slow-first-token@stalls", "probe_model": "small"} | slow,
        second | {"model": "openai/ok@stalls", "probe_model": "large"} | slow,
    ]
    breaks = [first | {"model": "openai/reset@breaks"}, last | {"model": "openai/ok@breaks"}]
    fixed = {"kind": "fixed", "candidate": "first"}
    return (
        write_policy(
            folder,
            candidates=good,
            rule={"kind": "gain", "thresholds": [0.35]},
            profiles={"economy": {"rule": {"kind": "gain", "thresholds": [0.9]}}},
        ),
        write_policy(folder, name="faults", candidates=bad, rule={"kind": "fixed", "candidate": "fault-ok"}, **plain),
        write_policy(folder, name="falls", candidates=falls, safe_default="first", rule=cheap),
        write_policy(folder, name="stalls", candidates=stalls, safe_default="first", rule=cheap),
        write_policy(folder, name="breaks", candidates=breaks, probe=None, safe_default="first", rule=fixed),
    )


@pytest.fixture
def world(_world: World) -> World:
    _world.chat.sent.clear()
    _world.faulty.seen.clear()
    return _world


@pytest.fixture
def sdk(world: World) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-caller", base_url=world.url, max_retries=0) as sdk:
        yield sdk


#: An environment with the newest SDK; `make test` makes it.
NEWEST = ROOT / ".venv-openai" / "bin" / "python"


def hello(text: str = "Grüße, 你好 \u2028 \U0001f600") -> list[Any]:
    return [{"role": "user", "content": text}]


PIXEL = "data:image/png;base64,iVBORw0KGgo="
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
SCHEMA = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
VISION = [
    {"role": "system", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        ],
    },
]
SUITE: dict[str, dict[str, Any]] = {
    "chat": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "seed": 7, "stop": ["x"], "frequency_penalty": 1e-7},
    "tools": {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False},
    "json schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "vision": {"messages": VISION},
    "n": {"n": 3},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "limits": {"max_completion_tokens": 64, "user": "u-1"},
    "metadata": {"metadata": {"team": "a", "trace": "b"}, "store": False},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "b_new": "x", "api_base": "http://x", "mock_response": "y"}},
    "null": {"stop": None},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", SUITE)
def test_the_python_sdk_gets_its_answer_and_its_body_reaches_the_upstream_with_another_model_and_no_other_byte(
    world: World, sdk: openai.OpenAI, what: str, streamed: bool
) -> None:
    asked = {"model": "elle/test", "messages": hello()} | SUITE[what]
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    with openai.OpenAI(api_key="k", base_url=world.chat_url, max_retries=0) as upstream:
        direct = upstream.chat.completions.create(**asked | {"model": "up-none"})
        expected = [_plain(chunk) for chunk in direct] if streamed else _plain(direct)
    answer = sdk.chat.completions.create(**asked)
    got = [_plain(chunk) for chunk in answer] if streamed else _plain(answer)
    sent, passed = world.chat.sent
    (name,) = [name for name in NAMES if f'"up-{name}"'.encode() in passed]
    assert passed == sent.replace(b'"up-none"', f'"up-{name}"'.encode())
    record = [chunk.pop("elle") for chunk in got] if streamed else [got.pop("elle")]
    assert {one["candidate"] for one in record} == {name}
    assert json.loads(json.dumps(expected).replace("up-none", f"up-{name}")) == got
    assert world.chat.keys[-1] != "Bearer sk-caller"


@pytest.mark.skipif(not NEWEST.exists(), reason="no .venv-openai with the newest SDK; `make .venv-openai/.installed`")
def test_the_newest_python_sdk_gets_the_same(world: World) -> None:
    whole = [{"messages": hello()} | fields for fields in SUITE.values()]
    streamed = [fields | {"stream": True, "stream_options": {"include_usage": True}} for fields in whole]
    task = {"urls": [world.chat_url, world.url], "suite": [*whole, *streamed]}
    command = [str(NEWEST), str(Path(__file__).parent / "python" / "suite.py")]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert int(found["version"].partition(".")[0]) > int(openai.__version__.partition(".")[0])
    assert len(found["answers"]) == len(task["suite"])
    for number, (expected, got) in enumerate(found["answers"]):
        sent, passed = world.chat.sent[2 * number : 2 * number + 2]
        (name,) = [name for name in NAMES if f'"up-{name}"'.encode() in passed]
        assert passed == sent.replace(b'"up-none"', f'"up-{name}"'.encode())
        assert {one.pop("elle")["candidate"] for one in got} == {name}
        assert json.loads(json.dumps(expected).replace("up-none", f"up-{name}")) == got
    assert found["error"] == "model_not_found"
    assert "elle/test" in found["models"]


def _plain(answer: Any) -> dict[str, Any]:
    plain: dict[str, Any] = answer.to_dict(mode="json")
    return plain


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_body_written_by_anybody_else_arrives_byte_for_byte(world: World, streamed: bool) -> None:
    raw = (
        b'{ "messages" : [{"content":"caf\\u00e9 \\ud83d\\ude00", "role":"user", "role2": 1e-7}],\n\t"top_p":1.0, '
        b'"seed":1E2,"model" :\t"large" , "stream": %s, "z":{"b":1,"a":-0.0}}\r\n' % (b"true" if streamed else b"false")
    )
    assert httpx.post(f"{world.url}/chat/completions", content=raw, headers=JSON).status_code == 200
    assert world.chat.sent == [raw.replace(b'"large"', b'"up-large"')]


def test_the_sdks_helpers_parse_tool_calls_and_schemas(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="elle/test", messages=hello(), tools=TOOLS) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.arguments == CALL["function"]["arguments"]  # type: ignore[index]


def test_the_record_stands_in_headers_body_and_every_chunk(world: World, sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "elle/test", "messages": hello("what is said of it?")}
    whole = sdk.chat.completions.with_raw_response.create(**asked)
    body = whole.parse().to_dict()
    record = body["elle"]
    assert isinstance(record, dict)
    with RouterClient(world.address) as client:
        decision = client.route("what is said of it?")
    row = next(row for row in decision.candidates if row.candidate == decision.chosen)
    assert record["candidate"] == record["answered_by"] == decision.chosen
    assert (record["reason"], record["policy"]) == (decision.reason.value, "test")
    assert (record["risk"], record["gain"]) == pytest.approx((row.risk, decision.gain))
    assert record["fell_back"] is False
    assert whole.parse().elle == record  # type: ignore[attr-defined]
    assert record["cost_usd"] == pytest.approx(30e-6)
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["ANSWERED"]
    headers = whole.headers
    assert headers["x-elle-candidate"] == headers["x-elle-answered-by"] == decision.chosen
    assert headers["x-elle-decision-id"] == headers["x-request-id"] == record["decision_id"]
    assert float(headers["x-elle-risk"]) == pytest.approx(row.risk, abs=1e-6)
    assert headers["x-elle-attempts"] == f"{decision.chosen}=ANSWERED"
    chunks = [chunk.to_dict() for chunk in sdk.chat.completions.create(**asked, stream=True)]
    assert len(chunks) > 2
    assert len({chunk["elle"]["decision_id"] for chunk in chunks}) == 1
    small = {"decision_id", "policy", "candidate", "reason", "risk", "gain", "answered_by", "fell_back"}
    assert [chunk["elle"].keys() for chunk in chunks] == [small | {"attempts"}] + [small] * (len(chunks) - 1)


def test_streams_are_events_that_end_with_done(world: World) -> None:
    reply = world.post({"model": "small", "messages": hello(), "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line for line in reply.text.splitlines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_model_names_choose_policy_profile_alias_and_candidate(world: World, sdk: openai.OpenAI) -> None:
    def record(model: str) -> dict[str, Any]:
        body = sdk.chat.completions.create(model=model, messages=hello()).to_dict()
        assert isinstance(body["elle"], dict)
        return body["elle"]

    assert record("elle/test")["policy"] == "test"
    assert record("elle/test:economy")["policy"] == "test:economy"
    assert record("router-mf-1")["candidate"] == "small"
    for name in NAMES:
        assert (record(name)["candidate"], record(name)["reason"]) == (name, "PINNED")


def test_models_are_listed_and_shown(sdk: openai.OpenAI) -> None:
    listed = {model.id: model.to_dict()["elle"] for model in sdk.models.list()}
    assert listed["elle/test"] == {"kind": "policy"}
    assert listed["elle/test:economy"] == {"kind": "profile"}
    assert listed["large"] == {"kind": "candidate", "model": "openai/up-large"}
    for name in ("elle/test:economy", "large"):
        assert sdk.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="elle/test"):
        sdk.models.retrieve("gpt-4o")


ERRORS = [
    ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
    ({"model": None}, openai.BadRequestError, "invalid_request", "model"),
    ({"messages": "hello"}, openai.BadRequestError, "invalid_request", "messages"),
    ({"stream": "yes"}, openai.BadRequestError, "invalid_request", "stream"),
    ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, openai.BadRequestError, None, None),
    ({"model": "fault-400"}, openai.BadRequestError, "upstream_rejected", None),
    ({"model": "fault-too-long"}, openai.BadRequestError, "upstream_context_window", None),
    ({"model": "fault-401"}, openai.InternalServerError, "upstream_denied", None),
    ({"model": "fault-429"}, openai.RateLimitError, "upstream_rate_limited", None),
    ({"model": "fault-500"}, openai.InternalServerError, "upstream_unavailable", None),
    ({"model": "fault-malformed"}, openai.InternalServerError, "upstream_unavailable", None),
]


@pytest.mark.parametrize(("changes", "kind", "code", "param"), ERRORS, ids=lambda value: str(value)[:40])
def test_errors_are_the_sdks_own_with_codes_of_ours(
    sdk: openai.OpenAI, changes: dict[str, Any], kind: type[openai.APIStatusError], code: str | None, param: str | None
) -> None:
    asked: Any = {"model": "elle/test", "messages": hello()} | changes
    with pytest.raises(kind) as caught:
        sdk.post("/chat/completions", body=asked, cast_to=dict)
    error = caught.value
    if code is not None:
        assert (error.code, error.param) == (code, param)
        assert error.response.headers["x-elle-error"] == code.upper().replace("MODEL_NOT_FOUND", "UNKNOWN_MODEL")
    # The caller's own words come back with what is wrong with them, and with nothing else.
    assert ("SECRET" in str(error)) is (code == "upstream_rejected")
    if str(changes.get("model")).startswith("fault-"):
        record = error.response.json()["elle"]
        assert record["candidate"] == changes["model"] == record["attempts"][0]["candidate"]
        # The router did what retrying is worth; clients leave it at that.
        assert error.response.headers["x-should-retry"] == "false"


def test_a_wait_that_the_provider_asks_for_is_told(world: World) -> None:
    reply = world.post({"model": "fault-429-wait", "messages": hello()})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")


def test_what_is_no_json_is_refused_and_so_is_a_compressed_body(world: World) -> None:
    for raw, headers in ((b"{", {}), (b"\xff", {}), (b"[]", {}), (b"", {}), (b"{}", {"content-encoding": "gzip"})):
        reply = httpx.post(f"{world.url}/chat/completions", content=raw, headers=JSON | headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None])
def test_a_body_that_is_not_said_to_be_json_is_refused_by_name(world: World, kind: str | None) -> None:
    raw = json.dumps({"model": "large", "messages": hello()}).encode()
    headers = {} if kind is None else {"content-type": kind}
    reply = httpx.post(f"{world.url}/chat/completions", content=raw, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", "content-type")
    assert error["message"] == f"content-type must be application/json, got {kind!r}."
    assert world.chat.sent == []
    named = {"content-type": "Application/JSON; charset=utf-8"}
    assert httpx.post(f"{world.url}/chat/completions", content=raw, headers=named).status_code == 200


def test_other_paths_and_methods_are_refused_in_the_same_shape(world: World) -> None:
    for method, path, status in (("GET", "/chat/completions", 405), ("POST", "/embeddings", 404)):
        reply = httpx.request(method, world.url + path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_the_limit_is_refused_by_name_and_one_below_it_arrives(world: World, declared: bool) -> None:
    def post(n_bytes: int) -> httpx.Response:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * n_bytes}}
        raw = json.dumps({"model": "large", "messages": [{"role": "user", "content": [picture]}]}).encode()
        pieces = (raw[at : at + 65536] for at in range(0, len(raw), 65536))
        content = raw if declared else pieces
        return httpx.post(f"{world.url}/chat/completions", content=content, headers=JSON, timeout=30)

    assert post(MAX_BODY_BYTES - 1000).status_code == 200
    refused = post(MAX_BODY_BYTES + 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    assert "4,194,304 bytes" in refused.json()["error"]["message"]


def test_another_candidate_answers_and_it_is_told(sdk: openai.OpenAI) -> None:
    for streamed in (False, True):
        answer = sdk.chat.completions.create(model="elle/falls", messages=hello(), stream=streamed)
        record = (next(iter(answer)) if streamed else answer).to_dict()["elle"]
        assert (record["candidate"], record["answered_by"], record["fell_back"]) == ("first", "second", True)
        tried = [(one["candidate"], one["outcome"], one["http_status"]) for one in record["attempts"]]
        assert tried == [("first", "UNAVAILABLE", 500), ("second", "ANSWERED", None)]


def test_a_session_goes_on_with_who_answered(world: World) -> None:
    loop = [
        *hello(),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    headers = {"x-session-id": "s-1", "authorization": "Bearer a"}
    first = world.post({"model": "elle/test", "messages": hello("a question of small gain 3")}, **headers)
    held = world.post({"model": "elle/test", "messages": loop}, **headers)
    assert held.headers["x-elle-reason"] == "SESSION_HELD"
    assert held.headers["x-elle-candidate"] == first.headers["x-elle-candidate"]
    stranger = world.post({"model": "elle/test", "messages": loop}, **headers | {"authorization": "Bearer b"})
    assert stranger.headers["x-elle-reason"] != "SESSION_HELD"


def test_an_answer_that_breaks_off_ends_with_an_error_event_and_without_done(world: World, sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "elle/breaks", "messages": hello(), "stream": True}
    lines = [line for line in world.post(asked).text.splitlines() if line]
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["error"]["code"] == "upstream_interrupted"
    assert last["elle"]["attempts"][-1]["outcome"] == "INTERRUPTED"
    with pytest.raises(openai.APIError, match="broke off"):
        list(sdk.chat.completions.create(**asked))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_deadline_of_the_header_holds(world: World, streamed: bool) -> None:
    started = time.monotonic()
    body = {"model": "fault-hang", "messages": hello(), "stream": streamed}
    reply = world.post(body, **{"x-elle-timeout-s": "0.5"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout")
    assert 0.4 < time.monotonic() - started < 2
    for wrong in ("1_0", "soon", "-1", "nan", "0", "inf"):
        assert world.post(body, **{"x-elle-timeout-s": wrong}).json()["error"]["param"] == "x-elle-timeout-s"


def test_a_candidate_that_is_silent_longer_than_the_deadline_leaves_time_for_another_one(world: World) -> None:
    body = {"model": "elle/stalls", "messages": hello(), "stream": True}
    reply = world.post(body, **{"x-elle-timeout-s": "3"})
    assert reply.status_code == 200
    assert reply.headers["x-elle-attempts"] == "first=TIMED_OUT,second=ANSWERED"


@pytest.mark.parametrize(
    ("fault", "streamed"), [("hang", False), ("hang", True), ("endless", True), ("stall", True)], ids=str
)
async def test_a_client_that_leaves_stops_the_upstream_within_a_second(
    world: World, fault: str, streamed: bool
) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=world.url, max_retries=0) as sdk:

        async def ask() -> None:
            answer: Any = await sdk.chat.completions.create(model=f"fault-{fault}", messages=hello(), stream=streamed)
            async for _ in answer:
                pass

        asking = asyncio.create_task(ask())
        await world.faulty.asked(fault)
        await asyncio.sleep(0.2)
        left_at = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await world.faulty.left(fault) - left_at < 1


def test_health_is_told_and_before_it_is_warm_clients_are_asked_to_come_back(world: World) -> None:
    assert httpx.get(f"{world.root}/healthz").json()["status"] == "ok"
    with in_thread(serve_app(bind_socket("127.0.0.1", 0), OpenAIDoor().app())) as port:
        root = f"http://127.0.0.1:{port}"
        chat = httpx.post(f"{root}/v1/chat/completions", json={"model": "elle/test", "messages": hello()})
        for reply in (chat, httpx.get(f"{root}/healthz"), httpx.get(f"{root}/v1/models")):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
            assert reply.json()["error"]["code"] == "not_ready"


def test_a_bug_of_ours_is_told_without_its_insides(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("router.gateways.openai_chat.query_from_body", fail)
    reply = world.post({"model": "elle/test", "messages": hello()})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in reply.text


async def test_what_is_in_work_when_the_service_stops_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(pipeline, "load_encoder", lambda *_: encoder)
    settings = ServerSettings(policies=(write_policy(tmp_path),), port=0, drain_s=10, http=OpenAIDoor())
    async with httpx.AsyncClient(timeout=30) as http:
        async with serving(settings) as running:
            encoder.gate.clear()
            url = f"http://{running.http_address}/v1/chat/completions"
            asking = asyncio.create_task(http.post(url, json={"model": "elle/test", "messages": hello("slow")}))
            async with asyncio.timeout(10):
                while running.router.pending == 0:  # noqa: ASYNC110  (a count is all there is to look at)
                    await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.5, encoder.gate.set)
        assert encoder.gate.is_set()
        assert (await asking).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await http.post(url)


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, probe=None, rule={"kind": "fixed", "candidate": "small"}, safe_default="small")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServerSettings(policies=(policy,), port=0, drain_s=0.1, http=OpenAIDoor(), http_port=port)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with serving(settings):
                pass


def test_without_uvicorn_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(GatewayNotInstalledError, match=r"elle-router\[dispatch\]"):
        OpenAIDoor()
    done = CliRunner().invoke(cli, ["serve", "--http", "0"])
    assert done.exit_code == 1
    assert "elle-router[dispatch]" in done.output
    assert CliRunner().invoke(cli, ["serve", "--max-body-bytes", "9"]).exit_code == 2


class TestNode:
    """The official Node SDK, the same way."""

    @pytest.fixture
    def node(self) -> str:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed")
        if not (NODE / "node_modules" / "openai").is_dir():
            pytest.skip(f"the Node SDK is not installed; run `npm ci --ignore-scripts` in {NODE.name} beside this test")
        return node

    def test_the_node_sdk_gets_its_answers_and_its_bodies_reach_the_upstream_byte_equal(
        self, world: World, node: str
    ) -> None:
        command = [node, str(NODE / "suite.mjs"), world.chat_url, world.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert len(world.chat.sent) == 2 * len(told["answers"]) >= 20
        for direct, passed, answer in zip(world.chat.sent[::2], world.chat.sent[1::2], told["answers"], strict=True):
            model = f'"up-{answer["candidate"]}"'.encode()
            assert passed == direct.replace(b'"up-none"', model), answer["what"]
            assert answer["same"], answer["what"]
        assert told["errors"] == {
            "unknown model": [404, "model_not_found"],
            "rate limit": [429, "upstream_rate_limited"],
            "broken stream": [None, "upstream_interrupted"],
        }
        assert "elle/test" in told["models"]

    async def test_a_node_client_that_aborts_stops_the_upstream(self, world: World, node: str) -> None:
        command = [node, str(NODE / "abort.mjs"), world.url, "fault-endless"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            await world.faulty.asked("endless")
            assert await process.stdout.readline() == b"aborted\n"
            left_at = time.monotonic()
            assert await world.faulty.left("endless") - left_at < 1
            assert process.returncode is None
        finally:
            process.kill()
            await process.communicate()
