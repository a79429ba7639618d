"""Tests of the Responses door with OpenAI's Python SDK: bodies arrive, answers come back in the same format."""

from __future__ import annotations

import json
from typing import Any

import openai
import pydantic
import pytest

from tests.gateways.responses_door.conftest import Stack
from tests.gateways.responses_door.response_upstream import COST_USD

HELLO = "Grüße, 你好 \u2028 \U0001f600"
TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
]
PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
SEEN: Any = [{"role": "user", "content": [{"type": "input_text", "text": "what?"}, PICTURE]}]
LOOP: Any = [
    {"role": "user", "content": "how warm is it?"},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "12 degrees"},
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

SUITE: dict[str, dict[str, Any]] = {
    "plain": {},
    "items": {"input": [{"role": "developer", "content": "be kind"}, {"role": "user", "content": HELLO}]},
    "instructions": {"instructions": "be kind", "temperature": 0.5, "max_output_tokens": 50},
    "tools": {"tools": TOOLS, "tool_choice": "auto"},
    "loop": {"input": LOOP, "tools": TOOLS},
    "picture": {"input": SEEN},
    "schema": {"text": {"format": {"type": "json_schema", "name": "place", "schema": SCHEMA, "strict": True}}},
    "reasoning": {"reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"]},
    "unkept": {"store": False, "metadata": {"a": "b"}},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "api_base": "http://x"}},
}


class Place(pydantic.BaseModel):
    city: str


def ask(sdk: openai.OpenAI, *, streamed: bool, **arguments: Any) -> Any:
    """Return the response, whole or as the last event of a stream brings it. Deltas add up to the same text."""
    if not streamed:
        return sdk.responses.create(**arguments)
    deltas: list[str] = []
    numbers: list[int] = []
    with sdk.responses.create(**arguments, stream=True) as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            deltas += [event.delta] if event.type == "response.output_text.delta" else []
    assert numbers == list(range(len(numbers)))
    assert event.type == "response.completed"
    assert "".join(deltas) == event.response.output_text
    return event.response


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", SUITE)
def test_an_upstream_of_the_responses_api_gets_the_body_with_another_model_and_no_other_byte(
    stack: Stack, sdk: openai.OpenAI, what: str, streamed: bool
) -> None:
    sent: list[bytes] = []
    sdk._client.event_hooks = {"request": [lambda request: sent.append(request.read())]}
    response = ask(sdk, streamed=streamed, **({"model": "large", "input": HELLO} | SUITE[what]))
    assert stack.a.sent == [sent[0].replace(b'"model":"large"', b'"model":"up-large"')]
    assert stack.a.headers[0]["authorization"] == "Bearer none"
    assert "sk-caller" not in json.dumps(stack.a.headers)
    assert [item.type for item in response.output] == (["reasoning"] if what == "reasoning" else []) + (
        ["function_call"] if what == "tools" else ["message"]
    )
    assert response.x_vendor == [1]
    record = response.elle
    assert (record["candidate"], record["reason"], record["answered_by"]) == ("large", "PINNED", "large")
    assert record["cost_usd"] == pytest.approx(COST_USD)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", [name for name in SUITE if name != "unknown"])
def test_an_upstream_of_chat_completions_gets_a_translated_body_and_its_answer_comes_back_translated(
    stack: Stack, sdk: openai.OpenAI, what: str, streamed: bool
) -> None:
    response = ask(sdk, streamed=streamed, **({"model": "small", "input": HELLO} | SUITE[what]))
    body = json.loads(stack.chats.sent[-1])
    assert body["model"] == "up-small"
    if what in {"items", "instructions"}:
        assert [message["content"] for message in body["messages"]] == ["be kind", HELLO]
    if what == "instructions":
        assert (body["temperature"], body["max_tokens"]) == (0.5, 50)
    if what == "picture":
        assert body["messages"][0]["content"][1]["image_url"]["url"] == PICTURE["image_url"]
    if what == "schema":
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    if what == "loop":
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool"]
    if what == "tools":
        call = response.output[0]
        assert (call.type, call.name, call.arguments) == ("function_call", "weather", '{"city": "Köln"}')
    else:
        said = '{"city":"Köln"}' if what == "schema" else "up-small0"
        assert response.output_text.replace(" ", "") == said
    assert (response.usage.input_tokens, response.usage.output_tokens) == (10, 2)
    assert response.id.startswith("resp_")
    assert response.store is False
    assert response.elle["cost_usd"] == pytest.approx(10e-6 + 20e-6)


@pytest.mark.parametrize("model", ["large", "small", "auto"])
def test_helpers_of_the_sdk_parse_structured_output_and_follow_a_stream(sdk: openai.OpenAI, model: str) -> None:
    parsed = sdk.responses.parse(model=model, input=HELLO, text_format=Place)
    assert parsed.output_parsed == Place(city="Köln")
    with sdk.responses.stream(model=model, input=HELLO, tools=TOOLS) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    call: Any = response.output[0]
    assert (call.name, call.arguments) == ("weather", '{"city": "Köln"}')


def test_the_sdk_repeats_what_it_is_told_to_wait_for_and_nothing_else(stack: Stack) -> None:
    with openai.OpenAI(api_key="sk-caller", base_url=f"{stack.root}/v1") as patient:
        assert patient.responses.create(model="flaky", input=HELLO).output_text == "flaky says 你好"
        with pytest.raises(openai.InternalServerError):
            patient.responses.create(model="down", input=HELLO)
    assert stack.a.unsteady.asked == {"flaky": 2, "down": 1}


def test_a_stream_carries_the_record_in_its_first_and_its_last_event(stack: Stack) -> None:
    for model in ("large", "small"):
        reply = stack.post({"model": model, "input": "hello", "stream": True})
        blocks = [block.split("\n") for block in reply.text.strip().split("\n\n") if block[0] != ":"]
        assert all(len(block) == 2 for block in blocks)
        events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
        assert [name.removeprefix("event: ") for name, _ in blocks] == [event["type"] for event in events]
        marked = {event["type"]: event["response"]["elle"] for event in events if "elle" in event.get("response", {})}
        assert list(marked) == ["response.created", "response.completed"]
        assert marked["response.created"]["attempts"][0]["candidate"] == model
        assert marked["response.completed"]["cost_usd"] > 0
        assert reply.headers["x-elle-answered-by"] == model
        assert "[DONE]" not in reply.text
