"""The OpenAI Agents SDK and pydantic-ai, each with its defaults, ask through the door; print what came back as JSON.

The first argument is the base URL of the door, which ends in /v1; the others are names of models.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

URL, *MODELS = sys.argv[1:]
os.environ |= {"OPENAI_BASE_URL": URL, "OPENAI_API_KEY": "sk-caller", "OPENAI_AGENTS_DISABLE_TRACING": "1"}

import agents  # noqa: E402
import pydantic  # noqa: E402
import pydantic_ai  # noqa: E402


class Place(pydantic.BaseModel):
    city: str


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"12 degrees in {city}"


async def with_agents_sdk(model: str) -> dict[str, Any]:
    plain = agents.Agent(name="plain", instructions="be kind", model=model)
    told = await agents.Runner.run(plain, "hello")
    streamed = agents.Runner.run_streamed(plain, "hello")
    deltas = [
        event.data.delta
        async for event in streamed.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    tooled = agents.Agent(name="tooled", model=model, tools=[agents.function_tool(weather)])
    looped = await agents.Runner.run(tooled, "how warm is it in Köln?")
    placed = await agents.Runner.run(agents.Agent(name="placed", model=model, output_type=Place), "where?")
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    content = [{"type": "input_text", "text": "what is it?"}, picture]
    seen = await agents.Runner.run(plain, [{"role": "user", "content": content}])
    retried = await agents.Runner.run(agents.Agent(name="patient", model="flaky"), "hello")
    try:
        await agents.Runner.run(agents.Agent(name="lost", model="nobody"), "hello")
        refused = ""
    except Exception as error:
        refused = type(error).__name__
    return {
        "plain": told.final_output,
        "streamed": len(deltas) > 1 and "".join(deltas) == streamed.final_output,
        "tool": [type(item).__name__ for item in looped.new_items],
        "after tool": looped.final_output,
        "structured": placed.final_output.city,
        "picture": seen.final_output,
        "retried": retried.final_output,
        "refused": refused,
        "requests": looped.context_wrapper.usage.requests,
    }


async def with_pydantic_ai(model: str) -> dict[str, Any]:
    name = f"openai:{model}"
    plain = pydantic_ai.Agent(name, instructions="be kind")
    told = await plain.run("hello")
    async with plain.run_stream("hello") as stream:
        streamed = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
    looped = await pydantic_ai.Agent(name, tools=[weather]).run("how warm is it in Köln?")
    placed = await pydantic_ai.Agent(name, output_type=pydantic_ai.NativeOutput(Place)).run("where?")
    picture = pydantic_ai.BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
    seen = await plain.run(["what is it?", picture])
    retried = await pydantic_ai.Agent("openai:flaky").run("hello")
    try:
        await pydantic_ai.Agent("openai:nobody").run("hello")
        refused = ""
    except Exception as error:
        refused = type(error).__name__
    return {
        "model": type(plain.model).__name__,
        "plain": told.output,
        "streamed": len(streamed) > 1 and "".join(streamed).replace(" ", "") == told.output.replace(" ", ""),
        "after tool": looped.output,
        "structured": placed.output.city,
        "picture": seen.output,
        "retried": retried.output,
        "refused": refused,
    }


async def main() -> None:
    agents.set_tracing_disabled(True)
    told = {
        model: {"agents": await with_agents_sdk(model), "pydantic-ai": await with_pydantic_ai(model)}
        for model in MODELS
    }
    print(json.dumps(told))


asyncio.run(main())
