"""A session through every door: a tool loop is held by who answered, for its own caller and for nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.asking.session_ids import caller_of
from router.client import AsyncRouterClient
from router.deciding import pipeline
from router.gateways.http.http_gateway import HttpGateway
from router.gateways.litellm_plugin import METADATA_KEY, elle_plugin
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import RouteQuery
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import running_chat_upstream
from tests.gateways.envoy import envoy_in_front
from tests.gateways.loopback import in_thread
from tests.gateways.test_every_door_decides_alike import HAS_ENVOYS_PROTOS, NAMES, litellm_models

WEAK, STRONG = NAMES

#: One body of one caller -> who was chosen, and why.
Ask = Callable[[dict[str, Any], str], tuple[str, str]]


@dataclass(frozen=True)
class Stack:
    """A service behind all doors, two candidates that use tools, and what the rule sends to which of them."""

    folder: Path
    address: str
    http_url: str
    upstream_url: str
    engine: pipeline.Router
    easy: str
    hard: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("sessions")
    with pytest.MonkeyPatch.context() as patch, running_chat_upstream() as (_, upstream_url):
        patch.setattr(pipeline, "load_encoder", lambda *_: FakeEncoder())
        common = {"api_base": upstream_url, "capabilities": ["text", "tools"]}
        candidates = [common | {"name": name, "model": f"openai/up-{name}"} for name in NAMES]
        policy = write_policy(folder, names=NAMES, candidates=candidates, rule={"kind": "gain", "thresholds": [0.35]})
        engine = pipeline.Router.from_files(policy)
        chosen = {f"wish {n}": engine.decide(RouteQuery.from_prompt(f"wish {n}")).chosen for n in range(50)}
        easy, hard = (next(text for text, name in chosen.items() if name == one) for one in NAMES)
        doors = ()
        if HAS_ENVOYS_PROTOS:
            from router.gateways.ext_proc import ExternalProcessor

            doors = (ExternalProcessor(),)
        settings = ServerSettings(
            policies=(policy,), port=0, drain_s=1, doors=doors, http=HttpGateway(), cache_entries=0
        )
        with in_thread(serving(settings)) as running:
            http_url = f"http://{running.http_address}"
            yield Stack(folder, running.address, http_url, upstream_url, engine, easy, hard)


def asked(text: str, *, in_loop: bool = False) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    if in_loop:
        call = {"id": "1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "1", "content": "found: 42"})
    return {"messages": messages}


def check(stack: Stack, ask: Ask) -> None:
    """Check that a hard request goes up, and that only the same caller's tool loop stays there, though it is easy."""
    assert ask(asked(stack.hard), "A") == (STRONG, "GAIN_ABOVE_THRESHOLD")
    assert ask(asked(stack.easy, in_loop=True), "A") == (STRONG, "SESSION_HELD")
    assert ask(asked(stack.easy, in_loop=True), "B") == (WEAK, "GAIN_BELOW_THRESHOLD")
    assert ask(asked(stack.easy), "A")[0] == WEAK


def test_python(stack: Stack) -> None:
    def ask(body: dict[str, Any], caller: str) -> tuple[str, str]:
        query = RouteQuery(body["messages"], session_id="python")
        decision = stack.engine.decide(query, caller=caller_of({"x-api-key": caller}))
        return decision.chosen, decision.reason.value

    check(stack, ask)


def test_route(stack: Stack) -> None:
    async def route(body: dict[str, Any], caller: str) -> tuple[str, str]:
        async with AsyncRouterClient(stack.address) as client:
            decision = await client.route(RouteQuery(body["messages"], session_id="route"), api_key=caller)
            return decision.chosen, decision.reason.value

    check(stack, lambda body, caller: asyncio.run(route(body, caller)))


def _post(url: str, body: dict[str, Any], headers: Mapping[str, str]) -> tuple[str, str]:
    reply = httpx.post(f"{url}/v1/chat/completions", json={"model": "elle/test", **body}, headers=headers, timeout=60)
    assert reply.status_code == 200
    return reply.headers["x-elle-candidate"], reply.headers["x-elle-reason"]


def test_openai_door(stack: Stack) -> None:
    def ask(body: dict[str, Any], caller: str) -> tuple[str, str]:
        headers = {"x-session-id": "http", "authorization": f"Bearer {caller}"}
        return _post(stack.http_url, body, headers)

    check(stack, ask)


@pytest.mark.skipif(not HAS_ENVOYS_PROTOS, reason="Envoy's protos are not installed; `pip install xds-protos`")
def test_envoy(stack: Stack) -> None:
    with envoy_in_front(stack.folder, stack.address, stack.upstream_url, NAMES) as url:

        def ask(body: dict[str, Any], caller: str) -> tuple[str, str]:
            metadata = {"metadata": {"session_id": "envoy"}}
            return _post(url, body | metadata, {"x-api-key": caller})

        check(stack, ask)


@pytest.mark.parametrize("engine", ["in process", "service"])
def test_litellm_plugin(stack: Stack, engine: str) -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed; `pip install 'elle-router[dispatch]'`")
    before = list(litellm.callbacks)

    async def ask_all() -> None:
        plugin = elle_plugin(stack.engine if engine == "in process" else stack.address)
        router = litellm.Router(model_list=litellm_models(stack.upstream_url), plugins=[plugin], num_retries=0)

        async def ask(body: dict[str, Any], caller: str) -> tuple[str, str]:
            # As the Proxy marks whom it let in.
            metadata: dict[str, Any] = {"session_id": f"litellm {engine}", "user_api_key": caller}
            await router.acompletion("auto", **body, metadata=metadata)
            told = metadata[METADATA_KEY]
            return told["x-elle-candidate"], told["x-elle-reason"]

        bodies = [
            (asked(stack.hard), "A", (STRONG, "GAIN_ABOVE_THRESHOLD")),
            (asked(stack.easy, in_loop=True), "A", (STRONG, "SESSION_HELD")),
            (asked(stack.easy, in_loop=True), "B", (WEAK, "GAIN_BELOW_THRESHOLD")),
        ]
        for body, caller, expected in bodies:
            assert await ask(body, caller) == expected
        await litellm.close_litellm_async_clients()

    try:
        asyncio.run(ask_all())
    finally:
        litellm.callbacks[:] = before
