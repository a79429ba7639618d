"""Two real replicas behind each shipped balancer: one is killed under load, no call fails, and sessions stay."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from router.client import RouterClient
from router.errors import ServiceError
from tests.conftest import ROOT
from tests.fakes import write_policy
from tests.gateways.envoy import find_envoy
from tests.router.serving.processes import Service, elle_serve, wait_until

ENVOY = ROOT / "deploy" / "envoy" / "envoy.yaml"
HAPROXY = ROOT / "deploy" / "haproxy" / "haproxy.cfg"

#: How many sessions call, and how many calls each of them makes at least before and after the death.
SESSIONS, CALLS = 24, 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Callers:
    """Calls without a break in several threads, each with a client and sessions of its own."""

    def __init__(
        self, address: str | Sequence[str], threads: int = 4, scores: Mapping[str, float] | None = None
    ) -> None:
        self._scores = scores or {}
        self.chosen: dict[str, list[str]] = defaultdict(list)
        self.failed: list[ServiceError] = []
        self._ending = threading.Event()
        names = [f"session-{number}" for number in range(SESSIONS)]
        self._threads = [
            threading.Thread(target=self._call, args=(address, names[number::threads])) for number in range(threads)
        ]

    def _call(self, address: str | Sequence[str], sessions: list[str]) -> None:
        with RouterClient(address) as client:
            while not self._ending.is_set():
                for session in sessions:
                    try:
                        decision = client.route("hello", session_id=session, scores=self._scores)
                        self.chosen[session].append(decision.chosen)
                    except ServiceError as error:
                        self.failed.append(error)

    def wait_for_more_calls(self) -> None:
        before = {session: len(found) for session, found in list(self.chosen.items())}
        wait_until(
            lambda: (
                len(self.chosen) == SESSIONS
                and all(len(found) >= before.get(session, 0) + CALLS for session, found in list(self.chosen.items()))
            )
        )

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def replicas(folder: Path) -> Iterator[list[Service]]:
    """Run two replicas. Each chooses a candidate of its own, so that a decision says who made it."""
    with ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            policy = write_policy(
                folder / name, names=("one", "two"), probe=None, rule={"kind": "fixed", "candidate": name}
            )
            found.append(stack.enter_context(elle_serve("--policy", str(policy), "--http", "0")))
        for replica in found:
            assert replica.address
            assert replica.url
        yield found


def moved(text: str, ports: dict[int, int]) -> str:
    """Return a configuration with other ports, each of which must be in it."""
    for old, new in ports.items():
        text, count = re.subn(rf"\b{old}\b", str(new), text)
        assert count, old
    return text


def ports_of(services: list[Service], grpc: int, http: int) -> dict[int, int]:
    ports = {50050: grpc, 8081: http}
    for number, service in enumerate(services, 1):
        ports[50050 + number] = int(service.address.rpartition(":")[2])
        ports[8000 + number] = urlsplit(service.url).port or 0
    return ports


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def balancer(argv: Sequence[str], folder: Path, port: int) -> Iterator[str]:
    with (folder / "balancer.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            with RouterClient(f"127.0.0.1:{port}") as client:
                wait_until(lambda: answers(client) or process.poll() is not None)
            assert process.poll() is None, (folder / "balancer.log").read_text("utf-8")
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def answers(client: RouterClient) -> bool:
    try:
        return bool(client.route("hello").chosen)
    except ServiceError:
        return False


def envoy(folder: Path, services: list[Service]) -> AbstractContextManager[str]:
    port, path = free_port(), folder / "envoy.yaml"
    path.write_text(moved(ENVOY.read_text("utf-8"), ports_of(services, port, free_port())), "utf-8")
    return balancer([find_envoy(), "-c", str(path), "--use-dynamic-base-id", "-l", "warning"], folder, port)


def haproxy(folder: Path, services: list[Service]) -> AbstractContextManager[str]:
    if (binary := shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")) is None:
        pytest.skip("HAProxy is not installed (Debian's package haproxy)")
    port, path = free_port(), folder / "haproxy.cfg"
    path.write_text(moved(HAPROXY.read_text("utf-8"), ports_of(services, port, free_port())), "utf-8")
    return balancer([binary, "-db", "-f", str(path)], folder, port)


@pytest.mark.parametrize("kind", [envoy, haproxy])
def test_a_killed_replica_fails_no_call_and_moves_only_its_own_sessions(kind: object, tmp_path: Path) -> None:
    with replicas(tmp_path) as services, kind(tmp_path, services) as address, Callers(address) as callers:  # type: ignore[operator]
        wait_until(lambda: {one for found in list(callers.chosen.values()) for one in found} == {"one", "two"})
        # A balancer that has not yet seen both replicas healthy may have sent sessions elsewhere.
        time.sleep(1.5)
        callers.chosen.clear()
        callers.wait_for_more_calls()
        before = {session: set(found) for session, found in list(callers.chosen.items())}
        services[0].process.kill()
        callers.wait_for_more_calls()
        time.sleep(1)
        callers.chosen.clear()
        callers.wait_for_more_calls()
    assert not callers.failed
    assert all(len(found) == 1 for found in before.values()), before
    assert set().union(*before.values()) == {"one", "two"}
    assert {session: set(found) for session, found in callers.chosen.items()} == {one: {"two"} for one in before}


def test_a_client_with_two_addresses_takes_turns_and_outlives_one(tmp_path: Path) -> None:
    with replicas(tmp_path) as services, Callers([one.address for one in services]) as callers:
        callers.wait_for_more_calls()
        assert {one for found in list(callers.chosen.values()) for one in found} == {"one", "two"}
        services[0].process.kill()
        callers.wait_for_more_calls()
    assert not callers.failed
    assert {found[-1] for found in callers.chosen.values()} == {"two"}
