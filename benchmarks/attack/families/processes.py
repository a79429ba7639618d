"""Do to the service what an operator, a kernel or a crash does, while others use it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.attack.target import Found, Target

#: What a client of HTTP/2 says first; the server answers with its settings.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"

_POLICY = """
schema: elle.policy/1
name: processes
candidates: [{name: small, model: openai/small, api_base: canned}]
rule: {kind: fixed, candidate: small}
safe_default: small
"""

#: Seconds of `--worker-timeout-s` and of `--drain-s` in these attacks, and how much later than promised is too late.
_SILENT_S, _DRAIN_S, _LATE_S = 3.0, 3.0, 5.0


def hangups(target: Target) -> Found:
    """Send SIGHUP to the service again and again."""

    def hang_up() -> str:
        os.kill(target.pid, signal.SIGHUP)
        time.sleep(0.05)
        return "sent"

    return target.attacked_by(hang_up)


def killed_worker(target: Target) -> Found:
    """Kill one of two workers. The other one is ready, and must answer every new connection."""

    def attack(parent: subprocess.Popen[str], workers: list[int]) -> None:
        os.kill(workers[0], signal.SIGKILL)
        # Those that its backlog held are lost with it, which no process can help.
        time.sleep(0.2)

    return _new_connections_while(attack, target)


def leaving_worker(target: Target) -> Found:
    """Ask one of two workers to end. No connection may be lost, those in its backlog included."""
    return _new_connections_while(lambda _, workers: os.kill(workers[0], signal.SIGTERM), target, from_the_start=True)


def stopped_worker(target: Target) -> Found:
    """One of two workers is stopped (SIGSTOP): it is noticed and replaced."""
    with _two_workers() as (parent, _, _said):
        stopped = _children(parent.pid)[0]
        began = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        limit = (_SILENT_S + _LATE_S) * target.factor
        while Path(f"/proc/{stopped}").exists() and time.monotonic() < began + 2 * limit:
            time.sleep(0.05)
        measured = {"noticed_s": round(time.monotonic() - began, 1)}
    return Found(measured, {"noticed_s": limit})


def stopped_worker_at_the_end(target: Target) -> Found:
    """Stop a worker (SIGSTOP), and end the service. The worker must not hold up the end."""
    with _two_workers() as (parent, _, _said):
        os.kill(_children(parent.pid)[0], signal.SIGSTOP)
        began = time.monotonic()
        parent.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            parent.wait(60)
        measured = {"ended_s": round(time.monotonic() - began, 1)}
    return Found(measured, {"ended_s": (_DRAIN_S + _LATE_S) * target.factor})


def _new_connections_while(
    attack: Callable[[subprocess.Popen[str], list[int]], None], target: Target, *, from_the_start: bool = False
) -> Found:
    """Connect to two workers again and again, until the one that the attack ended has been replaced."""
    seen: Counter[str] = Counter()
    over = threading.Event()

    def connect(port: int) -> None:
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    connection.sendall(_PREFACE)
                    seen["answered" if connection.recv(9) else "lost"] += 1
            except OSError:
                seen["lost"] += 1

    with _two_workers() as (parent, port, said):
        workers = _children(parent.pid)
        clients = [threading.Thread(target=connect, args=(port,)) for _ in range(4)]
        if not from_the_start:
            attack(parent, workers)
        for client in clients:
            client.start()
        if from_the_start:
            attack(parent, workers)
        while not set(_children(parent.pid)) - set(workers) and parent.poll() is None:
            time.sleep(0.05)
        time.sleep(target.seconds)
        over.set()
        for client in clients:
            client.join()
    return Found({**seen, "lost": seen["lost"], "said": said[-1:]}, {"lost": 0})


@contextlib.contextmanager
def _two_workers() -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """Serve by two workers without an encoder; yield the parent process, its port, and what it writes to stderr."""
    said: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder, "policy.yaml")
        policy.write_text(_POLICY, "utf-8")
        argv = [sys.executable, "-c", "from router.cli.main import main; main()", "serve", "--port", "0"]
        argv += ["--workers", "2", "--policy", str(policy), "--drain-delay-s", "0", "--drain-s", str(_DRAIN_S)]
        argv += ["--worker-timeout-s", str(_SILENT_S)]
        parent = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        reader = threading.Thread(target=lambda: said.extend(parent.stderr or ()))
        reader.start()
        try:
            ends = time.monotonic() + 120
            while not (found := re.search(r"serving on \S+:(\d+)", "".join(said))):
                if parent.poll() is not None or time.monotonic() > ends:
                    raise RuntimeError(f"the service did not start: {''.join(said)[-2000:]}")
                time.sleep(0.05)
            yield parent, int(found[1]), said
        finally:
            parent.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                parent.wait(30)
            parent.kill()
            parent.wait()
            reader.join()


def _children(pid: int) -> list[int]:
    """Return the worker processes of a parent, oldest first."""
    found = (
        int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()
    )
    return sorted(child for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text())


ATTACKS = (hangups, killed_worker, leaving_worker, stopped_worker, stopped_worker_at_the_end)
QUICK = (hangups,)
