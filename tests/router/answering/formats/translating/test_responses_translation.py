"""Tests of the translation between the Responses API and chat completions, without a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from router.answering.formats.chat_chunks import joined_texts
from router.answering.formats.translating import responses_translation
from router.answering.upstreams import litellm_upstream
from router.errors import UpstreamUnavailableError
from router.values import ApiFormat, RouteQuery

pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return HEAD | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call(arguments: str, **more: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "type": "function", "function": {"arguments": arguments, **more.pop("function", {})}, **more}]


ANSWER = [
    chunk(role="assistant", content=""),
    chunk(reasoning_content="let me "),
    chunk(reasoning_content="see"),
    *(chunk(content=word) for word in ("It ", "is ", "warm", ".")),
    chunk(tool_calls=call("", id="call_1", function={"name": "weather"})),
    chunk(tool_calls=call('{"city": ')),
    chunk(tool_calls=call('"Köln"}')),
    chunk(finish="tool_calls"),
    HEAD | {"choices": [], "usage": USAGE},
]


def events(chunks: list[dict[str, Any]], **parameters: Any) -> list[dict[str, Any]]:
    hello = ({"role": "user", "content": "hello"},)
    query = RouteQuery(hello, parameters=parameters, api_format=ApiFormat.OPENAI_RESPONSES)

    async def given() -> AsyncGenerator[dict[str, Any], None]:
        for one in chunks:
            yield one

    async def run() -> list[dict[str, Any]]:
        await litellm_upstream.load()
        responses_translation.load_responses_adapter()
        request = responses_translation.responses_to_chat(query, "openai/gpt-x")
        return [event async for event in responses_translation.response_events_of(given(), request)]

    return asyncio.run(run())


def test_a_stream_ends_with_the_whole_response_that_its_deltas_told() -> None:
    told = events(ANSWER)
    whole = told[-1]["response"]
    assert told[-1]["type"] == "response.completed"
    reasoning, message, called = whole["output"]
    assert reasoning["summary"] == [{"type": "summary_text", "text": "let me see"}]
    assert message["content"][0]["text"] == "It is warm."
    assert (called["name"], called["arguments"]) == ("weather", '{"city": "Köln"}')
    deltas = [event["delta"] for event in told if event["type"] == "response.output_text.delta"]
    assert deltas == ["It ", "is ", "warm", "."]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (3, 4)
    assert {event["response"]["id"] for event in told if "response" in event} == {whole["id"]}


def test_a_stream_that_says_nothing_of_its_tokens_has_no_usage() -> None:
    assert events(ANSWER[:-1])[-1]["response"]["usage"] is None


def test_a_chunk_without_shape_is_the_fault_of_the_upstream() -> None:
    with pytest.raises(UpstreamUnavailableError, match="cannot be translated into an event"):
        events([chunk(content="a"), HEAD | {"choices": [{"index": "x", "delta": 7}]}])


def test_an_answer_that_ran_out_of_tokens_is_incomplete() -> None:
    told = events([chunk(content="It is"), chunk(finish="length")], max_output_tokens=2)
    assert told[-1]["type"] == "response.incomplete"
    assert told[-1]["response"]["incomplete_details"]["reason"] == "max_output_tokens"


def test_only_texts_are_joined_and_none_is_lost() -> None:
    other = chunk(content="x", tool_calls=call("1"))
    chunks = [chunk(role="assistant", content="a"), chunk(content="b"), other, chunk(content="c"), chunk(finish="stop")]
    joined = joined_texts(chunks)
    assert joined == [chunk(role="assistant", content="ab"), other, chunk(content="c"), chunk(finish="stop")]
    assert chunks[0] == chunk(role="assistant", content="a")
    assert joined_texts([]) == []
    two = HEAD | {"choices": [{"index": i, "delta": {"content": "x"}} for i in (0, 1)]}
    assert joined_texts([two, two]) == [two, two]
