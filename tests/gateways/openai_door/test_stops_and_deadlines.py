"""Tests of what ends an answer of the OpenAI door, or keeps the door from opening: deadlines, clients, stops."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.deciding import pipeline
from router.errors import ConfigError, GatewayNotInstalledError
from router.gateways.http.http_gateway import HttpGateway
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy
from tests.gateways.openai_door.door_stack import Stack, hello


def test_an_answer_that_breaks_off_ends_with_an_error_event_and_without_done(stack: Stack, sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "elle/breaks", "messages": hello(), "stream": True}
    lines = [line for line in stack.post(asked).text.splitlines() if line]
    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["error"]["code"] == "upstream_interrupted"
    assert last["elle"]["attempts"][-1]["outcome"] == "INTERRUPTED"
    with pytest.raises(openai.APIError, match="broke off"):
        list(sdk.chat.completions.create(**asked))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_the_deadline_of_the_header_holds(stack: Stack, streamed: bool) -> None:
    started = time.monotonic()
    body = {"model": "fault-hang", "messages": hello(), "stream": streamed}
    reply = stack.post(body, **{"x-elle-timeout-s": "0.5"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout")
    # The candidate itself has 20 seconds.
    assert 0.4 < time.monotonic() - started < 15
    for wrong in ("1_0", "soon", "-1", "nan", "0", "inf"):
        assert stack.post(body, **{"x-elle-timeout-s": wrong}).json()["error"]["param"] == "x-elle-timeout-s"


def test_a_candidate_that_is_silent_longer_than_the_deadline_leaves_time_for_another_one(stack: Stack) -> None:
    body = {"model": "elle/stalls", "messages": hello(), "stream": True}
    reply = stack.post(body, **{"x-elle-timeout-s": "3"})
    assert reply.status_code == 200
    assert reply.headers["x-elle-attempts"] == "first=TIMED_OUT,second=ANSWERED"


@pytest.mark.parametrize(
    ("fault", "streamed"), [("hang", False), ("hang", True), ("endless", True), ("stall", True)], ids=str
)
async def test_a_client_that_leaves_stops_the_upstream_within_a_second(
    stack: Stack, fault: str, streamed: bool
) -> None:
    async with openai.AsyncOpenAI(api_key="k", base_url=stack.url, max_retries=0) as sdk:

        async def ask() -> None:
            answer: Any = await sdk.chat.completions.create(model=f"fault-{fault}", messages=hello(), stream=streamed)
            async for _ in answer:
                pass

        asking = asyncio.create_task(ask())
        await stack.faulty.asked(fault)
        await asyncio.sleep(0.2)
        left_at = time.monotonic()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await stack.faulty.left(fault) - left_at < 1


async def test_what_is_in_work_when_the_service_stops_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr(pipeline, "load_encoder", lambda *_: encoder)
    settings = ServerSettings(policies=(write_policy(tmp_path),), port=0, drain_s=10, http=HttpGateway())
    async with httpx.AsyncClient(timeout=60) as http:
        async with serving(settings) as running:
            encoder.gate.clear()
            url = f"http://{running.http_address}/v1/chat/completions"
            asking = asyncio.create_task(http.post(url, json={"model": "elle/test", "messages": hello("slow")}))
            async with asyncio.timeout(60):
                while running.router.pending == 0:  # noqa: ASYNC110  (a count is all there is to look at)
                    await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.5, encoder.gate.set)
        assert encoder.gate.is_set()
        assert (await asking).status_code == 200
        with pytest.raises(httpx.ConnectError):
            await http.post(url)


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, probe=None, rule={"kind": "fixed", "candidate": "small"}, safe_default="small")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = ServerSettings(policies=(policy,), port=0, drain_s=0.1, http=HttpGateway(), http_port=port)
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port} .*--http"):
            async with serving(settings):
                pass


def test_without_uvicorn_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(GatewayNotInstalledError, match=r"elle-router\[dispatch\]"):
        HttpGateway()
    done = CliRunner().invoke(cli, ["serve", "--http", "0"])
    assert done.exit_code == 1
    assert "elle-router[dispatch]" in done.output
    assert CliRunner().invoke(cli, ["serve", "--max-body-bytes", "9"]).exit_code == 2
