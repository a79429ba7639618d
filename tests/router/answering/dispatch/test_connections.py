"""Tests of connections to a real loopback upstream: they are kept, shared and closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from router import errors
from router.attempts import AttemptOutcome
from router.serving.http_server import serve_on_loopback
from router.values import RouteQuery
from tests.raw_server import raw_server
from tests.router.answering.dispatch.dispatch_stack import KEY, Upstream, candidate, dispatching, pin
from tests.router.faults import FaultyUpstream, answer

# One loop for the whole folder, so that one server serves all tests.
pytestmark = pytest.mark.asyncio(loop_scope="package")


class TestConnections:
    async def test_are_kept_for_the_next_request(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            text = json.dumps(answer()).encode()
            head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
            with contextlib.suppress(asyncio.IncompleteReadError):
                while head_in := await reader.readuntil(b"\r\n\r\n"):
                    length = int(head_in.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    await reader.readexactly(length)
                    writer.write(head + text)

        async with raw_server(serve) as port:
            url = f"http://127.0.0.1:{port}/v1"
            async with dispatching(folder, candidate("small", url), candidate("large", url)) as stack:
                for deadline_s in range(10, 20):
                    await stack.complete(RouteQuery.from_prompt("hello"), timeout_s=deadline_s)
        assert connections == 1

    async def test_of_many_who_wait_for_a_dead_candidate_do_not_hold_up_another(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("dead", url, model="openai/hang", timeout_s=30),
                candidate("well", url, model="openai/ok"),
            ) as stack,
        ):
            dead, well = (
                RouteQuery.from_prompt("hello", overrides=pin("dead")),
                RouteQuery.from_prompt("hello", overrides=pin("well")),
            )
            await stack.complete(well)
            waiting = [asyncio.create_task(stack.complete(dead)) for _ in range(150)]
            await faulty.asked("hang", times=150)
            await stack.complete(well)
            assert not any(task.done() for task in waiting)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)


async def test_two_policies_on_one_upstream_know_of_each_others_failures(folder: Path, upstream: Upstream) -> None:
    upstream.answer = JSONResponse({"error": {}}, status_code=401)
    profiles = {"quick": {"rule": {"kind": "gain", "thresholds": [-1.0]}}}
    async with dispatching(
        folder, candidate("small", upstream.url), candidate("large", upstream.url), profiles=profiles
    ) as stack:
        from router.values import Overrides

        with pytest.raises(errors.UpstreamDeniedError):
            await stack.complete(RouteQuery.from_prompt("hello", overrides=Overrides(pin="large")))
        # A refused key is no more worth a retry while it rests than it was when it was refused.
        with pytest.raises(errors.UpstreamDeniedError) as caught:
            await stack.complete(RouteQuery.from_prompt("hello", overrides=Overrides(policy="test:quick", pin="large")))
    assert [attempt.outcome for attempt in caught.value.attempts] == [AttemptOutcome.COOLING_DOWN]
