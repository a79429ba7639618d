"""Tests of what the OpenAI door tells with an answer: the record, the stream, the models, sessions and health."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from router.client import RouterClient
from router.gateways.http.http_gateway import HttpGateway
from router.serving.http_server import bind_socket, serve_app
from tests.gateways.chat_upstream import CALL
from tests.gateways.loopback import in_thread
from tests.gateways.openai_door.door_stack import NAMES, Stack, hello


def test_the_record_stands_in_headers_body_and_every_chunk(stack: Stack, sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "elle/test", "messages": hello("what is said of it?")}
    whole = sdk.chat.completions.with_raw_response.create(**asked)
    body = whole.parse().to_dict()
    record = body["elle"]
    assert isinstance(record, dict)
    with RouterClient(stack.address) as client:
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
    small = {
        "decision_id",
        "policy",
        "policy_digest",
        "candidate",
        "reason",
        "risk",
        "gain",
        "answered_by",
        "fell_back",
    }
    assert [chunk["elle"].keys() for chunk in chunks] == [small | {"attempts"}] + [small] * (len(chunks) - 1)


def test_streams_are_events_that_end_with_done(stack: Stack) -> None:
    reply = stack.post({"model": "small", "messages": hello(), "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    # A busy machine has the time to send comments.
    lines = [line for line in reply.text.splitlines() if line[:1] not in ("", ":")]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


def test_model_names_choose_policy_profile_alias_and_candidate(stack: Stack, sdk: openai.OpenAI) -> None:
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


def test_another_candidate_answers_and_it_is_told(sdk: openai.OpenAI) -> None:
    for streamed in (False, True):
        answer = sdk.chat.completions.create(model="elle/falls", messages=hello(), stream=streamed)
        record = (next(iter(answer)) if streamed else answer).to_dict()["elle"]
        assert (record["candidate"], record["answered_by"], record["fell_back"]) == ("first", "second", True)
        tried = [(one["candidate"], one["outcome"], one["http_status"]) for one in record["attempts"]]
        assert tried == [("first", "UNAVAILABLE", 500), ("second", "ANSWERED", None)]


def test_a_session_goes_on_with_who_answered(stack: Stack) -> None:
    loop = [
        *hello(),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    headers = {"x-session-id": "s-1", "authorization": "Bearer a"}
    first = stack.post({"model": "elle/test", "messages": hello("a question of small gain 3")}, **headers)
    held = stack.post({"model": "elle/test", "messages": loop}, **headers)
    assert held.headers["x-elle-reason"] == "SESSION_HELD"
    assert held.headers["x-elle-candidate"] == first.headers["x-elle-candidate"]
    stranger = stack.post({"model": "elle/test", "messages": loop}, **headers | {"authorization": "Bearer b"})
    assert stranger.headers["x-elle-reason"] != "SESSION_HELD"


def test_health_is_told_and_before_it_is_warm_clients_are_asked_to_come_back(stack: Stack) -> None:
    assert httpx.get(f"{stack.root}/healthz").json()["status"] == "ok"
    with in_thread(serve_app(bind_socket("127.0.0.1", 0), HttpGateway().app())) as port:
        root = f"http://127.0.0.1:{port}"
        chat = httpx.post(f"{root}/v1/chat/completions", json={"model": "elle/test", "messages": hello()})
        for reply in (chat, httpx.get(f"{root}/healthz"), httpx.get(f"{root}/v1/models")):
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "2")
            assert reply.json()["error"]["code"] == "not_ready"
