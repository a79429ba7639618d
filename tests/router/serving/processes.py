"""Run `elle serve` as a real process, for the tests of how it starts and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from tests.conftest import ROOT

ELLE = "from router.cli.main import main; main()"
RULE = {"kind": "fixed", "candidate": "small"}


@dataclass
class Service:
    """Holds a process that serves, and what it writes to stderr."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.lines)

    @property
    def address(self) -> str:
        return self._said(r"serving .*?on ([^\s\",]+)")

    @property
    def url(self) -> str:
        """The address of the HTTP port."""
        return self._said(r"on (http://\S+)/v1")

    def ask_to_end(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.process.pid, number)

    def _said(self, pattern: str) -> str:
        wait_until(lambda: re.search(pattern, self.text) or self.process.poll() is not None)
        found = re.search(pattern, self.text)
        assert found, f"the service ended:\n{self.text}"
        return found[1]


@contextmanager
def elle_serve(*arguments: str, code: str = ELLE, env: dict[str, str] | None = None) -> Iterator[Service]:
    """Run `elle serve --port 0` with these arguments, and kill it in the end if it lives."""
    argv = [sys.executable, "-c", code, "serve", "--port", "0", *arguments]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(env or {})})
    service = Service(process)
    assert process.stderr is not None
    reader = threading.Thread(target=lambda: service.lines.extend(process.stderr or ()))
    reader.start()
    try:
        yield service
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


def children_of(pid: int) -> set[int]:
    """Return the worker processes of a parent."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    found = {int(child) for task in tasks for child in (task / "children").read_text().split()}
    # The resource tracker of multiprocessing is a child too.
    return {child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()}


def route_once(address: str, *, wait: bool = True) -> str:
    """Decide over a connection of its own: the kernel spreads connections."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        stub = pb_grpc.RouterServiceStub(channel)
        answer = stub.Route(pb.RouteRequest(prompt="x"), timeout=60, wait_for_ready=wait)
    return str(answer.decision.chosen)
