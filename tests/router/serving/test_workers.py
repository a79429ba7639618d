"""Several processes on one port: all answer, a dead one is replaced, nothing outlives the parent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from router.client import RouterClient
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from tests.fakes import write_policy

ELLE = (sys.executable, "-c", "from router.cli.main import main; main()")
RULE = {"kind": "fixed", "candidate": "small"}


def children_of(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = {int(child) for task in tasks for child in (task / "children").read_text().split()}
    # The resource tracker of multiprocessing is a child too.
    return {child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()}


@contextmanager
def served(policy: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    argv = [*ELLE, "serve", "--policy", str(policy), *options]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        heard = ""
        while not (found := re.search(r"serving on (\S+) in 2 processes", heard)):
            line = process.stderr.readline()
            assert line, f"the server ended:\n{heard}"
            heard += line
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    # Without a probe, so that no encoder is loaded: this is about processes.
    return write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")


def wait_until(condition: object, seconds: float = 30.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < ends
        time.sleep(0.1)


def route_once(address: str) -> str:
    # A connection of its own each time: the kernel spreads connections.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        answer = pb_grpc.RouterServiceStub(channel).Route(pb.RouteRequest(prompt="x"), timeout=20, wait_for_ready=True)
    return str(answer.decision.chosen)


def test_all_answer_a_dead_one_is_replaced_and_sigterm_ends_them_all(policy: Path) -> None:
    with served(policy, "--port", "0", "--workers", "2") as (parent, address):
        assert {route_once(address) for _ in range(8)} == {"small"}
        before = children_of(parent.pid)
        assert len(before) == 2
        os.kill(min(before), signal.SIGKILL)
        wait_until(lambda: len(children_of(parent.pid) - before) == 1)
        wait_until(lambda: route_once(address) == "small")
        workers = children_of(parent.pid)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_the_http_port_is_shared_too(policy: Path) -> None:
    with served(policy, "--port", "0", "--http", "0", "--workers", "2", "--drain-s", "0.2") as (parent, _):
        assert parent.stderr is not None
        url = parent.stderr.readline().split()[-1]
        port = int(url.removesuffix("/v1").rpartition(":")[2])
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [row for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A"]
        assert len(listening) == 2
        assert {httpx.get(f"{url}/models").status_code for _ in range(8)} == {200}


def test_workers_leave_when_their_parent_is_killed(policy: Path) -> None:
    with served(policy, "--port", "0", "--workers", "2", "--drain-s", "0.2") as (parent, _):
        workers = children_of(parent.pid)
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


def test_an_occupied_port_is_refused_at_once(policy: Path, address: str) -> None:
    argv = [*ELLE, "serve", "--workers", "2"]
    argv += ["--policy", str(policy), "--port", address.rpartition(":")[2]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "cannot listen" in done.stderr
    assert "Traceback" not in done.stderr
    with RouterClient(address) as client:
        assert client.route("still there?").chosen


def test_what_keeps_a_worker_from_starting_is_said_by_the_parent(tmp_path: Path) -> None:
    path = write_policy(tmp_path, probe="nowhere")
    argv = [*ELLE, "serve", "--workers", "2", "--port", "0"]
    done = subprocess.run([*argv, "--policy", str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
