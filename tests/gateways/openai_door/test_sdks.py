"""Tests of the OpenAI door with the official SDKs of Python and Node: bodies arrive, answers come back."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import ROOT
from tests.gateways.chat_upstream import CALL
from tests.gateways.openai_door.door_stack import JSON, NAMES, Stack, hello

NODE = ROOT / "tests" / "gateways" / "node"

#: An environment with the newest SDK; `make test` makes it.
NEWEST = ROOT / ".venv-openai" / "bin" / "python"

PIXEL = "data:image/png;base64,iVBORw0KGgo="

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

SCHEMA = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}

VISION = [
    {"role": "system", "content": [{"type": "text", "text": "look", "cache_control": {"type": "ephemeral"}}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        ],
    },
]

SUITE: dict[str, dict[str, Any]] = {
    "chat": {},
    "sampling": {"temperature": 0.5, "top_p": 1.0, "seed": 7, "stop": ["x"], "frequency_penalty": 1e-7},
    "tools": {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False},
    "json schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "vision": {"messages": VISION},
    "n": {"n": 3},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "limits": {"max_completion_tokens": 64, "user": "u-1"},
    "metadata": {"metadata": {"team": "a", "trace": "b"}, "store": False},
    "unknown": {"extra_body": {"z_new": {"a": [1, None]}, "b_new": "x", "api_base": "http://x", "mock_response": "y"}},
    "null": {"stop": None},
}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", SUITE)
def test_the_python_sdk_gets_its_answer_and_its_body_reaches_the_upstream_with_another_model_and_no_other_byte(
    stack: Stack, sdk: openai.OpenAI, what: str, streamed: bool
) -> None:
    asked = {"model": "elle/test", "messages": hello()} | SUITE[what]
    if streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    with openai.OpenAI(api_key="k", base_url=stack.chat_url, max_retries=0) as upstream:
        direct = upstream.chat.completions.create(**asked | {"model": "up-none"})
        expected = [plain_body(chunk) for chunk in direct] if streamed else plain_body(direct)
    answer = sdk.chat.completions.create(**asked)
    got = [plain_body(chunk) for chunk in answer] if streamed else plain_body(answer)
    sent, passed = stack.chat.sent
    (name,) = [name for name in NAMES if f'"up-{name}"'.encode() in passed]
    assert passed == sent.replace(b'"up-none"', f'"up-{name}"'.encode())
    record = [chunk.pop("elle") for chunk in got] if streamed else [got.pop("elle")]
    assert {one["candidate"] for one in record} == {name}
    assert json.loads(json.dumps(expected).replace("up-none", f"up-{name}")) == got
    assert stack.chat.keys[-1] != "Bearer sk-caller"


@pytest.mark.skipif(not NEWEST.exists(), reason="no .venv-openai with the newest SDK; `make .venv-openai/.installed`")
def test_the_newest_python_sdk_gets_the_same(stack: Stack) -> None:
    whole = [{"messages": hello()} | fields for fields in SUITE.values()]
    streamed = [fields | {"stream": True, "stream_options": {"include_usage": True}} for fields in whole]
    task = {"urls": [stack.chat_url, stack.url], "suite": [*whole, *streamed]}
    command = [str(NEWEST), str(ROOT / "tests" / "gateways" / "python" / "suite.py")]
    done = subprocess.run(command, input=json.dumps(task), capture_output=True, text=True, check=True, timeout=120)
    found = json.loads(done.stdout)
    assert int(found["version"].partition(".")[0]) > int(openai.__version__.partition(".")[0])
    assert len(found["answers"]) == len(task["suite"])
    for number, (expected, got) in enumerate(found["answers"]):
        sent, passed = stack.chat.sent[2 * number : 2 * number + 2]
        (name,) = [name for name in NAMES if f'"up-{name}"'.encode() in passed]
        assert passed == sent.replace(b'"up-none"', f'"up-{name}"'.encode())
        assert {one.pop("elle")["candidate"] for one in got} == {name}
        assert json.loads(json.dumps(expected).replace("up-none", f"up-{name}")) == got
    assert found["error"] == "model_not_found"
    assert "elle/test" in found["models"]


def plain_body(answer: Any) -> dict[str, Any]:
    plain: dict[str, Any] = answer.to_dict(mode="json")
    return plain


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_a_body_written_by_anybody_else_arrives_byte_for_byte(stack: Stack, streamed: bool) -> None:
    raw = (
        b'{ "messages" : [{"content":"caf\\u00e9 \\ud83d\\ude00", "role":"user", "role2": 1e-7}],\n\t"top_p":1.0, '
        b'"seed":1E2,"model" :\t"large" , "stream": %s, "z":{"b":1,"a":-0.0}}\r\n' % (b"true" if streamed else b"false")
    )
    assert httpx.post(f"{stack.url}/chat/completions", content=raw, headers=JSON).status_code == 200
    assert stack.chat.sent == [raw.replace(b'"large"', b'"up-large"')]


def test_the_sdks_helpers_parse_tool_calls_and_schemas(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="elle/test", messages=hello(), tools=TOOLS) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.arguments == CALL["function"]["arguments"]  # type: ignore[index]


def test_the_python_sdk_repeats_what_it_is_told_to_wait_for_and_nothing_else(stack: Stack) -> None:
    with openai.OpenAI(api_key="sk-caller", base_url=stack.url) as patient:
        answer = patient.chat.completions.create(model="flaky", messages=hello())
        assert answer.choices[0].message.content == "flaky 0"
        with pytest.raises(openai.InternalServerError):
            patient.chat.completions.create(model="down", messages=hello())
    assert stack.chat.unsteady.asked == {"flaky": 2, "down": 1}


class TestNode:
    """The official Node SDK, the same way."""

    @pytest.fixture
    def node(self) -> str:
        node = shutil.which("node")
        if node is None:
            pytest.skip("node is not installed")
        if not (NODE / "node_modules" / "openai").is_dir():
            pytest.skip("the Node SDK is not installed; run `npm ci --ignore-scripts` in tests/gateways/node")
        return node

    def test_the_node_sdk_gets_its_answers_and_its_bodies_reach_the_upstream_byte_equal(
        self, stack: Stack, node: str
    ) -> None:
        command = [node, str(NODE / "suite.mjs"), stack.chat_url, stack.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        # The last one is the answer that was asked for twice.
        *sent, _ = stack.chat.sent
        assert len(sent) == 2 * len(told["answers"]) >= 20
        for direct, passed, answer in zip(sent[::2], sent[1::2], told["answers"], strict=True):
            model = f'"up-{answer["candidate"]}"'.encode()
            assert passed == direct.replace(b'"up-none"', model), answer["what"]
            assert answer["same"], answer["what"]
        assert told["errors"] == {
            "unknown model": [404, "model_not_found"],
            "rate limit": [429, "upstream_rate_limited"],
            "broken stream": [None, "upstream_interrupted"],
            "down": [503, "upstream_unavailable"],
        }
        assert told["retried"] == "flaky 0"
        assert stack.chat.unsteady.asked["flaky"] == 2
        assert stack.chat.unsteady.asked["down"] == 1
        assert "elle/test" in told["models"]

    async def test_a_node_client_that_aborts_stops_the_upstream(self, stack: Stack, node: str) -> None:
        command = [node, str(NODE / "abort.mjs"), stack.url, "fault-endless"]
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            await stack.faulty.asked("endless")
            assert await process.stdout.readline() == b"aborted\n"
            left_at = time.monotonic()
            assert await stack.faulty.left("endless") - left_at < 1
            assert process.returncode is None
        finally:
            process.kill()
            await process.communicate()
