"""A whole answer as events says the same, to the SDKs of OpenAI and Anthropic too."""

from __future__ import annotations

import json
from typing import Any

import httpx
import httpx2
import openai
import pytest
from anthropic import Anthropic

from router.answering.formats.lookup import format_of
from router.answering.formats.whole_as_events import events_of_whole
from router.values import ApiFormat

TOKENS = {"input_tokens": 3, "output_tokens": 2}
MESSAGE: dict[str, Any] = {
    **{"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use"},
    **{"stop_sequence": None, "usage": TOKENS},
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "forty-two"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
    ],
}
PART = {"type": "output_text", "text": "forty-two", "annotations": []}
RESPONSE: dict[str, Any] = {
    **{"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "error": None},
    **{"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "incomplete_details": None, "metadata": {}},
    "usage": TOKENS | {"total_tokens": 5, "input_tokens_details": {}, "output_tokens_details": {}},
    "output": [
        {"type": "reasoning", "id": "rs", "summary": []},
        {"type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [PART]},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"},
    ],
}


@pytest.mark.parametrize(
    ("api", "whole"), [(ApiFormat.ANTHROPIC_MESSAGES, MESSAGE), (ApiFormat.OPENAI_RESPONSES, RESPONSE)], ids=str
)
def test_the_events_are_a_whole_stream_with_the_same_text(api: ApiFormat, whole: dict[str, Any]) -> None:
    answers, events = format_of(api), events_of_whole(whole)
    assert all(answers.fault_in(event, streamed=True) is None for event in events)
    assert "".join(answers.text_of(event, streamed=True) for event in events) == "forty-two"
    watch, tally = answers.watcher(), answers.tally()
    assert any(map(watch, events))
    counts = [found for event in events if (found := tally(event)) is not None]
    assert [(one.input, one.output) for one in counts[-1:]] == [(3, 2)]


def client_of(library: Any, events: list[Any]) -> Any:
    raw = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    headers = {"content-type": "text/event-stream"}
    return library.Client(transport=library.MockTransport(lambda _: library.Response(200, text=raw, headers=headers)))


def test_the_sdks_put_the_same_answer_together() -> None:
    with (
        client_of(httpx2, events_of_whole(MESSAGE)) as http,
        Anthropic(api_key="k", http_client=http) as of_anthropic,
        of_anthropic.messages.stream(model="m", max_tokens=5, messages=[{"role": "user", "content": "hi"}]) as stream,
    ):
        message = stream.get_final_message().to_dict()
        assert message["content"] == MESSAGE["content"]
        assert message["stop_reason"] == "tool_use"
    with (
        client_of(httpx, events_of_whole(RESPONSE)) as http,
        openai.OpenAI(api_key="k", http_client=http) as of_openai,
        of_openai.responses.stream(model="m", input="hi") as events,
    ):
        texts = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert (texts, events.get_final_response().output_text) == (["forty-two"], "forty-two")


@pytest.mark.parametrize("answer", [7, None, [], {"error": {"message": "x"}}, {"type": "message"}, {"a": 1}], ids=str)
def test_what_is_no_answer_stays_as_it_is(answer: Any) -> None:
    assert events_of_whole(answer) == [answer]


def test_a_response_that_has_not_ended_stays_as_it_is() -> None:
    assert events_of_whole(RESPONSE | {"status": "queued"}) == [RESPONSE | {"status": "queued"}]
