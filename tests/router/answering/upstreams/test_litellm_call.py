"""What is written into the body that LiteLLM makes replaces nothing, and what cannot be written there is not sent."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from router.answering.upstreams.bounded_httpx import _install, _with_additions
from router.answering.upstreams.litellm_call import Additions, Call
from router.answering.upstreams.litellm_request import additions_of, without_long_texts
from router.errors import UpstreamRejectedError
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery

CHAT = {"model": "m", "messages": [{"role": "user", "content": "."}], "usage": {"include": True}}


def put(additions: Additions, body: Any = CHAT) -> Any:
    made = additions.put_into(json.dumps(body).encode())
    return None if made is None else json.loads(b"".join(additions.pieces_of(made)))


def test_fields_are_added_and_replace_nothing() -> None:
    assert put(Additions({"new": {"a": [1, None]}})) == CHAT | {"new": {"a": [1, None]}}
    assert put(Additions({"model": "stolen", "usage": 1, "größe": "é"})) == CHAT | {"größe": "é"}
    # The name of a field may stand anywhere.
    body = CHAT | {"messages": [{"role": "user", "content": 'say "new":'}]}
    assert put(Additions({"new": 1}), body) == body | {"new": 1}


@pytest.mark.parametrize("body", [{"grant_type": "x"}, [1], "messages", {"a": {"messages": 1}}])
def test_a_request_that_is_no_chat_stays_as_it_is(body: Any) -> None:
    assert put(Additions({"new": 1, "größe": 2}), body) is None


def test_contents_are_put_back_where_the_messages_are_those_of_the_request() -> None:
    content = [{"type": "hologram"}]
    additions = Additions(contents={0: content}, roles=("user",))
    assert put(additions) == CHAT | {"messages": [{"role": "user", "content": content}]}
    for messages in ([], CHAT["messages"] * 2, [{"role": "system", "content": "."}], "x", [3]):  # type: ignore[operator]
        assert put(additions, CHAT | {"messages": messages}) is None


@pytest.mark.parametrize(
    "additions",
    [Additions(contents={0: [{"type": "hologram"}]}, roles=("user",)), Additions(stand_ins={"elle1234": "A" * 9})],
    ids=["parts", "stand-in"],
)
def test_nothing_is_sent_if_a_signed_body_would_lose_something(additions: Additions) -> None:
    body = json.dumps(CHAT | {"picture": "elle1234"}).encode()
    request = httpx.Request("POST", "http://x", headers={"authorization": "AWS4-HMAC-SHA256 ..."}, content=body)
    call = Call(1000, streamed=False, additions=additions)
    assert _with_additions(request, body, call) is request
    assert isinstance(call.refusal, UpstreamRejectedError)
    assert not call.refusal.counts
    call = Call(1000, streamed=False, additions=Additions({"new": 1}))
    assert _with_additions(request, body, call) is request
    assert (call.refusal, call.left_out) == (None, ("new",))


async def test_a_long_text_is_sent_in_pieces_and_its_length_is_told() -> None:
    candidate = Candidate(name="c", model="openrouter/x", api_base="http://x")
    url = "data:image/png;base64," + "A" * 200_000 + '"\\é'
    picture = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    query = RouteQuery(({"role": "user", "content": [{"type": "text", "text": "x" * 100_000}, picture]},))
    light, stand_ins = without_long_texts(candidate, query)
    assert len(stand_ins) == 1
    assert query.messages[0]["content"][1] is picture
    assert url not in str(light.messages)
    call = Call(1000, streamed=False, additions=additions_of(candidate, light, stand_ins))
    body = json.dumps(CHAT).encode()
    request = _with_additions(httpx.Request("POST", "http://x", content=body), body, call)
    pieces = [piece async for piece in request.stream]  # type: ignore[union-attr]
    assert len(pieces) > 3
    assert request.headers["content-length"] == str(sum(map(len, pieces)))
    assert "transfer-encoding" not in request.headers
    assert json.loads(b"".join(pieces))["messages"] == list(query.messages)
    short = RouteQuery(({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,A"}}]},))
    assert without_long_texts(candidate, short) == (short, {})


def test_clients_that_are_not_ours_work_as_before_with_what_httpx_names_its_arguments() -> None:
    _install()
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, text="hello"))) as client:
        assert client.get("http://x").text == "hello"
        with client.stream("GET", "http://x") as answer:
            assert answer.read() == b"hello"
        assert client.send(request=client.build_request("GET", "http://x")).text == "hello"
