"""Policies are replaced while the service decides and answers: at once, only when they are good, with nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc.aio
import httpx
import pytest
import yaml

from probes.artifacts import store as artifact
from router.deciding import pipeline
from router.errors import ConfigError
from router.gateways.http.http_gateway import HttpGateway
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2 as routing_pb
from router.policies.loading import load_policies
from router.policies.policy_file import read_policy_file
from router.serving.reloading.reloader import ReloadOutcome
from router.serving.server import RunningService, serving
from router.serving.settings import ServerSettings
from router.versions.directory_store import DirectoryStore
from router.versions.store import ChangeRequest, activate, roll_back
from router.versions.version import read_contents
from tests.fakes import FakeEncoder, fake_probe, fake_spec, write_policy

CHAT = {"model": "elle", "messages": [{"role": "user", "content": "hello"}]}


def rewrite(path: Path, **changes: object) -> str:
    """Replace keys of a policy file, and return the digest of what it holds then."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text("utf-8")) | changes), "utf-8")
    return read_policy_file(path).digest


def fixed(candidate: str) -> dict[str, str]:
    return {"kind": "fixed", "candidate": candidate}


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    made = FakeEncoder()
    monkeypatch.setattr(pipeline, "load_encoder", lambda *_: made)
    return made


@contextlib.asynccontextmanager
async def served(
    path: Path, **settings: object
) -> AsyncIterator[tuple[RunningService, pb_grpc.RouterServiceAsyncStub]]:
    """Serve a policy file in the event loop of the test, with a client of gRPC."""
    chosen = ServerSettings(**{"policies": (path,), "port": 0, "drain_s": 1.0} | settings)  # type: ignore[arg-type]
    async with serving(chosen) as running, grpc.aio.insecure_channel(running.address) as channel:
        yield running, pb_grpc.RouterServiceStub(channel)  # type: ignore[misc]


