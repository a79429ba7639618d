"""Hold what a fault needs (`Trial`), and find what has become of the service and of its ledger afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.attack.target import Found
from benchmarks.chaos.counting import counted
from benchmarks.chaos.load import Load
from benchmarks.chaos.service import Service
from benchmarks.chaos.upstream import Upstream

#: Seconds after which the service must serve again: the limit of issue 20.
AGAIN_S = 5.0

#: New connections in a row that are answered when the service serves again.
IN_A_ROW = 8

#: What is always counted, with its limit.
COUNTS = {"lost_decisions": 0, "lost_outcomes": 0, "lost_feedback": 0, "doubled": 0, "other_version": 0}


class SkippedError(Exception):
    """This machine cannot have the fault. The message says why."""


@dataclass
class Trial:
    """Describes a service under load.

    Attributes:
        service: the service.
        load: its callers.
        upstream: what answers.
        disk, spool: the folders of the ledger and of its spool.
        url: where the ledger is, for SQLAlchemy.
        seconds: how long a fault lasts that lasts.
        factor: how much wider the limits on time are.
        kills: when processes were killed or stopped.
    """

    service: Service
    load: Load
    upstream: Upstream
    disk: Path
    spool: Path
    url: str
    seconds: float
    factor: float
    kills: list[float] = field(default_factory=list)

    def killed(self) -> None:
        """Note that a process is killed or stopped now."""
        self.kills.append(time.monotonic())

    def wait(self) -> tuple[float, float]:
        """Let a fault last. Return when that began and ended."""
        began = time.monotonic()
        time.sleep(self.seconds)
        return began, time.monotonic()

    def found(self, since: float, measured: Mapping[str, Any] | None = None, **limits: float) -> Found:
        """Find how long the service took to serve again, and what became of what callers were told.

        Args:
            since: when the fault came, or for a fault that ends by itself, when it ended.
            measured: what else was measured.
            limits: the limits of what else was measured.
        """
        again_s = self._served_again(since)
        whole_s = self._was_whole_again(since)
        time.sleep(0.5)
        self.load.stop()
        counts = counted(self.load, self.url, self.kills, self.service.known)
        of_time = {"again_s": AGAIN_S * self.factor}
        again = {"again_s": round(again_s, 2), "all_workers_again_s": round(whole_s, 2)}
        return Found({**again, **counts, **(measured or {})}, {**of_time, **COUNTS, **limits})

    def _served_again(self, since: float) -> float:
        """Return the seconds from `since` until one new connection after the other is answered."""
        ends, in_a_row, begun = time.monotonic() + 60, 0, since
        while in_a_row < IN_A_ROW:
            if time.monotonic() > ends:
                return float("inf")
            if self.service.asked():
                begun, in_a_row = (begun if in_a_row else time.monotonic()), in_a_row + 1
            else:
                in_a_row = 0
                time.sleep(0.05)
        return begun - since

    def _was_whole_again(self, since: float) -> float:
        """Return the seconds from `since` until all workers listen."""
        ends = time.monotonic() + 60
        while time.monotonic() < ends:
            if self.service.is_whole:
                return time.monotonic() - since
            time.sleep(0.05)
        return float("inf")


@contextlib.contextmanager
def sqlite_trial(seconds: float, factor: float, env: Mapping[str, str] | None = None) -> Iterator[Trial]:
    """Run a service with a ledger in SQLite. If the bench is root, ledger and spool have small disks of their own."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elle-chaos-")))
        disk, spool = (_small_disk(folder / name, stack) for name in ("ledger", "spool"))
        place = str(disk / "ledger.db")
        yield from _trials(stack, folder, (disk, spool), (place, f"sqlite:///{place}"), (seconds, factor), env)


@contextlib.contextmanager
def postgres_trial(seconds: float, factor: float, server: Any, folder: Path) -> Iterator[Trial]:
    """Run a service with a ledger in PostgreSQL."""
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="elle-chaos-")))
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        yield from _trials(stack, own, (folder, own / "spool"), (server.url, url), (seconds, factor), None)


def _trials(
    stack: contextlib.ExitStack,
    folder: Path,
    disks: tuple[Path, Path],
    ledger: tuple[str, str],
    bounds: tuple[float, float],
    env: Mapping[str, str] | None,
) -> Iterator[Trial]:
    upstream = stack.enter_context(Upstream().serving())
    service = Service(folder, upstream.url, ledger[0], disks[1], env)
    stack.callback(service.stop)
    service.start()
    load = Load(service)
    stack.callback(load.stop)
    trial = Trial(service, load, upstream, *disks, ledger[1], *bounds)
    load.start()
    _await_answers(service, load)
    yield trial


def _await_answers(service: Service, load: Load) -> None:
    """Wait until all workers listen and some have answered: the first answers wait for imports."""
    ends = time.monotonic() + 90
    while time.monotonic() < ends:
        if service.is_whole and sum(reply.method == "Complete" for reply in load.replies) >= 10:
            return
        time.sleep(0.1)


def _small_disk(folder: Path, stack: contextlib.ExitStack) -> Path:
    folder.mkdir()
    if os.getuid() == 0 and shutil.which("mount"):
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=48m,mode=700", "elle-chaos", str(folder)],
            capture_output=True,
            check=False,
        )
        if made.returncode == 0:
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], capture_output=True, check=False)
    return folder
