"""Tests of the Responses door with clients that take it by default: agent SDKs in Python, and two SDKs in Node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.gateways.responses_door.conftest import Stack

NODE = ROOT / "tests" / "gateways" / "node"
AGENTS = ROOT / ".venv-agents" / "bin" / "python"

#: What each candidate says: one speaks the Responses API itself, the other only chat completions.
SAID = {"large": "up-large says 你好", "small": "up-small 0"}


def output_of(*command: str | Path) -> Any:
    done = subprocess.run(command, cwd=NODE, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def need_node(package: str) -> None:
    if shutil.which("node") is None or not (NODE / "node_modules" / package).exists():
        pytest.skip(f"Node or {package} is not installed; `make test` installs it where npm is")


@pytest.mark.skipif(not AGENTS.exists(), reason="no .venv-agents with agent SDKs; `make .venv-agents/.installed`")
def test_the_openai_agents_sdk_and_pydantic_ai_work_with_their_defaults(stack: Stack) -> None:
    # One process for both candidates, because importing the SDKs takes seconds.
    told = output_of(AGENTS, ROOT / "tests" / "gateways" / "python" / "agent_sdks.py", f"{stack.root}/v1", *SAID)
    steps = ["ToolCallItem", "ToolCallOutputItem", "MessageOutputItem"]
    for model, said in SAID.items():
        common = {"plain": said, "streamed": True, "after tool": said, "structured": "Köln", "picture": said}
        common["retried"] = "flaky says 你好"
        assert told[model]["agents"] == common | {"tool": steps, "refused": "NotFoundError", "requests": 2}
        with_types = common | {"model": "OpenAIResponsesModel", "refused": "ModelNotFoundError"}
        assert told[model]["pydantic-ai"] == with_types
    assert stack.a.unsteady.asked["flaky"] == 4 * len(SAID)


def test_the_vercel_ai_sdk_works_with_its_default_model(stack: Stack) -> None:
    need_node("@ai-sdk")
    told = output_of("node", "--no-warnings", "ai.mjs", f"{stack.root}/v1", *SAID)
    assert told.pop("refused") == "AI_APICallError 404"
    assert told.pop("retried") == "flaky says 你好"
    assert stack.a.unsteady.asked["flaky"] == 2
    for model, said in SAID.items():
        assert told[model] == {
            "provider": "openai.responses",
            "plain": said,
            "streamed": True,
            "usage": 110 if model == "large" else 10,
            "calls": ["12 degrees in Köln"],
            "structured": "Köln",
            "picture": said,
            "errors": [],
        }


def test_openais_node_sdk_gets_through_the_door_what_it_gets_directly(stack: Stack) -> None:
    need_node("openai")
    told = output_of("node", "responses.mjs", stack.a_url, f"{stack.root}/v1")
    errors = ["NotFoundError 404", "APIError undefined", "InternalServerError 503"]
    retried = "flaky says 你好"
    kept = told.pop("kept")
    assert (kept[:4], kept[-3:]) == (["queued", "cancelled", "message", "created"], ["completed", 404, True])
    assert told == {"asked": 14, "different": [], "held": "SESSION_HELD", "errors": errors, "retried": retried}
    assert stack.a.unsteady.asked["flaky"] == 2
    assert stack.a.unsteady.asked["down"] == 1