class Load:
    """Asks over gRPC and HTTP, again and again, and notes what each decision says of itself."""

    def __init__(self, running: RunningService, stub: pb_grpc.RouterServiceAsyncStub) -> None:
        self.seen: set[tuple[str, str]] = set()
        self.failures: list[BaseException] = []
        self.n_asked = 0
        self._stub, self._url = stub, f"http://{running.http_address}/v1/chat/completions"

    @contextlib.asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        async with httpx.AsyncClient(trust_env=False) as http:
            ways = (self._route, self._complete, self._stream, lambda: self._chat(http))
            tasks = [asyncio.create_task(self._ask_for_ever(way)) for way in ways]
            yield
            await self.some_more()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def some_more(self, n: int = 4) -> None:
        ends = self.n_asked + n
        while self.n_asked < ends and not self.failures:  # noqa: ASYNC110 - nothing else waits here
            await asyncio.sleep(0.001)

    async def _ask_for_ever(self, way: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await way()
            except Exception as error:
                self.failures.append(error)
                return
            self.n_asked += 1

    async def _route(self) -> None:
        decision = (await self._stub.Route(pb.RouteRequest(prompt="x"))).decision
        self.seen.add((decision.policy.digest, decision.chosen))

    async def _complete(self) -> None:
        answer = await self._stub.Complete(pb.CompleteRequest(route=pb.RouteRequest(prompt="x")))
        self.seen.add((answer.decision.policy.digest, answer.delivery.answered_by))

    async def _stream(self) -> None:
        call = self._stub.StreamComplete(pb.StreamCompleteRequest(route=pb.RouteRequest(prompt="x")))
        digest, answered_by = "", set()
        async for message in call:
            digest = message.decision.policy.digest or digest
            answered_by |= {message.delivery.answered_by} - {""}
        self.seen |= {(digest, one) for one in answered_by}

    async def _chat(self, http: httpx.AsyncClient) -> None:
        answer = await http.post(self._url, json=CHAT)
        answer.raise_for_status()
        self.seen.add((answer.json()["elle"]["policy_digest"], answer.json()["elle"]["answered_by"]))


async def until(stub: pb_grpc.RouterServiceAsyncStub, is_so: Callable[[routing_pb.Decision], bool]) -> None:
    """Decide again and again until a decision is as it should be."""
    while not is_so((await stub.Route(pb.RouteRequest(prompt="x"))).decision):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def flip(running: RunningService, load: Load, path: Path, times: int) -> dict[str, str]:
    """Let the policy choose small and large in turn, and return the candidate of each version by its digest."""
    versions = {}
    for turn in range(times):
        candidate = ("large", "small")[turn % 2]
        versions[rewrite(path, rule=fixed(candidate))] = candidate
        assert await running.reloader.reload("a test") is ReloadOutcome.REPLACED
        await load.some_more()
    return versions


async def test_no_request_fails_and_every_record_names_the_version_that_decided_and_answered(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe=None, rule=fixed("small"), safe_default="small")
    first = read_policy_file(path).digest
    async with served(path, http=HttpGateway()) as (running, stub):
        load = Load(running, stub)
        async with load.going():
            versions = await flip(running, load, path, 20) | {first: "small"}
        assert not load.failures
        assert load.seen == set(versions.items())


async def test_what_cannot_be_used_changes_nothing_and_is_counted_and_logged(
    tmp_path: Path, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_policy(tmp_path)
    good = path.read_text("utf-8")
    async with served(path) as (running, stub):
        before = running.reloader.current
        caplog.set_level(logging.WARNING)

        async def is_refused(words: str) -> None:
            caplog.clear()
            assert await running.reloader.reload("a test") is ReloadOutcome.FAILED
            assert words in caplog.text
            assert "a test: the policies were not replaced, test " in caplog.text
            assert running.reloader.current is before
            assert (await stub.Route(pb.RouteRequest(prompt="x"))).decision.policy.name == "test"

        path.write_text("name: [", "utf-8")
        await is_refused("YAML")
        path.write_text(good, "utf-8")
        rewrite(path, probe="nowhere")
        await is_refused("nowhere")
        # A probe of another encoder: it loads, and is refused because the encoder that is there is another one.
        artifact.save(fake_probe(spec=fake_spec("1")), tmp_path / "other")
        rewrite(path, probe="other")
        await is_refused("encoder")
        path.unlink()
        await is_refused("test.yaml")
        path.write_text(good, "utf-8")
        assert await running.reloader.reload("a test") is ReloadOutcome.UNCHANGED
        assert "a test: the policies can be used again, and are those that decide" in caplog.text
        assert running.reloader.counts.by_outcome == {ReloadOutcome.FAILED: 4, ReloadOutcome.UNCHANGED: 1}


async def test_a_defect_of_ours_in_a_reload_leaves_the_old_policies(
    tmp_path: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_policy(tmp_path)
    async with served(path) as (running, stub):
        rewrite(path, version="2")
        monkeypatch.setattr(pipeline.Router, "warm_up", lambda _: 1 / 0)
        assert await running.reloader.reload("a test") is ReloadOutcome.FAILED
        assert "ZeroDivisionError" in running.reloader.counts.last_error
        assert (await stub.Route(pb.RouteRequest(prompt="x"))).decision.policy.version != "2"


async def test_sessions_judgements_and_threads_of_the_encoder_outlive_a_reload(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    path = write_policy(tmp_path)
    tools = (("authorization", "Bearer mine"),)
    async with served(path) as (running, stub):
        request = pb.RouteRequest(prompt="prompt number 3", session_id="s")
        before = (await stub.Route(request, metadata=tools)).decision
        old = running.reloader.current.router
        rewrite(path, version="2")
        assert await running.reloader.reload("a test") is ReloadOutcome.REPLACED
        new = running.reloader.current.router
        assert new is not old
        assert new._encoders._pools == old._encoders._pools
        assert new.memory is old.memory
        after = (await stub.Route(request, metadata=tools)).decision
        assert after.policy.version == "2"
        assert (after.chosen, after.timings.cached) == (before.chosen, False)
        # Back at the first version, what was judged under it is known still.
        rewrite(path, version="1")
        assert await running.reloader.reload("a test") is ReloadOutcome.REPLACED
        assert (await stub.Route(request, metadata=tools)).decision.timings.cached


async def test_changed_files_are_taken_by_themselves_even_behind_links_that_are_swapped(
    tmp_path: Path, encoder: FakeEncoder
) -> None:
    # As Kubernetes mounts a ConfigMap: the path leads through a link to a folder, and the link is replaced as a whole.
    versions = [tmp_path / "v1", tmp_path / "v2"]
    for number, folder in enumerate(versions, 1):
        folder.mkdir()
        write_policy(folder, version=str(number))
    (tmp_path / "data").symlink_to(versions[0])
    async with served(tmp_path / "data" / "test.yaml") as (running, stub):
        watching = asyncio.create_task(running.reloader.reload_on_changes(every_s=0.01))
        (tmp_path / "next").symlink_to(versions[1])
        (tmp_path / "next").rename(tmp_path / "data")
        await until(stub, lambda decision: decision.policy.version == "2")
        # A probe that is fitted anew in the same place is a change too.
        probe = dataclasses.replace(fake_probe(), leverage_limit=123.0)
        artifact.save(probe, versions[1] / "probe")
        await until(stub, lambda decision: decision.probe.digest == probe.identity)
        watching.cancel()


async def test_a_state_that_cannot_be_used_is_tried_again_and_said_once(
    tmp_path: Path, encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_policy(tmp_path)
    good = path.read_text("utf-8")
    async with served(path) as (running, _):
        counts = running.reloader.counts
        watching = asyncio.create_task(running.reloader.reload_on_changes(every_s=0.01))
        path.write_text("name: [", "utf-8")
        while counts.by_outcome[ReloadOutcome.FAILED] < 3:  # noqa: ASYNC110 - nothing else waits here
            await asyncio.sleep(0.01)
        assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1
        assert "YAML" in counts.last_error
        path.write_text(good, "utf-8")
        while counts.last_error:  # noqa: ASYNC110 - nothing else waits here
            await asyncio.sleep(0.01)
        watching.cancel()
        # A change that somebody else wanted, and that was refused, is no fault of the files.
        with pytest.raises(ConfigError):
            await running.reloader.replace(lambda: load_policies([tmp_path / "none.yaml"]), "a wish")
        assert counts.last_error == ""


async def test_a_service_follows_what_is_activated_in_its_store(tmp_path: Path, encoder: FakeEncoder) -> None:
    path = write_policy(tmp_path)
    store = DirectoryStore(tmp_path / "store")
    versions = [store.add(*read_contents(path))]
    rewrite(path, version="2")
    versions.append(store.add(*read_contents(path)))
    activate(store, versions[0], ChangeRequest("me", "it begins"))
    async with served(path, store=tmp_path / "store") as (running, stub):
        watching = asyncio.create_task(running.reloader.reload_on_changes(every_s=0.01))
        await until(stub, lambda decision: decision.policy.digest == versions[0].policy_digest)
        activate(store, versions[1], ChangeRequest("me", "better"))
        await until(stub, lambda decision: decision.policy.digest == versions[1].policy_digest)
        # A version that was damaged on the disk is never served.
        damaged = store.open(versions[0].id).policy
        whole = damaged.read_bytes()
        damaged.write_text("damaged", "utf-8")
        roll_back(store, "test", ChangeRequest("me", "worse"))
        while not running.reloader.counts.last_error:  # noqa: ASYNC110 - nothing else waits here
            await asyncio.sleep(0.01)
        await until(stub, lambda decision: decision.policy.digest == versions[1].policy_digest)
        # Once it can be read again it is served, although nothing in the store has changed.
        damaged.write_bytes(whole)
        await until(stub, lambda decision: decision.policy.digest == versions[0].policy_digest)
        watching.cancel()


async def test_threads_of_an_encoder_that_nobody_needs_any_more_end(tmp_path: Path, encoder: FakeEncoder) -> None:
    path = write_policy(tmp_path)
    async with served(path) as (running, stub):
        await stub.Route(pb.RouteRequest(prompt="x"))
        threads = [thread for pool in running.router._encoders._pools.values() for thread in pool._threads]
        assert all(thread.is_alive() for thread in threads)
        rewrite(path, probe=None, rule=fixed("small"))
        assert await running.reloader.reload("a test") is ReloadOutcome.REPLACED
        for thread in threads:
            await asyncio.to_thread(thread.join)
        rewrite(path, probe="probe", rule={"kind": "gain", "thresholds": [0.1]})
        assert await running.reloader.reload("a test") is ReloadOutcome.REPLACED
        assert (await stub.Route(pb.RouteRequest(prompt="x"))).decision.probe.digest
