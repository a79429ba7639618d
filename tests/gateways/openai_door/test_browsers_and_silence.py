"""Tests of what browsers and proxies want of the HTTP door: CORS, and comments while an upstream thinks."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx
import openai
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from router.cli.main import cli
from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.http_server import serve_on_loopback
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.loopback import in_thread
from tests.router import faults

PAGE = "https://app.example.com"

HELLO: Any = [{"role": "user", "content": "hello"}]

COMMENT = ": waiting"

#: What an upstream says of its rate limits, which the caller gets to see.
LIMITS = {"x-ratelimit-remaining-requests": "7", "anthropic-ratelimit-tokens-limit": "5"}


@dataclass
class ThinkingUpstream:
    """Says nothing until `gate` is set; then it answers, or `model` `fails` answers with 500."""

    gate: threading.Event = field(default_factory=threading.Event)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        await run_in_threadpool(self.gate.wait, 20)
        if body["model"] == "fails":
            return JSONResponse({"error": {"message": "no"}}, 500)
        if not body.get("stream"):
            return JSONResponse(faults.answer(), headers=LIMITS)
        words = (faults.event({"content": "forty-"}), faults.event({"content": "two"}), faults.event({}, "stop"))
        return StreamingResponse(iter([*words, "data: [DONE]\n\n"]), headers=LIMITS, media_type="text/event-stream")


@dataclass
class Door:
    root: str
    upstream: ThinkingUpstream

    def lines(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[httpx.Headers, list[str]]:
        """Return the headers and the lines of a stream whose upstream answers once the client has got a comment."""
        self.upstream.gate.clear()
        found: list[str] = []
        with httpx.stream("POST", self.root + path, json=body | {"stream": True}, timeout=60) as reply:
            for line in reply.iter_lines():
                if not self.upstream.gate.is_set():
                    assert line == COMMENT
                    self.upstream.gate.set()
                elif line not in {"", COMMENT}:
                    found.append(line)
        assert reply.status_code == 200
        return reply.headers, found


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder, upstream = tmp_path_factory.mktemp("policies"), ThinkingUpstream()
    with pytest.MonkeyPatch.context() as patch, in_thread(serve_on_loopback(upstream.app())) as url:
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        common = {"api_base": url, "retries": 0, "break_after": 1000}
        candidates = [
            {"name": "fails", "model": "openai/fails", "probe_model": "small", **common},
            {"name": "thinks", "model": "openai/thinks", "probe_model": "large", **common},
        ]
        rule = {"kind": "gain", "thresholds": [0.99]}
        policy = write_policy(folder, candidates=candidates, safe_default="fails", rule=rule)
        gateway = HttpGateway(cors_origins=(PAGE,), comment_after_s=0.05)
        with in_thread(serving(ServerSettings(policies=(policy,), port=0, drain_s=1, http=gateway))) as running:
            yield Door(f"http://{running.http_address}", upstream)


@pytest.fixture(autouse=True)
def _ready(door: Door) -> None:
    door.upstream.gate.set()


def test_a_client_gets_comments_while_the_upstream_thinks_and_then_the_answer(door: Door) -> None:
    headers, lines = door.lines({"model": "thinks", "messages": HELLO})
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "forty-two"
    assert (headers["x-elle-candidate"], "x-elle-answered-by" in headers) == ("thinks", False)
    assert chunks[0]["elle"]["answered_by"] == "thinks"


def test_another_candidate_still_takes_over_after_a_comment(door: Door) -> None:
    _, lines = door.lines({"model": "elle/test", "messages": HELLO})
    first = json.loads(lines[0].removeprefix("data: "))["elle"]
    assert (first["candidate"], first["answered_by"], lines[-1]) == ("fails", "thinks", "data: [DONE]")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_an_error_after_a_comment_is_the_error_event_of_the_api(door: Door, path: str) -> None:
    asked = {"model": "fails", "max_tokens": 5, "input" if path == "/v1/responses" else "messages": HELLO}
    _, lines = door.lines(asked, path)
    data = json.loads(lines[-1].removeprefix("data: "))
    assert data["error"]["code"] == "upstream_unavailable"
    assert [line for line in lines[:-1] if line != "event: error"] == []
    assert data["elle"]["attempts"][0]["candidate"] == "fails"


def test_the_sdks_read_comments_and_the_errors_behind_them(door: Door) -> None:
    for model in ("thinks", "fails"):
        door.upstream.gate.clear()
        with openai.OpenAI(api_key="k", base_url=f"{door.root}/v1", max_retries=0) as sdk:
            # It returns with the headers, which come with the first comment.
            stream = sdk.chat.completions.create(model=model, messages=HELLO, stream=True)
            door.upstream.gate.set()
            if model == "thinks":
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "forty-two"
            else:
                with pytest.raises(openai.APIError, match="candidate"):
                    list(stream)
    door.upstream.gate.clear()
    with (
        anthropic.Anthropic(api_key="k", base_url=door.root, max_retries=0) as messages,
        messages.messages.stream(model="thinks", max_tokens=9, messages=HELLO) as events,
    ):
        door.upstream.gate.set()
        assert events.get_final_text() == "forty-two"


def test_a_whole_answer_has_no_comments_and_an_early_error_its_status(door: Door) -> None:
    reply = httpx.post(f"{door.root}/v1/chat/completions", json={"model": "thinks", "messages": HELLO}, timeout=60)
    assert reply.json()["choices"][0]["message"]["content"] == "forty-two"
    reply = httpx.post(f"{door.root}/v1/chat/completions", json={"model": "nobody", "messages": HELLO, "stream": True})
    assert reply.status_code == 404


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_rate_limits_of_the_upstream_that_answered_are_told(door: Door, streamed: bool) -> None:
    for path in ("chat/completions", "messages"):
        body = {"model": "thinks", "max_tokens": 5, "messages": HELLO, "stream": streamed}
        reply = httpx.post(f"{door.root}/v1/{path}", json=body, timeout=60)
        assert LIMITS.items() <= dict(reply.headers).items()
    refused = httpx.post(f"{door.root}/v1/chat/completions", json={"model": "fails", "messages": HELLO}, timeout=60)
    assert not LIMITS.keys() & set(refused.headers)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/healthz"])
def test_a_preflight_of_a_known_page_is_answered_and_one_of_another_page_is_not(door: Door, path: str) -> None:
    asks = {"access-control-request-method": "POST"} | {
        "access-control-request-headers": "authorization, x-elle-timeout-s"
    }
    known = httpx.options(door.root + path, headers={"origin": PAGE, **asks})
    assert (known.status_code, known.headers["access-control-allow-origin"]) == (200, PAGE)
    assert known.headers["access-control-allow-headers"] == asks["access-control-request-headers"]
    assert "POST" in known.headers["access-control-allow-methods"]
    other = httpx.options(door.root + path, headers={"origin": "https://evil.example", **asks})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)


@pytest.mark.parametrize(
    ("changes", "status"), [({}, 200), ({"stream": True}, 200), ({"model": "x"}, 404), ({"model": "fails"}, 503)]
)
def test_answers_and_errors_may_be_read_by_a_known_page_only(door: Door, changes: dict[str, Any], status: int) -> None:
    body = {"model": "thinks", "messages": HELLO} | changes
    for origin, allowed in ((PAGE, PAGE), ("https://evil.example", None), (None, None)):
        headers = {} if origin is None else {"origin": origin}
        reply = httpx.post(f"{door.root}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert (reply.status_code, reply.headers.get("access-control-allow-origin")) == (status, allowed)
        assert (reply.headers.get("access-control-expose-headers") == "*") is (origin is not None)


@pytest.mark.parametrize("origin", [f"{PAGE}/", "app.example.com", "HTTPS://APP.example.com", "", "x y"])
def test_an_origin_that_no_browser_sends_is_refused_by_name(origin: str) -> None:
    result = CliRunner().invoke(cli, ["serve", "--http", "0", "--cors-origin", origin])
    assert result.exit_code == 1
    assert "--cors-origin must be * or an origin" in result.stderr
    for option in (["--cors-origin", "*"], ["--comment-after-s", "5"]):
        alone = CliRunner().invoke(cli, ["serve", *option])
        assert (alone.exit_code, f"{option[0]} " in alone.stderr, "need --http." in alone.stderr) == (2, True, True)


def test_any_page_may_call_if_the_origin_is_a_star_and_none_may_by_default() -> None:
    from starlette.testclient import TestClient

    for origins, allowed in ((("*",), "*"), ((), None)):
        app = HttpGateway(cors_origins=origins).app()
        reply = TestClient(app, raise_server_exceptions=False).get("/nowhere", headers={"origin": PAGE})
        assert (reply.status_code, reply.headers.get("access-control-allow-origin")) == (404, allowed)
