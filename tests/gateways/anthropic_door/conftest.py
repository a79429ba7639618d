"""Fixtures of the tests of Anthropic's door: one running service for the whole folder, and the Python SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.anthropic_door.message_upstream import MessageUpstream, running_message_upstream
from tests.gateways.chat_upstream import ChatUpstream, running_chat_upstream
from tests.gateways.loopback import in_thread

CAPABILITIES = ["text", "image", "tools", "json_schema", "file"]
UNSTEADY = ("flaky", "down")
FAULTS = (*UNSTEADY, "fail-529", "fail-400", "fail-401", "fail-429", "break", "cut", "odd", "hollow", "forge")


@dataclass
class Stack:
    """A running service in front of an upstream of Anthropic's API and one of OpenAI's."""

    root: str
    messages: MessageUpstream
    messages_url: str
    chats: ChatUpstream

    def post(self, body: Any, path: str = "/v1/messages", **headers: str) -> httpx.Response:
        return httpx.post(f"{self.root}{path}", json=body, headers=headers, timeout=60)


def _policies(folder: Path, messages_url: str, chats_url: str) -> tuple[Path, ...]:
    prices = {"prices": {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}}
    able = {"capabilities": CAPABILITIES}
    claude = {"name": "large", "model": "anthropic/claude-up", "api_base": messages_url, **able, **prices}
    other = {"name": "small", "model": "openai/up-small", "api_base": chats_url, **able, **prices}
    bad = [
        {"name": name, "model": f"anthropic/{name}", "api_base": messages_url, "retries": 0, "break_after": 1000}
        for name in FAULTS
    ]
    fixed: dict[str, Any] = {"probe": None, "safe_default": "fail-529"}
    aliases = {"claude-haiku-*": "economy", "claude-*": "test", "gpt-4o-mini": "small"}
    return (
        write_policy(
            folder,
            candidates=[other, claude],
            rule={"kind": "gain", "thresholds": [0.35]},
            profiles={"economy": {"rule": {"kind": "gain", "thresholds": [0.9]}}},
            aliases=aliases,
        ),
        write_policy(folder, name="faults", candidates=bad, rule={"kind": "fixed", "candidate": "fail-529"}, **fixed),
    )


@pytest.fixture(scope="package")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, encoder = tmp_path_factory.mktemp("policies"), FakeEncoder()
    with (
        pytest.MonkeyPatch.context() as patch,
        running_message_upstream() as (messages, messages_url),
        running_chat_upstream() as (chats, chats_url),
    ):
        patch.setattr(pipeline, "load_encoder", lambda *_: encoder)
        policies = _policies(folder, messages_url, chats_url)
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=HttpGateway()))) as running:
            yield Stack(f"http://{running.http_address}", messages, messages_url, chats)


@pytest.fixture
def stack(_world: Stack) -> Stack:
    for seen in (_world.messages.sent, _world.messages.headers, _world.messages.paths, _world.chats.sent):
        seen.clear()
    _world.messages.unsteady.asked.clear()
    return _world


@pytest.fixture
def sdk(stack: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="sk-caller", base_url=stack.root, max_retries=0) as sdk:
        yield sdk
