"""Tests of the Responses door: errors in the format of OpenAI, also in the middle of a stream, and malformed bodies."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from tests.gateways.responses_door.conftest import Stack


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("model", "raised", "status"),
    [
        ("fail-503", openai.InternalServerError, 503),
        ("fail-400", openai.BadRequestError, 400),
        # The provider refused the router's key, which the caller can do nothing about.
        ("fail-401", openai.InternalServerError, 502),
        ("failed", openai.InternalServerError, 503),
        ("nobody", openai.NotFoundError, 404),
    ],
)
def test_errors_are_those_of_openais_sdk(
    stack: Stack, sdk: openai.OpenAI, model: str, raised: type[openai.APIStatusError], status: int, streamed: bool
) -> None:
    with pytest.raises(raised) as caught:
        list(sdk.responses.create(model=model, input="hi", stream=True)) if streamed else (
            sdk.responses.create(model=model, input="hi")
        )
    assert caught.value.status_code == status
    told: Any = caught.value.body
    assert told["message"]
    assert told["type"] == ("invalid_request_error" if status < 500 else "server_error")


def test_a_wait_that_the_provider_asks_for_reaches_the_caller(stack: Stack, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        sdk.responses.create(model="fail-429", input="hi")
    assert caught.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("model", ["break", "cut"])
def test_a_stream_that_breaks_ends_in_an_error_event(stack: Stack, sdk: openai.OpenAI, model: str) -> None:
    seen = []
    stream = sdk.responses.create(model=model, input="hi", stream=True)
    with pytest.raises(openai.APIError):
        seen += [event.type for event in stream]
    raw = stack.post({"model": model, "input": "hi", "stream": True}).text
    *before, last = [block.split("\n") for block in raw.strip().split("\n\n")]
    assert last[0] == "event: error"
    told = json.loads(last[1].removeprefix("data: "))
    assert (told["type"], told["sequence_number"]) == ("error", len(before))
    assert told["message"] == told["error"]["message"]
    assert "response.completed" not in raw


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({"input": 7}, "input"),
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [7]}, "input[0]"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"model": None}, "model"),
    ],
    ids=str,
)
def test_what_is_malformed_is_refused_and_the_field_named(stack: Stack, broken: dict[str, Any], field: str) -> None:
    reply = stack.post({"model": "elle/test", "input": "hi"} | broken)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert not stack.a.sent
    assert not stack.chats.sent


@pytest.mark.parametrize(
    "odd",
    [
        {"tools": "a hammer"},
        {"tools": [7]},
        {"tools": [{"type": "function"}]},
        {"instructions": 7},
        {"instructions": [{"role": "developer", "content": "x"}]},
        {"tool_choice": 3},
        {"text": "plain"},
        {"text": {"format": 7}},
        {"reasoning": 3},
        {"metadata": "x"},
        {"parallel_tool_calls": "yes"},
        {"input": [{"type": "function_call", "name": 7}, {"role": "user", "content": "x"}]},
        {"input": [{"type": "function_call_output", "output": [7]}, {"role": "user", "content": "x"}]},
        {"input": [{"type": "web_search_call"}, {"role": "user", "content": "x"}]},
        {"input": [{"type": "reasoning", "summary": 3, "encrypted_content": "!"}, {"role": "user", "content": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image"}, {"type": "input_text", "text": "x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file"}, {"type": "input_text", "text": "x"}]}]},
    ],
    ids=str,
)
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_what_cannot_be_translated_is_the_callers_fault(stack: Stack, odd: dict[str, Any], streamed: bool) -> None:
    reply = stack.post({"model": "small", "input": "hi", "stream": streamed} | odd)
    assert reply.status_code in {200, 400}, reply.text
    assert "Traceback" not in reply.text
    assert "event: error" not in reply.text, reply.text
    if reply.status_code == 400:
        assert reply.json()["error"]["type"] == "invalid_request_error"
