"""What a translated request does not say is told in the record and in a header, whole and streamed, on every API."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.gateways.candidates_door.conftest import PROVIDERS, Door, events

HI = [{"role": "user", "content": "hello"}]
HEADER = "x-elle-dropped-parameters"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("name", ["plain", "mistral"])
def test_what_the_responses_api_says_beyond_a_chat_is_told(door: Door, name: str, streamed: bool) -> None:
    more = {"truncation": "auto", "context_management": [{"type": "compaction"}], "include": ["x"], "brand_new": 1}
    reply = door.post("/v1/responses", name, input="hello", stream=streamed, **more)
    assert reply.headers[HEADER] == "truncation,context_management,include,brand_new"
    answer = events(reply)[0]["response"] if streamed else reply.json()
    assert answer["elle"]["dropped_parameters"] == list(more)
    assert more.keys().isdisjoint(door.upstream.last)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_what_anthropics_api_says_beyond_a_chat_is_told(door: Door, streamed: bool) -> None:
    more = {"context_management": {"edits": [{"type": "x"}]}, "speed": "fast", "user_profile_id": "u"}
    reply = door.post("/v1/messages", "plain", messages=HI, max_tokens=5, stream=streamed, **more)
    assert reply.headers[HEADER] == "context_management,speed,user_profile_id"
    answer = events(reply)[0] if streamed else reply.json()
    assert answer["elle"]["dropped_parameters"] == list(more)
    assert more.keys().isdisjoint(door.upstream.last)


def test_where_anthropic_must_answer_is_not_dropped_but_refused_for_others(door: Door) -> None:
    body = {"model": "plain", "messages": HI, "max_tokens": 5, "inference_geo": "eu"}
    reply = door.http.post("/v1/messages", json=body)
    assert reply.status_code == 400
    assert "does not speak Anthropic's API itself, which 'inference_geo' needs" in reply.json()["error"]["message"]


def test_names_that_no_header_can_hold_are_told_too_and_there_are_not_too_many(door: Door) -> None:
    names = ["größe", "a\r\nx-evil: 1", "a,b", "\ud800", "long" * 1000, *(f"new{number}" for number in range(100))]
    body = {"model": "plain", "input": "hello", **dict.fromkeys(names, 1)}
    reply = door.http.post("/v1/responses", content=json.dumps(body), headers={"content-type": "application/json"})
    assert reply.status_code == 200, reply.text
    told = reply.headers[HEADER].split(",")
    assert told[:4] == ["gr%C3%B6%C3%9Fe", "a%0D%0Ax-evil%3A 1", "a%2Cb", "%3F"]
    assert "x-evil" not in reply.headers
    assert len(told) == 50
    assert len(reply.headers[HEADER]) < 6000
    assert reply.json()["elle"]["dropped_parameters"][0] == "größe"


def test_calls_in_parallel_are_turned_off_in_a_chat_too(door: Door) -> None:
    tools = [{"name": "f", "input_schema": {"type": "object", "properties": {}}, "defer_loading": True}]
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    reply = door.post("/v1/messages", "plain", messages=HI, max_tokens=5, tools=tools, tool_choice=choice)
    assert door.upstream.last["parallel_tool_calls"] is False
    assert reply.headers[HEADER] == "tools.defer_loading"


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


#: The providers of which LiteLLM says that they know no tool choice, or not this one.
CANNOT_CHOOSE = {"deepinfra", "azure-ai", "sambanova"}


@pytest.mark.parametrize("name", [*sorted(PROVIDERS.keys() - CANNOT_CHOOSE), "claude"])
def test_a_choice_of_allowed_tools_reaches_providers_that_do_not_know_it_as_these_tools(door: Door, name: str) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    body = {"model": name, "messages": HI, "tools": [function("f"), function("g")], "tool_choice": choice}
    reply = door.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    sent = json.dumps(door.upstream.last)
    assert '"f"' in sent
    assert '"g"' not in sent
    assert "allowed_tools" not in sent
