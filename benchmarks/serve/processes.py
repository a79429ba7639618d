"""Run servers and clients as processes, and read their CPU seconds and memory from /proc, children included."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

START_S = 180.0


@dataclass(frozen=True)
class Server:
    """Describes a serving process, or several on one port, and where they listen."""

    address: str
    pids: tuple[int, ...]
    start_s: float

    def cpu_s(self) -> float:
        """Return the CPU seconds that all processes of the server have used so far."""
        return sum(tree_s(pid) for pid in self.pids)

    def rss_mb(self) -> float:
        """Return the resident memory of all processes of the server in MB."""
        return sum(_rss_mb(pid) for pid in self._all())

    def _all(self) -> Iterator[int]:
        for pid in self.pids:
            yield pid
            yield from _children(pid)


@contextlib.contextmanager
def serving(*commands: Sequence[str], env: Mapping[str, str] | None = None, cores: str = "") -> Iterator[Server]:
    """Start one server, or several, each ready before the next; stop them at the end.

    A command is an argv after the interpreter; it must print `on HOST:PORT` to stderr when ready. `{port}` in later
    commands is the first one's port. `cores` are those that the servers may use, as taskset takes them.
    """
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        processes, address = [], ""
        for command in commands:
            port = address.rpartition(":")[2]
            argv = [sys.executable, *(part.replace("{port}", port) for part in command)]
            argv = ["taskset", "--cpu-list", cores, *argv] if cores else argv
            process = subprocess.Popen(argv, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}, text=True)
            stack.callback(_stop, process)
            processes.append(process)
            address = _address_of(cast(IO[str], process.stderr))
        yield Server(address, tuple(process.pid for process in processes), time.perf_counter() - begun)


def load(server: Server, prompts: Path, *arguments: str) -> dict[str, Any]:
    """Run the load client against a server, and return its figures with the server's CPU per answered call."""
    before = server.cpu_s()
    argv = [sys.executable, "-m", "benchmarks.serve.client", server.address, str(prompts), *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    answered = found["statuses"].get("OK", 0)
    found["server_cpu_ms_per_decision"] = (server.cpu_s() - before) / max(1, answered) * 1e3
    found["rss_mb"] = server.rss_mb()
    return found


def _address_of(stream: IO[str]) -> str:
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        # The pipe is read to its end: a server that says much would stop when it is full. Waiting for it with `select`
        # would miss lines that the stream has read ahead.
        with stream:
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, name="stderr of a server", daemon=True).start()
    ends, heard = time.monotonic() + START_S, ""
    with contextlib.suppress(queue.Empty):
        while (line := lines.get(timeout=max(0.0, ends - time.monotonic()))) is not None:
            heard += line
            if found := re.search(r" on (\S+:\d+)", line):
                return found[1]
    raise RuntimeError(f"a server did not start:\n{heard}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that the threads of a process have used so far. A thread that has ended is left out."""
    # In nanoseconds; the sums in `stat` have steps of 10 ms.
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def thread_s(pid: int, name: str) -> float:
    """Return the CPU seconds of all threads of a process that bear this name. The kernel keeps 15 bytes of a name."""
    tasks = [
        task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().rstrip("\n") == name[:15]
    ]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def tree_s(pid: int) -> float:
    """Return the CPU seconds of a process and of all that it started. Those that have ended are left out."""
    return sum(cpu_s(one) for one in (pid, *_children(pid)))


def _rss_mb(pid: int) -> float:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _children(int(child))
