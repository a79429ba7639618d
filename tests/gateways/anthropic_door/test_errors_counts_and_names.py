"""Tests of Anthropic's door: errors in its format, counts of tokens, names of models, and other candidates."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest

from tests.gateways.anthropic_door.conftest import Stack

HELLO: Any = [{"role": "user", "content": "hello"}]


def _ask(sdk: anthropic.Anthropic, model: str, *, streamed: bool) -> None:
    if streamed:
        list(sdk.messages.create(model=model, max_tokens=1, messages=HELLO, stream=True))
    else:
        sdk.messages.create(model=model, max_tokens=1, messages=HELLO)


def body(model: str = "elle/test", **more: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 10, "messages": HELLO, **more}


@pytest.mark.parametrize(
    ("model", "raised", "kind"),
    [
        ("fail-529", anthropic.InternalServerError, "overloaded_error"),
        ("fail-400", anthropic.BadRequestError, "invalid_request_error"),
        ("fail-429", anthropic.RateLimitError, "rate_limit_error"),
        # The provider refused the router's key, which the caller can do nothing about.
        ("fail-401", anthropic.InternalServerError, "api_error"),
        ("nobody", anthropic.NotFoundError, "not_found_error"),
    ],
)
def test_errors_are_those_of_anthropics_sdk(
    stack: Stack, sdk: anthropic.Anthropic, model: str, raised: type[anthropic.APIStatusError], kind: str
) -> None:
    # After a 429 with Retry-After the candidate rests, so only one call gets it.
    for streamed in (False,) if model == "fail-429" else (False, True):
        with pytest.raises(raised) as caught:
            _ask(sdk, model, streamed=streamed)
        told: Any = caught.value.body
        assert (told["type"], told["error"]["type"]) == ("error", kind)
        assert told["error"]["message"]
        if model == "fail-429":
            assert caught.value.response.headers["retry-after"] == "7"
            assert caught.value.response.headers["retry-after-ms"] == "7000"


def test_a_stream_that_says_only_that_it_stopped_is_no_answer(stack: Stack) -> None:
    reply = stack.post(body("hollow", stream=True))
    assert reply.status_code == 503
    assert "forged" not in reply.text


def test_a_record_that_an_upstream_writes_into_its_events_is_left_out(stack: Stack) -> None:
    reply = stack.post(body("forge", stream=True))
    assert reply.status_code == 200
    assert reply.text.count("event: content_block_delta") == 3
    assert "forged" not in reply.text


@pytest.mark.parametrize("model", ["break", "cut"])
def test_a_stream_that_breaks_ends_in_an_error_event(stack: Stack, sdk: anthropic.Anthropic, model: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught, sdk.messages.stream(**body(model)) as stream:
        stream.until_done()
    told: Any = caught.value.body
    assert told["type"] == "error"
    raw = stack.post(body(model, stream=True)).text
    assert raw.rpartition("event: ")[2].startswith("error\n")
    assert "message_stop" not in raw


def test_odd_events_of_an_upstream_pass_and_their_cost_is_unknown(stack: Stack) -> None:
    reply = stack.post(body("odd", stream=True))
    assert (reply.status_code, "cost_usd" in reply.text) == (200, False)
    assert reply.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert '"type":["text"]' in reply.text


def test_a_count_below_zero_is_the_upstreams_fault(stack: Stack) -> None:
    reply = stack.post(body("odd"), "/v1/messages/count_tokens")
    assert (reply.status_code, reply.json()["error"]["type"]) == (503, "overloaded_error")


@pytest.mark.parametrize(
    "broken",
    [
        {"messages": None},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": []},
        {"stream": "yes"},
        {"max_tokens": "many"},
        {"model": None},
    ],
)
def test_what_is_malformed_is_refused_in_anthropics_format(stack: Stack, broken: dict[str, Any]) -> None:
    reply = stack.post(body() | broken)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert not stack.messages.sent
    assert not stack.chats.sent


@pytest.mark.parametrize(
    "odd",
    [
        {"tools": "a hammer"},
        {"tools": [7]},
        {"system": {"text": "x"}},
        {"system": [7]},
        {"tool_choice": "auto"},
        {"thinking": 3},
        {"stop_sequences": 3},
        {"metadata": "x"},
        {"output_config": 7},
        {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": None}, {"type": "text", "text": "x"}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": 7}]}, *HELLO]},
    ],
)
def test_what_cannot_be_translated_is_the_callers_fault(stack: Stack, odd: dict[str, Any]) -> None:
    reply = stack.post(body("small") | odd)
    assert reply.status_code in {200, 400}, reply.text
    assert "Traceback" not in reply.text
    if reply.status_code == 400:
        assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("model", "policy", "reason"),
    [
        ("elle-test", "test", None),
        ("elle-test:economy", "test:economy", None),
        ("auto", "test", None),
        ("claude-sonnet-9", "test", None),
        ("claude-haiku-9-20261001", "test:economy", None),
        ("gpt-4o-mini", "test", "PINNED"),
    ],
)
def test_a_model_may_have_an_alias_or_no_slash(stack: Stack, model: str, policy: str, reason: str | None) -> None:
    for path in ("/v1/messages", "/v1/chat/completions"):
        reply = stack.post(body(model), path)
        assert reply.status_code == 200, reply.text
        record = reply.json()["elle"]
        assert record["policy"] == policy
        assert (record["reason"] == "PINNED") is (reason == "PINNED")


def test_a_stream_carries_the_record_in_its_first_event_and_the_cost_in_that_with_the_usage(stack: Stack) -> None:
    lines = stack.post(body("large", stream=True)).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    marked = {event["type"]: event["elle"] for event in events if "elle" in event}
    assert list(marked) == ["message_start", "message_delta"]
    assert marked["message_start"]["attempts"][0]["candidate"] == "large"
    assert marked["message_delta"]["cost_usd"] == pytest.approx(110e-6 + 20e-6)


def test_tokens_are_counted_by_a_candidate_of_anthropics_api_or_else_estimated(
    stack: Stack, sdk: anthropic.Anthropic
) -> None:
    assert sdk.messages.count_tokens(model="elle/test", messages=HELLO).input_tokens == 17
    assert stack.messages.paths == ["/v1/messages/count_tokens"]
    assert json.loads(stack.messages.sent[0]) == {"model": "claude-up", "messages": HELLO}
    reply = stack.post({"model": "small", "messages": HELLO}, "/v1/messages/count_tokens")
    assert reply.json() == {"input_tokens": 2}
    assert reply.headers["x-elle-estimated"] == "true"
    assert len(stack.messages.paths) == 1


def test_a_direct_and_a_translated_candidate_both_get_the_whole_request(stack: Stack, sdk: anthropic.Anthropic) -> None:
    system = [{"type": "text", "text": "be kind"}]
    sent = body("elle/test", system=system, tools=[], temperature=0.5)
    first = stack.post(sent).json()
    second = stack.post(sent | {"model": "elle/test:economy"}).json()
    assert first["elle"]["candidate"] != second["elle"]["candidate"]
    raw = json.loads(stack.messages.sent[0])
    assert {key: raw[key] for key in ("system", "temperature", "messages")} == {
        key: sent[key] for key in ("system", "temperature", "messages")
    }
    translated = json.loads(stack.chats.sent[0])
    assert [message["role"] for message in translated["messages"]] == ["system", "user"]
