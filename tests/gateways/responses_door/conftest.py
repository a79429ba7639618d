"""Fixtures of the tests of the Responses door: one running service for the whole folder, and OpenAI's Python SDK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import ChatUpstream, running_chat_upstream
from tests.gateways.loopback import in_thread
from tests.gateways.responses_door.response_upstream import ResponseUpstream, running_response_upstream

CAPABILITIES = ["text", "image", "tools", "json_schema", "file"]
UNSTEADY = ("flaky", "down")
FAULTS = (*UNSTEADY, "fail-503", "fail-400", "fail-401", "fail-429", "failed", "break", "cut")


@dataclass
class Stack:
    """A running service in front of two upstreams of the Responses API, and one that knows chat completions only."""

    root: str
    a: ResponseUpstream
    a_url: str
    b: ResponseUpstream
    chats: ChatUpstream

    def post(self, body: Any, path: str = "/v1/responses", **headers: str) -> httpx.Response:
        return httpx.post(f"{self.root}{path}", json=body, headers=headers, timeout=60)


def _policies(folder: Path, a_url: str, b_url: str, chats_url: str) -> tuple[Path, ...]:
    able = {"capabilities": CAPABILITIES}
    able |= {"prices": {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}}
    speaks = {"speaks": ["responses"]}
    large = {"name": "large", "model": "openai/up-large", "api_base": a_url, **able, **speaks}
    small = {"name": "small", "model": "openai/up-small", "api_base": chats_url, **able}
    # Azure's URL has another path.
    azure = {"model": "azure/up-azure", "api_base": b_url.removesuffix("/v1"), **able}
    two = [large | {"name": "first", "probe_model": "small"}, azure | {"name": "second", "probe_model": "large"}]
    old = {"name": "old", "model": "openai/up-old", "api_base": a_url, "probe_model": "small", **able}
    prompts = [
        old | {"speaks": ["completions", "embeddings"]},
        old | {"name": "new", "model": "openai/up-new", "probe_model": "large", "speaks": ["completions"]},
    ]
    bad = [
        {"name": name, "model": f"openai/{name}", "api_base": a_url, "retries": 0, "break_after": 1000, **speaks}
        for name in FAULTS
    ]
    gain = {"kind": "gain", "thresholds": [0.35]}
    fixed: dict[str, Any] = {"probe": None, "safe_default": "fail-503"}
    return (
        write_policy(folder, candidates=[small, large], rule=gain),
        write_policy(folder, name="two", candidates=two, safe_default="second", rule=gain),
        write_policy(folder, name="prompts", candidates=prompts, safe_default="new", rule=gain),
        write_policy(folder, name="faults", candidates=bad, rule={"kind": "fixed", "candidate": "fail-503"}, **fixed),
    )


@pytest.fixture(scope="package")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, encoder = tmp_path_factory.mktemp("policies"), FakeEncoder()
    with (
        pytest.MonkeyPatch.context() as patch,
        running_response_upstream("a") as (a, a_url),
        running_response_upstream("b") as (b, b_url),
        running_chat_upstream() as (chats, chats_url),
    ):
        chats.calls_once = True
        patch.setattr(pipeline, "load_encoder", lambda *_: encoder)
        policies = _policies(folder, a_url, b_url, chats_url)
        with in_thread(serving(ServerSettings(policies=policies, port=0, drain_s=1, http=HttpGateway()))) as running:
            yield Stack(f"http://{running.http_address}", a, a_url, b, chats)


@pytest.fixture
def stack(_world: Stack) -> Stack:
    for one in (_world.a, _world.b):
        for seen in (one.sent, one.headers, one.asked):
            seen.clear()
    _world.chats.sent.clear()
    _world.a.unsteady.asked.clear()
    return _world


@pytest.fixture
def sdk(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-caller", base_url=f"{stack.root}/v1", max_retries=0) as sdk:
        yield sdk
