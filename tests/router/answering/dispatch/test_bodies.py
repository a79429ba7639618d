"""Tests of request bodies: what the dispatcher is asked arrives at a real loopback upstream."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.responses import StreamingResponse

from router import errors
from router.errors import InvalidRequestError
from router.gateways.http.request_body import ChatBody
from router.serving.http_server import serve_on_loopback
from router.values import Overrides, RouteQuery
from tests.router.answering.dispatch.dispatch_stack import KEY, Stack, Upstream, candidate, dispatching, pin
from tests.router.faults import FaultyUpstream

# One loop for the whole folder, so that one server serves all tests.
pytestmark = pytest.mark.asyncio(loop_scope="package")


def as_a_door_would(body: bytes) -> RouteQuery:
    """Return the query of an OpenAI body, of which nothing is lost."""
    parsed = ChatBody.parse(body)
    fields = dict(parsed.fields)
    messages = fields.pop("messages")
    for own in ("model", "stream"):
        fields.pop(own, None)
    return RouteQuery(messages, parameters=fields, body=parsed.written)


TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]

PIXEL = "data:image/png;base64,iVBORw0KGgo="

HELLO = [{"role": "user", "content": "Grüße, 你好 \u2028 ünïcode"}]

SCHEMA = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}

VISION = [
    {"role": "system", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what?"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low", "format": "image/png"}},
        ],
    },
]

TOOL_LOOP = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
]

ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "seed": 7, "stop": ["x"], "frequency_penalty": 1e-7},
    "n and logprobs": {"n": 2, "logprobs": True, "top_logprobs": 3},
    "limits": {"max_completion_tokens": 64, "metadata": {"team": "a"}, "store": False, "user": "u-1"},
    "old limit": {"max_tokens": 64, "service_tier": "flex", "reasoning_effort": "low"},
    "tools": {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
    "tool loop": {"messages": TOOL_LOOP, "tools": TOOLS, "parallel_tool_calls": False},
    "json schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "vision": {"messages": VISION},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "b_new": "x", "api_base": "http://x", "mock_response": "y"}},
    "no stream": {"stream": False},
    "null": {"stop": None, "temperature": None},
}


class TestBodies:
    """The official SDK talks to the upstream directly, and to us: the upstream cannot tell the difference."""

    @pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
    @pytest.mark.parametrize("what", ASKED)
    async def test_are_byte_equal_to_the_sdks_except_for_the_model(
        self, upstream: Upstream, stack: Stack, what: str, streamed: bool
    ) -> None:
        fields = {"messages": HELLO} | ASKED[what]
        if streamed:
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
            upstream.answer = StreamingResponse(iter(["data: [DONE]\n\n"]), media_type="text/event-stream")
        async with openai.AsyncOpenAI(api_key="k", base_url=upstream.url, max_retries=0) as sdk:
            await sdk.chat.completions.create(model="elle/test", **fields)
        (direct,) = upstream.sent
        upstream.answer = None
        query = as_a_door_would(direct)
        before = replace(query, messages=copy.deepcopy(query.messages), parameters=copy.deepcopy(query.parameters))
        if streamed:
            upstream.answer = StreamingResponse(iter([]), media_type="text/event-stream")
            with pytest.raises(errors.UpstreamUnavailableError):
                await stack.stream(query)
        else:
            await stack.complete(query)
        ours = upstream.sent[1]
        model = json.loads(ours)["model"]
        assert model.startswith("real-")
        assert ours == direct.replace(b'"model":"elle/test"', b'"model":"%s"' % model.encode())
        assert query == before

    async def test_of_a_query_of_our_own_ask_streams_for_usage_and_add_nothing_else(
        self, upstream: Upstream, stack: Stack
    ) -> None:
        await stack.complete(RouteQuery.from_prompt("hello"))
        await stack.stream(RouteQuery.from_prompt("hello"))
        plain, streamed = upstream.bodies[0], upstream.bodies[1]
        assert plain.keys() == {"messages", "model"}
        assert streamed.keys() == {"messages", "model", "stream", "stream_options"}

    async def test_cannot_reach_litellms_own_keywords(self, upstream: Upstream, stack: Stack) -> None:
        stolen = {"api_base": "http://127.0.0.1:1/v1", "api_key": "x", "mock_response": "pwned", "base_url": "http://x"}
        completion = await stack.complete(RouteQuery.from_prompt("hello", parameters=stolen))
        assert completion.text == "forty-two"
        assert stolen.items() <= upstream.bodies[0].items()
        assert upstream.keys == ["Bearer sk-test"]

    @pytest.mark.parametrize("value", [float("nan"), object(), "bad \ud800"])
    async def test_that_are_no_json_are_the_callers_fault(self, stack: Stack, value: object) -> None:
        with pytest.raises(InvalidRequestError):
            await stack.complete(RouteQuery.from_prompt("hello", parameters={"x": value}))

    async def test_of_other_providers_are_litellms_to_translate(self, folder: Path, upstream: Upstream) -> None:
        # LiteLLM without its `mcp` extra refuses every request that carries tools.
        other = candidate("small", upstream.url, model="hosted_vllm/real")
        schema = {"type": "json_schema", "json_schema": SCHEMA}
        asked = {"temperature": 0.5, "tools": TOOLS, "response_format": schema, "brand_new_field": {"a": 1}}
        async with dispatching(folder, other, candidate("large", upstream.url)) as stack:
            query = RouteQuery.from_prompt("hello", parameters=asked)
            pinned = RouteQuery(query.messages, overrides=pin("small"), parameters=asked)
            completion = await stack.complete(pinned)
        assert completion.text == "forty-two"
        assert upstream.bodies[0] == {"model": "real", "messages": list(query.messages), **asked}

    async def test_of_providers_of_another_shape_are_what_these_know(self, folder: Path, upstream: Upstream) -> None:
        other = candidate("small", upstream.url.removesuffix("/v1"), model="anthropic/claude-sonnet-4-5")
        asked = {"temperature": 0.5, "brand_new_field": 1, "metadata": {"user_id": "u1", "session_id": "s"}}
        async with dispatching(folder, other, candidate("large", upstream.url)) as stack:
            completion = await stack.complete(RouteQuery.from_prompt("hello", overrides=pin("small"), parameters=asked))
            assert completion.text == "forty-two"
            (body,) = upstream.bodies
            # A pinned candidate gets what nobody knows, to say itself what it makes of it.
            assert body.keys() == {"model", "messages", "max_tokens", "temperature", "metadata", "brand_new_field"}
            assert body["metadata"] == {"user_id": "u1"}
            assert completion.delivery.dropped_parameters == ("metadata",)
            asked["brand_new_field"] = 2
            chosen = await stack.complete(
                RouteQuery.from_prompt("x", overrides=Overrides(max_risk=1.0), parameters=asked)
            )
            assert upstream.bodies[-1].keys() == {"model", "messages", "max_tokens", "temperature", "metadata"}
            assert chosen.delivery.dropped_parameters == ("brand_new_field", "metadata")
            query = RouteQuery.from_prompt("hello", overrides=pin("small"), parameters={"seed": 1})
            with pytest.raises(errors.UpstreamRejectedError, match="seed"):
                await stack.complete(query)

    async def test_of_other_providers_stream_and_stop_when_the_caller_leaves(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="hosted_vllm/ok"),
                candidate("large", url, model="hosted_vllm/endless"),
            ) as stack,
        ):
            steps = await stack.stream(RouteQuery.from_prompt("hello", overrides=pin("small")))
            assert "".join(step.text for step in steps) == "forty-two"
            assert steps[-1].usage is not None
            query = RouteQuery.from_prompt("hello", overrides=pin("large"))
            endless = stack.dispatcher.stream(query, await stack.decide(query))
            for _ in range(3):
                await anext(endless)
            left_at = time.monotonic()
            await endless.aclose()
            assert await faulty.left("endless") - left_at < 1

    async def test_of_other_providers_stop_unanswered_when_the_caller_leaves(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder, candidate("small", url, model="hosted_vllm/hang", timeout_s=30), candidate("large", url)
            ) as stack,
        ):
            query = RouteQuery.from_prompt("hello", overrides=pin("small"))
            asking = asyncio.create_task(stack.complete(query))
            await faulty.asked("hang")
            left_at = time.monotonic()
            asking.cancel()
            await asyncio.wait([asking])
            assert await faulty.left("hang") - left_at < 1

    @pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
    async def test_of_other_providers_do_not_hide_an_answer_that_is_none(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="hosted_vllm/html"),
                candidate("large", url, model="hosted_vllm/malformed"),
            ) as stack,
        ):
            for name in ("small", "large"):
                query = RouteQuery.from_prompt("hello", overrides=pin(name))
                with pytest.raises(errors.UpstreamUnavailableError):
                    await (stack.stream(query) if streamed else stack.complete(query))
