"""Tests of requests that the OpenAI door refuses, and of errors in the SDK's own shape."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from tests.gateways.openai_door.door_stack import JSON, MAX_BODY_BYTES, Stack, hello

#: No candidate of these tests can hear.
SOUND = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}

ERRORS = [
    ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
    ({"model": None}, openai.BadRequestError, "invalid_request", "model"),
    ({"messages": "hello"}, openai.BadRequestError, "invalid_request", "messages"),
    ({"stream": "yes"}, openai.BadRequestError, "invalid_request", "stream"),
    ({"messages": [{"role": "user", "content": [SOUND]}]}, openai.BadRequestError, None, None),
    ({"model": "fault-400"}, openai.BadRequestError, "upstream_rejected", None),
    ({"model": "fault-too-long"}, openai.BadRequestError, "context_length_exceeded", None),
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
        ours = {"model_not_found": "UNKNOWN_MODEL", "context_length_exceeded": "UPSTREAM_CONTEXT_WINDOW"}
        assert error.response.headers["x-elle-error"] == ours.get(code, code.upper())
    # The caller's own words come back with what is wrong with them, and with nothing else.
    assert ("SECRET" in str(error)) is (code == "upstream_rejected")
    if str(changes.get("model")).startswith("fault-"):
        record = error.response.json()["elle"]
        assert record["candidate"] == changes["model"] == record["attempts"][0]["candidate"]
        # The router did what retrying is worth; clients leave it at that.
        assert error.response.headers["x-should-retry"] == "false"


def test_a_wait_that_the_provider_asks_for_is_told(stack: Stack) -> None:
    reply = stack.post({"model": "fault-429-wait", "messages": hello()})
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")


def test_what_is_no_json_is_refused_and_so_is_a_compressed_body(stack: Stack) -> None:
    for raw, headers in ((b"{", {}), (b"\xff", {}), (b"[]", {}), (b"", {}), (b"{}", {"content-encoding": "gzip"})):
        reply = httpx.post(f"{stack.url}/chat/completions", content=raw, headers=JSON | headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None])
def test_a_body_that_is_not_said_to_be_json_is_refused_by_name(stack: Stack, kind: str | None) -> None:
    raw = json.dumps({"model": "large", "messages": hello()}).encode()
    headers = {} if kind is None else {"content-type": kind}
    reply = httpx.post(f"{stack.url}/chat/completions", content=raw, headers=headers)
    error = reply.json()["error"]
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", "content-type")
    assert (
        error["message"] == f"content-type must be application/json, got {'nothing' if kind is None else repr(kind)}."
    )
    assert stack.chat.sent == []
    named = {"content-type": "Application/JSON; charset=utf-8"}
    assert httpx.post(f"{stack.url}/chat/completions", content=raw, headers=named).status_code == 200


def test_other_paths_and_methods_are_refused_in_the_same_shape(stack: Stack) -> None:
    for method, path, status in (("GET", "/chat/completions", 405), ("POST", "/moderations", 404)):
        reply = httpx.request(method, stack.url + path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_over_the_limit_is_refused_by_name_and_one_below_it_arrives(stack: Stack, declared: bool) -> None:
    def post(n_bytes: int) -> httpx.Response:
        picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * n_bytes}}
        raw = json.dumps({"model": "large", "messages": [{"role": "user", "content": [picture]}]}).encode()
        pieces = (raw[at : at + 65536] for at in range(0, len(raw), 65536))
        content = raw if declared else pieces
        return httpx.post(f"{stack.url}/chat/completions", content=content, headers=JSON, timeout=60)

    assert post(MAX_BODY_BYTES - 1000).status_code == 200
    refused = post(MAX_BODY_BYTES + 1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
    assert "4,194,304 bytes" in refused.json()["error"]["message"]


def test_a_bug_of_ours_is_told_without_its_insides(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("router.gateways.http.exchange.query_from_body", fail)
    reply = stack.post({"model": "elle/test", "messages": hello()})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in reply.text
