"""Tests of what Anthropic's door refuses before it reads a request: its clients get errors in their own format too."""

from __future__ import annotations

import json
import socket
from typing import Any

import anthropic
import httpx
import pytest

from tests.gateways.anthropic_door.conftest import Stack

#: What no parser of HTTP takes, or what is too much, behind the first line of a request.
MALFORMED = {
    "header": (b"no colon\r\n\r\n", 400),
    "length": (b"content-length: many\r\n\r\n", 400),
    "two-lengths": (b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
    "chunk": (b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
    "long-head": (b"x-a: b\r\n" * 5000, 431),
}


def refused(root: str, path: bytes, rest: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes as they are, and return the status and the body of the answer."""
    host, _, port = root.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as one, one.makefile("rb") as stream:
        one.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\n%b" % (path, rest))
        status = int(stream.readline().split()[1])
        while stream.readline() not in {b"\r\n", b""}:
            pass
        return status, json.loads(stream.read())


@pytest.mark.parametrize("kind", MALFORMED)
@pytest.mark.parametrize(
    "path", [b"/v1/messages", b"//v1/messages/", b"/v1/messages/count_tokens?beta=true", b"http://x/v1/mess%61ges"]
)
def test_what_is_no_http_is_refused_in_anthropics_format_on_its_paths(stack: Stack, path: bytes, kind: str) -> None:
    rest, expected = MALFORMED[kind]
    status, body = refused(stack.root, path, rest)
    assert status == expected
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"]


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/responses", b"/v1/messagesx"])
def test_what_is_no_http_is_refused_in_openais_format_on_all_other_paths(stack: Stack, path: bytes) -> None:
    status, body = refused(stack.root, path, b"no colon\r\n\r\n")
    assert (status, body["error"]["code"], body.get("type")) == (400, "refused", None)


def test_a_first_line_without_a_path_is_refused_in_openais_format(stack: Stack) -> None:
    status, body = refused(stack.root, b"", b"")
    assert (status, body["error"]["type"], body["error"]["param"]) == (400, "invalid_request_error", None)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages/count_tokens", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", 404, "not_found_error"),
        ("GET", "/v1/messages/batches/msgbatch_1", 404, "not_found_error"),
    ],
)
def test_what_is_not_served_is_refused_in_anthropics_format(
    stack: Stack, method: str, path: str, status: int, kind: str
) -> None:
    reply = httpx.request(method, f"{stack.root}{path}")
    body = reply.json()
    assert (reply.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert path in body["error"]["message"]


def test_anthropics_sdk_gets_its_own_errors_where_both_apis_have_the_path(
    stack: Stack, sdk: anthropic.Anthropic
) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk.models.retrieve("nobody")
    told: Any = caught.value.body
    assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")
    assert "type" not in httpx.get(f"{stack.root}/v1/models/nobody").json()
