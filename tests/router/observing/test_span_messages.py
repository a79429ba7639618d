"""The messages of a request in a span have the form of OpenTelemetry's conventions, and are valid JSON however long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.observing.span_messages import as_parts

MOST = 1000


def told(*messages: dict[str, Any]) -> Any:
    return json.loads(as_parts(messages, MOST))


def text(words: str) -> dict[str, str]:
    return {"type": "text", "content": words}


def test_each_message_has_its_role_and_its_parts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"in": "Rome"}'}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert told(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Is it warm?"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "31"},
    ) == [
        {"role": "system", "parts": [text("Be brief.")]},
        {"role": "user", "parts": [text("Is it warm?"), {"type": "image_url"}]},
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "weather", "arguments": '{"in": "Rome"}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "31"}]},
    ]


def test_calls_of_other_apis_are_the_same_parts() -> None:
    use = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"in": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "31"}]}
    _, called, answered = told(
        {"role": "user", "content": [{"type": "input_text", "text": "Is it warm?"}]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result]},
    )
    items = told(
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"in": "Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "text", "text": "31"}]},
        {"type": "reasoning", "encrypted_content": "AAAA"},
    )
    assert items[0] == called
    assert items[1] == answered | {"role": "tool"}
    assert items[2] == {"role": "assistant", "parts": [{"type": "reasoning"}]}


@pytest.mark.parametrize("words", ["x", "\u00e4", "\x00", '"', "\U0001f600"])
def test_what_is_too_long_is_cut_and_the_newest_stay(words: str) -> None:
    long = {"role": "user", "content": words * 5000}
    many = {"role": "user", "content": [{"type": "text", "text": words * 400} for _ in range(50)]}
    for messages in ([long], [many], [long] * 50, [{"role": "user", "content": words * 90}] * 50):
        written = as_parts([*messages, {"role": "user", "content": "the end"}], MOST)
        assert len(written) <= MOST
        assert json.loads(written)[-1] == {"role": "user", "parts": [text("the end")]}
        alone = as_parts(messages, MOST)
        assert len(alone) <= MOST
        first = json.loads(alone)
        assert first[-1]["parts"][0]["content"].startswith(words * 30)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": None},
        {"role": "user"},
        {"role": "user", "content": 7},
        {"role": "user", "content": [7, None, []]},
        {"role": "assistant", "tool_calls": 7},
        {"role": "assistant", "tool_calls": [7, {}, {"function": 7}, {"function": {}}]},
        {"role": "tool"},
        {"type": ["x"]},
        {"role": "user", "content": [{"type": ["x"]}]},
    ],
)
def test_what_no_api_has_ends_no_request(message: dict[str, Any]) -> None:
    assert len(told(message)) == 1
