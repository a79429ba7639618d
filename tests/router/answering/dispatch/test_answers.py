"""Tests of answers: what a real loopback upstream sends comes back, and its tokens are counted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from router import errors
from router.values import RouteQuery
from tests.router.answering.dispatch.dispatch_stack import Stack, Upstream
from tests.router.answering.dispatch.test_bodies import TOOLS
from tests.router.faults import USAGE, answer

# One loop for the whole folder, so that one server serves all tests.
pytestmark = pytest.mark.asyncio(loop_scope="package")


def sse(*chunks: dict[str, Any]) -> Response:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return StreamingResponse(iter([*events, "data: [DONE]\n\n"]), media_type="text/event-stream")


def chunk(index: int, finish_reason: str | None = None, **delta: Any) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "theirs", "x_vendor": {"a": 1}}
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return head | {"choices": [choice]}


class TestAnswers:
    async def test_come_back_as_they_were_sent(self, upstream: Upstream, stack: Stack) -> None:
        sent = answer() | {"system_fingerprint": None, "x_vendor": [1.0, None]}
        upstream.answer = JSONResponse(sent)
        completion = await stack.complete(RouteQuery.from_prompt("hello"))
        assert completion.body == sent
        assert completion.text == "forty-two"
        assert completion.usage is not None
        assert completion.usage.cost_usd == pytest.approx(10e-6 + 20e-6)

    async def test_cost_less_for_input_out_of_the_prompt_cache(self, upstream: Upstream, stack: Stack) -> None:
        usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 8}}
        upstream.answer = JSONResponse(answer() | {"usage": usage})
        completion = await stack.complete(RouteQuery.from_prompt("hello"))
        assert completion.usage.cost_usd == pytest.approx(2e-6 + 8e-7 + 20e-6)

    async def test_in_chunks_come_back_as_they_were_sent_with_all_choices(
        self, upstream: Upstream, stack: Stack
    ) -> None:
        sent = [
            *(chunk(index, role="assistant", content="") for index in (0, 1)),
            *(chunk(index, content=f"word {index}") for index in (0, 1)),
            chunk(0, tool_calls=[{"index": 0, "id": "t", "type": "function", "function": {"name": "f"}}]),
            *(chunk(index, "stop") for index in (0, 1)),
            {"id": "c", "object": "chat.completion.chunk", "created": 5, "choices": [], "usage": USAGE},
        ]
        upstream.answer = sse(*sent)
        steps = await stack.stream(RouteQuery.from_prompt("hello"))
        assert [step.body for step in steps] == sent
        assert "".join(step.text for step in steps) == "word 0"
        assert [step.usage is None for step in steps] == [True] * 7 + [False]

    async def test_without_usage_say_so(self, upstream: Upstream, stack: Stack) -> None:
        upstream.answer = JSONResponse({key: value for key, value in answer().items() if key != "usage"})
        assert (await stack.complete(RouteQuery.from_prompt("hello"))).usage is None
        upstream.answer = sse(chunk(0, content="hi"), chunk(0, "stop"))
        assert all(step.usage is None for step in await stack.stream(RouteQuery.from_prompt("hello")))

    async def test_that_only_call_a_tool_are_answers(self, upstream: Upstream, stack: Stack) -> None:
        calls = [{"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        upstream.answer = sse(chunk(0, role="assistant", content=None, tool_calls=calls), chunk(0, "tool_calls"))
        first, last = await stack.stream(RouteQuery.from_prompt("hello", parameters={"tools": TOOLS}))
        assert (first.text, last.text) == ("", "")
        assert first.body["choices"][0]["delta"]["tool_calls"] == calls

    async def test_of_openais_output_limit_are_not_made_up(self, upstream: Upstream, stack: Stack) -> None:
        # LiteLLM turns this refusal into an empty answer with usage of its own counting.
        message = "Could not finish the message because max_tokens or model output limit was reached."
        upstream.answer = JSONResponse({"error": {"message": message}}, status_code=400)
        with pytest.raises(errors.UpstreamRejectedError):
            await stack.complete(RouteQuery.from_prompt("hello"))
        with pytest.raises(errors.UpstreamRejectedError):
            await stack.stream(RouteQuery.from_prompt("hello"))
