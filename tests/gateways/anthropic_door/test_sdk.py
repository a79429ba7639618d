"""Tests of Anthropic's door with Anthropic's Python SDK: bodies arrive, answers come back in the same format."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import anthropic
import pydantic
import pytest

from tests.conftest import ROOT
from tests.gateways.anthropic_door.conftest import Stack
from tests.gateways.anthropic_door.message_upstream import COST_USD

NODE = ROOT / "tests" / "gateways" / "node"

TOOLS = [{"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}]
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
SYSTEM = [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]
HELLO: Any = [{"role": "user", "content": "Grüße, 你好 \u2028 \U0001f600"}]
TOOL_LOOP: Any = [
    {"role": "user", "content": "how warm is it?"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Köln"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "12 degrees"}]},
]

SUITE: dict[str, dict[str, Any]] = {
    "plain": {},
    "sampling": {"extra_body": {"temperature": 0.5, "top_k": 5, "stop_sequences": ["x"]}},
    "system": {"system": SYSTEM},
    "tools": {"tools": TOOLS, "tool_choice": {"type": "auto"}},
    "tool loop": {"messages": TOOL_LOOP, "tools": TOOLS},
    "thinking": {"extra_body": {"thinking": {"type": "enabled", "budget_tokens": 1024}}, "max_tokens": 2048},
    "picture": {"messages": [{"role": "user", "content": [{"type": "text", "text": "what?"}, PICTURE]}]},
    "user": {"metadata": {"user_id": "user_1_account__session_7"}},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "api_base": "http://x"}},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", SUITE)
def test_an_upstream_of_anthropics_api_gets_the_body_with_another_model_and_no_other_byte(
    stack: Stack, sdk: anthropic.Anthropic, what: str, streamed: bool
) -> None:
    sent: list[tuple[bytes, str]] = []

    def note(request: Any) -> None:
        sent.append((request.read(), request.headers["anthropic-version"]))

    sdk._client.event_hooks = {"request": [note]}
    arguments: Any = {"model": "large", "max_tokens": 100, "messages": HELLO} | SUITE[what]
    headers = {"anthropic-beta": "beta-1,beta-2"}
    if streamed:
        with sdk.messages.stream(**arguments, extra_headers=headers) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
        assert text == "".join(block.text for block in message.content if block.type == "text")
    else:
        message = sdk.messages.create(**arguments, extra_headers=headers)
    assert stack.messages.sent[-1] == sent[0][0].replace(b'"model":"large"', b'"model":"claude-up"')
    got = stack.messages.headers[-1]
    assert (got["anthropic-version"], got["anthropic-beta"]) == (sent[0][1], "beta-1,beta-2")
    assert got["x-api-key"] == "none"
    assert "sk-caller" not in json.dumps(got)
    kinds = [block.type for block in message.content]
    assert kinds == (["thinking"] if what == "thinking" else []) + (
        ["tool_use"] if "tools" in what or what == "tool loop" else ["text"]
    )
    assert message.usage.output_tokens == 2
    record = (message.model_extra or {}).get("elle")
    if not streamed:
        assert record is not None
        assert (record["candidate"], record["reason"]) == ("large", "PINNED")
        assert record["cost_usd"] == pytest.approx(COST_USD)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", [name for name in SUITE if name != "unknown"])
def test_an_upstream_of_openais_api_gets_a_translated_body_and_its_answer_comes_back_translated(
    stack: Stack, sdk: anthropic.Anthropic, what: str, streamed: bool
) -> None:
    arguments: Any = {"model": "small", "max_tokens": 100, "messages": HELLO} | SUITE[what]
    if streamed:
        with sdk.messages.stream(**arguments) as stream:
            message = stream.get_final_message()
    else:
        message = sdk.messages.create(**arguments)
    body = json.loads(stack.chats.sent[-1])
    assert body["model"] == "up-small"
    if what == "system":
        assert body["messages"][0]["role"] == "system"
    if what == "tools":
        assert body["tools"][0]["function"]["name"] == "weather"
    if what == "picture":
        assert body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    if "tool" in what:
        assert message.stop_reason == "tool_use"
        assert [(block.name, block.input) for block in message.content if block.type == "tool_use"] == [
            ("weather", {"city": "Köln"})
        ]
    else:
        assert message.stop_reason == "end_turn"
        # The upstream streams its words without the blanks between them.
        said = "up-small0" if streamed else "up-small 0"
        assert [block.text for block in message.content if block.type == "text"] == [said]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 2)


def test_the_node_sdk_gets_through_the_door_what_it_gets_directly(stack: Stack) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules" / "@anthropic-ai").exists():
        pytest.skip("Node or its SDK is not installed; `make test` installs it where npm is")
    done = subprocess.run(
        ["node", "anthropic.mjs", stack.messages_url, stack.root], cwd=NODE, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told == {
        "asked": 14,
        "different": [],
        "refused": "NotFoundError 404",
        "counted": 17,
        "retried": "flaky says 你好",
        "down": "ServiceUnavailableError 503",
    }
    assert stack.messages.unsteady.asked["flaky"] == 2
    assert stack.messages.unsteady.asked["down"] == 1


class Place(pydantic.BaseModel):
    city: str


@pytest.mark.parametrize("model", ["large", "small"])
def test_a_helper_of_the_sdk_parses_structured_output(stack: Stack, sdk: anthropic.Anthropic, model: str) -> None:
    parsed = sdk.messages.parse(model=model, max_tokens=100, messages=HELLO, output_format=Place)
    assert parsed.parsed_output == Place(city="Köln")
    if model == "small":
        asked = json.loads(stack.chats.sent[-1])["response_format"]
        assert (asked["type"], asked["json_schema"]["schema"]["required"]) == ("json_schema", ["city"])


def test_the_sdk_repeats_what_it_is_told_to_wait_for_and_nothing_else(stack: Stack) -> None:
    with anthropic.Anthropic(api_key="sk-caller", base_url=stack.root) as patient:
        message = patient.messages.create(model="flaky", max_tokens=100, messages=HELLO)
        assert message.content[0].text == "flaky says 你好"  # type: ignore[union-attr]
        with pytest.raises(anthropic.InternalServerError):
            patient.messages.create(model="down", max_tokens=100, messages=HELLO)
    assert stack.messages.unsteady.asked == {"flaky": 2, "down": 1}
