"""The id of a session is read from the usual places, and callers with different credentials have different keys."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from router.asking.session_ids import SESSION_HEADERS, caller_of, session_id_of
from router.plain_json import PIECE


@pytest.mark.parametrize("name", SESSION_HEADERS)
def test_the_usual_headers_name_a_session_in_any_case(name: str) -> None:
    assert session_id_of("", {name.title(): "s-1"}, {}) == "s-1"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"session_id": "a"}, "a"),
        ({"litellm_session_id": "a"}, "a"),
        ({"conversation": "conv_1"}, "conv_1"),
        ({"conversation": {"id": "conv_1"}}, "conv_1"),
        ({"metadata": {"session_id": "m"}}, "m"),
        ({"metadata": {"conversation_id": "m"}}, "m"),
        ({"metadata": {"user_id": "user_0a_account_1b_session_2c-3d"}}, "2c-3d"),
        ({"metadata": {"user_id": json.dumps({"device_id": "x", "session_id": "2c"})}}, "2c"),
        ({"metadata": {"user_id": "user_0a"}}, ""),
        ({"metadata": {"user_id": "{not json"}}, ""),
        ({"metadata": {"user_id": "{}"}}, ""),
        ({"metadata": {"session_id": 7}, "session_id": ["x"]}, ""),
        ({"metadata": "session_id"}, ""),
        ({"prompt_cache_key": "shared", "user": "u"}, ""),
        ({"session_id": "body", "metadata": {"session_id": "meta"}}, "body"),
    ],
)
def test_bodies_name_a_session_in_the_usual_fields(parameters: dict[str, Any], expected: str) -> None:
    assert session_id_of("", {}, parameters) == expected


def test_a_user_id_too_long_to_be_one_is_not_decoded() -> None:
    # It is a text, so nobody has counted the values in it.
    user_id = json.dumps({"session_id": "s", "x": [[]] * 2000})
    assert session_id_of("", {}, {"metadata": {"user_id": '{"session_id": "s"}'}}) == "s"
    assert session_id_of("", {}, {"metadata": {"user_id": user_id}}) == ""


def test_a_given_id_is_preferred_to_headers_and_headers_to_the_body() -> None:
    body = {"session_id": "body"}
    assert session_id_of("given", {"x-session-id": "header"}, body) == "given"
    assert session_id_of("", {"x-session-id": "header"}, body) == "header"
    assert session_id_of("", {"x-request-id": "no", "x-session-id": ""}, body) == "body"


def test_the_key_of_a_caller_follows_from_its_credential_and_does_not_reveal_it() -> None:
    one, two = caller_of({"Authorization": "Bearer secret-1"}), caller_of({"authorization": "Bearer secret-2"})
    assert one != two
    assert "secret" not in one
    assert one == caller_of({"authorization": "Bearer secret-1", "user-agent": "x"})
    assert caller_of({"x-api-key": "k"}) not in {"", one}
    assert caller_of({"X-API-Key": "secret-1"}) == caller_of({"api-key": "secret-1"}) == one
    assert caller_of({}) == ""


def test_a_long_id_becomes_its_digest_and_is_never_encoded_in_one_step() -> None:
    class Watched(str):
        def encode(self, *_: Any, **__: Any) -> bytes:
            raise AssertionError("the whole id was encoded")

    # Halves of surrogate pairs lie on both sides of a cut.
    text = "s" * (PIECE - 1) + "\ud83d\ude00" * PIECE + "\ud83d"
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    assert session_id_of(Watched(text), {}, {}) == f"sha256:{digest}"
