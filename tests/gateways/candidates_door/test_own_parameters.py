"""A candidate's own parameters reach its upstream through every door, in the words of the API, where none were set."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.values import RouteQuery
from tests.gateways.candidates_door.conftest import Door, events
from tests.router.answering.dispatch.dispatch_stack import pin

CHAT = {"messages": [{"role": "user", "content": "hello"}]}


def test_a_chat_gets_them_and_is_the_same_to_the_byte_before_them(door: Door) -> None:
    raw = b'{ "messages" : [{"role":"user","content":"gr\\u00fc\xc3\x9fe"}],\n "model": "low" , "t" : 1.0}'
    reply = door.http.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})
    assert reply.status_code == 200, reply.text
    assert reply.json()["elle"]["answered_by"] == "low"
    assert door.upstream.sent[-1] == (
        b'{"messages" : [{"role":"user","content":"gr\\u00fc\xc3\x9fe"}],"model": "thinker","t" : 1.0,'
        b'"reasoning_effort":"low","verbosity":"low","max_tokens":500}'
    )


def test_a_stream_gets_them_too(door: Door) -> None:
    reply = door.chat("high", stream=True)
    assert door.upstream.last["reasoning_effort"] == "high"
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in events(reply)) == "forty-two"


@pytest.mark.parametrize("streamed", [False, True])
def test_grpc_gets_them(door: Door, streamed: bool) -> None:
    query = RouteQuery.from_prompt("hello", overrides=pin("high"))
    if streamed:
        assert "".join(step.text for step in door.grpc.stream(query)) == "forty-two"
    else:
        assert door.grpc.complete(query).text == "forty-two"
    own = {"reasoning_effort": "high", "verbosity": "high", "max_tokens": 500}
    assert own.items() <= door.upstream.last.items()


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal", "verbosity": "low", "max_tokens": 500}),
        ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}, "verbosity": "low", "max_tokens": 500}),
        ({"max_completion_tokens": 7}, {"max_completion_tokens": 7, "reasoning_effort": "low", "verbosity": "low"}),
        ({"max_tokens": -1}, {"reasoning_effort": "low", "verbosity": "low", "max_tokens": 500}),
        ({"verbosity": None}, {"reasoning_effort": "low", "verbosity": "low", "max_tokens": 500}),
    ],
)
def test_what_the_caller_sets_counts(door: Door, given: dict[str, Any], sent: dict[str, Any]) -> None:
    door.chat("low", **given)
    assert door.upstream.last == {"model": "thinker", **CHAT, **sent}


def test_the_responses_api_has_its_own_words(door: Door) -> None:
    door.post("/v1/responses", "low", input="hello", text={"format": {"type": "text"}}, max_output_tokens=9)
    text = {"format": {"type": "text"}, "verbosity": "low"}
    own = {"reasoning": {"effort": "low"}, "text": text, "max_output_tokens": 9}
    assert door.upstream.last == {"model": "thinker", "input": "hello", **own}


def test_the_old_completions_get_what_they_have_a_word_for(door: Door) -> None:
    door.post("/v1/completions", "low", prompt="hello")
    assert door.upstream.last == {"model": "thinker", "prompt": "hello", "max_tokens": 500}


def test_a_message_of_anthropic_gets_them_in_its_words(door: Door) -> None:
    door.post("/v1/messages", "claude", max_tokens=50, **CHAT)
    own = {"output_config": {"effort": "low"}, "stop_sequences": ["END"], "top_k": 5}
    assert door.upstream.last == {"model": "claude-opus-4-5", "max_tokens": 50, **CHAT, **own}


def test_a_message_that_is_translated_gets_them_as_a_chat(door: Door) -> None:
    door.post("/v1/messages", "low", max_tokens=50, **CHAT)
    assert door.upstream.last == {"model": "thinker", "max_tokens": 50, **CHAT} | {
        "reasoning_effort": "low",
        "verbosity": "low",
    }


def test_litellm_translates_them_for_anthropic(door: Door) -> None:
    door.chat("claude")
    body = door.upstream.last
    assert body["thinking"]["type"] == "enabled"
    assert (body["stop_sequences"], body["top_k"]) == (["END"], 5)
    assert not body.keys() & {"reasoning_effort", "stop", "extra_body"}


def test_a_provider_that_litellm_asks_gets_them_and_the_further_fields(door: Door) -> None:
    door.chat("vllm")
    own = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    assert own.items() <= door.upstream.last.items()
    door.chat("vllm", chat_template_kwargs={"a": 1})
    assert door.upstream.last["chat_template_kwargs"] == {"a": 1}


def test_the_policy_shows_them(door: Door) -> None:
    shown = json.loads(door.grpc.get_policy("efforts").policy_json)["candidates"]
    assert [one["params"]["reasoning_effort"] for one in shown] == ["low", "high"]


#: What providers say of a parameter that they refuse, and whether the request or the policy set it.
REFUSALS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({"message": "Unsupported value: 'reasoning_effort'", "param": "reasoning_effort"}, {}, True),
    ({"message": "reasoning_effort: must be one of minimal, low"}, {}, True),
    ({"message": "max_tokens is too large: 500", "param": "max_tokens", "code": "invalid_value"}, {}, True),
    ({"message": "Unrecognized request argument supplied: verbosity"}, {}, True),
    ({"message": "Invalid value for 'temperature'", "param": "temperature"}, {"temperature": 1.5}, False),
    ({"message": "reasoning_effort: no"}, {"reasoning_effort": "x", "verbosity": "low", "max_tokens": 5}, False),
    ({"message": "your prompt is not allowed"}, {}, False),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("said", "given", "is_ours"), REFUSALS)
def test_a_refusal_of_them_blames_the_policy(
    door: Door, said: dict[str, Any], given: dict[str, Any], is_ours: bool, streamed: bool
) -> None:
    door.upstream.says["thinker"] = {"error": said | {"type": "invalid_request_error"}}
    try:
        reply = door.http.post("/v1/chat/completions", json={"model": "high", "stream": streamed} | CHAT | given)
    finally:
        del door.upstream.says["thinker"]
    assert reply.status_code == (502 if is_ours else 400)
    assert reply.headers["x-elle-error"] == ("UPSTREAM_MISCONFIGURED" if is_ours else "UPSTREAM_REJECTED")
    assert ("that the policy sets for it" if is_ours else said["message"]) in reply.text
