"""Run the service that is attacked and the caller beside it, and send what attackers send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import yaml

from benchmarks.attack.courtesy import step_back
from benchmarks.attack.machine import Noise
from benchmarks.bench_http import process, write_policy

#: How much longer another caller may wait at the 99th percentile, in milliseconds: the limit of issue 14.
EXTRA_P99_MS = 20.0

#: How much the memory of the service may grow while it is attacked. The budget of bytes in flight is 256 MB.
GROWN_MB = 512.0

SERVICE = "/elle.router.v1.RouterService/"

#: Statuses that say that the service, and not the request, is at fault.
OUR_FAULT = frozenset({"500", "502", "INTERNAL", "UNKNOWN"})


@dataclass(frozen=True)
class Found:
    """Holds what an attack measured; no number of `measured` may be above the limit of the same name in `limits`."""

    measured: dict[str, Any]
    limits: dict[str, float]

    @property
    def kept(self) -> bool:
        """True if no limit was broken."""
        return not self.broken

    @property
    def broken(self) -> dict[str, Any]:
        """Return what was measured above its limit."""
        return {name: self.measured[name] for name, limit in self.limits.items() if self.measured[name] > limit}


@dataclass(frozen=True, slots=True)
class Call:
    """Describes a call of the other caller: when it began, its seconds, what the service worked meanwhile, its status.

    `worked_s` are seconds of processor time, of all threads of the service.
    """

    began: float
    took_s: float
    status: str
    worked_s: float


@dataclass
class Target:
    """Describes a running service, and what attackers need to know of it.

    Attributes:
        grpc: host and port.
        http: host and port of the HTTP door.
        pid: of the service.
        seconds: how long an attack that repeats itself lasts.
        factor: how much wider the limits on time are.
    """

    grpc: str
    http: str
    pid: int
    seconds: float
    factor: float
    calls: list[Call] = field(default_factory=list)

    def attacked_by(
        self, action: Callable[[], str], *, at_once: int = 1, grown_mb: float = GROWN_MB, **limits: float
    ) -> Found:
        """Repeat an action, which returns the status it was answered with, and watch the other caller and the memory.

        at_once: how many threads repeat it.
        limits: further ones, on `answered_ms` for instance: the longest that an action took.
        """
        calm, noise = self._calm(), Noise()
        before, began = self.rss_mb(), time.monotonic()
        statuses: Counter[str] = Counter()
        longest, height = 0.0, before
        ends = began + self.seconds

        def repeat() -> None:
            nonlocal longest
            while True:
                started = time.monotonic()
                statuses[action()] += 1
                longest = max(longest, time.monotonic() - started)
                if time.monotonic() >= ends:
                    return

        with ThreadPoolExecutor(at_once, initializer=step_back) as pool:
            running = [pool.submit(repeat) for _ in range(at_once)]
            while not all(one.done() for one in running):
                height = max(height, self.rss_mb())
                time.sleep(0.05)
            for one in running:
                one.result()
        measured = {
            **_compared(calm, self.during(began, time.monotonic())),
            "stolen": noise.stolen(),
            "other_callers_refused": sum(call.status != "OK" for call in self.calls),
            "grown_mb": round(height - before, 1),
            "answered_ms": round(longest * 1e3, 1),
            "statuses": dict(statuses),
            "our_fault": sum(statuses[status] for status in OUR_FAULT),
        }
        bounds = {"extra_p99_ms": EXTRA_P99_MS * self.factor, "other_callers_refused": 0, "grown_mb": grown_mb}
        return Found(measured, {**bounds, "our_fault": 0, **limits})

    def _calm(self) -> list[Call]:
        self.calls.clear()
        began = time.monotonic()
        time.sleep(max(0.3, self.seconds / 4))
        return self.during(began, time.monotonic())

    def during(self, begin: float, end: float) -> list[Call]:
        """Return each call that the other caller began in this time; a call under way is awaited."""
        give_up = time.monotonic() + 120
        while time.monotonic() < give_up and not (self.calls and self.calls[-1].began > end):
            time.sleep(0.02)
        return [call for call in self.calls if begin <= call.began <= end]

    def waits(self, begin: float, end: float) -> list[float]:
        """Return the seconds of each call that the other caller began in this time."""
        return [call.took_s for call in self.during(begin, end)]

    def rss_mb(self) -> float:
        """Return the resident memory of the service in MB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096 / 1e6

    def alive(self) -> bool:
        """Return whether the service still answers."""
        return self.post({"model": "elle/default", "messages": [{"role": "user", "content": "hello"}]}) == "200"

    def post(
        self,
        body: bytes | dict[str, Any],
        read: Callable[[http.client.HTTPResponse], object] = http.client.HTTPResponse.read,
        **headers: str,
    ) -> str:
        """Send one chat over HTTP on a connection of its own; return the status, or `closed` if the service hung up.

        read: reads the answer, or as much of it as the caller wants.
        """
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection(self.http, timeout=120)
        try:
            connection.request("POST", "/v1/chat/completions", raw, {"content-type": "application/json", **headers})
            reply = connection.getresponse()
            read(reply)
        except (OSError, http.client.HTTPException):
            return "closed"
        else:
            return str(reply.status)
        finally:
            connection.close()

    def call(self, message: bytes, method: str = SERVICE + "Route", *, gzip: bool = False) -> str:
        """Make one gRPC call with these bytes as its message, and return the status."""
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        packing = grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression
        with grpc.insecure_channel(self.grpc, options=options) as channel:
            return status_of(lambda: channel.unary_unary(method)(message, timeout=120, compression=packing))

    def connect(self, where: str | None = None) -> socket.socket:
        """Open a connection to the HTTP door, or to the gRPC door with `where=target.grpc`."""
        host, _, port = (where or self.http).rpartition(":")
        return socket.create_connection((host, int(port)), timeout=60)


@contextlib.contextmanager
def attacked_service(*, seconds: float, factor: float) -> Iterator[Target]:
    """Run a service with every door in a process of its own, and the other caller in another one."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        log = stack.enter_context(Path(folder, "service.log").open("w+", encoding="utf-8"))
        serve = "from router.cli.main import main; main()"
        upstream = stack.enter_context(process("-m", "benchmarks.bench_http", "--upstream"))["http"]
        hostile = stack.enter_context(process("-m", "benchmarks.attack.hostile_upstream"))["http"]
        policies = (write_policy(Path(folder), upstream), write_hostile_policy(Path(folder), hostile))
        argv = [sys.executable, "-c", serve, "serve", "--port", "0", "--http", "0"]
        argv += [word for policy in policies for word in ("--policy", str(policy))]
        service = stack.enter_context(subprocess.Popen([*argv, *_ext_proc()], stderr=log))
        stack.callback(service.terminate)
        grpc_at, http_at = _addresses(service, Path(folder, "service.log"))
        target = Target(grpc_at, http_at, service.pid, seconds, factor)
        # The first answer waits until what answers is imported, which takes all processors that are there.
        if not target.alive():
            raise RuntimeError("the service does not answer before it is attacked")
        other = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.attack.victim", grpc_at, str(service.pid)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        reading = threading.Thread(target=_read, args=(other, target))
        reading.start()
        stack.callback(reading.join)
        stack.callback(other.communicate)
        yield target


def write_hostile_policy(folder: Path, upstream_url: str) -> Path:
    """Write a policy whose candidates are answered by the hostile upstream; a request names the one that it wants."""
    # The family needs the target too.
    from benchmarks.attack.families.upstreams import candidates

    offered = list(candidates(upstream_url))
    first = offered[0]["name"]
    policy = {
        "schema": "elle.policy/1",
        "name": "hostile",
        "candidates": offered,
        "rule": {"kind": "fixed", "candidate": first},
        "safe_default": first,
    }
    path = folder / "hostile.yaml"
    path.write_text(yaml.safe_dump(policy), "utf-8")
    return path


def _ext_proc() -> tuple[str, ...]:
    try:
        import envoy.service.ext_proc.v3  # noqa: F401
    except ImportError:
        return ()
    return ("--ext-proc",)


def _addresses(service: subprocess.Popen[Any], log: Path) -> tuple[str, str]:
    ends = time.monotonic() + 120
    while time.monotonic() < ends and service.poll() is None:
        said = log.read_text("utf-8").splitlines()
        found = {line.split()[-1] for line in said if line.startswith(("serving", "OpenAI's API"))}
        http_at = next((at for at in found if at.startswith("http://")), None)
        grpc_at = next((at for at in found if not at.startswith("http://")), None)
        if http_at and grpc_at:
            return grpc_at, http_at.split("/")[2]
        time.sleep(0.05)
    raise RuntimeError(f"the service did not start: {log.read_text('utf-8')[-2000:]}")


def _read(other: subprocess.Popen[str], target: Target) -> None:
    for line in other.stdout or ():
        if not line.endswith("\n"):
            return
        began, took, status, worked = line.split()
        target.calls.append(Call(float(began), float(took), status, float(worked)))


def _compared(calm: list[Call], attacked: list[Call]) -> dict[str, float]:
    """Return how long the other caller waited, and how much the service worked meanwhile, without and with an attack.

    Where neighbours take processors, it is the work that tells what an attack does.
    """
    waits = [p99_ms([call.took_s for call in calls]) for calls in (calm, attacked)]
    work = [p99_ms([call.worked_s for call in calls]) for calls in (calm, attacked)]
    return {
        "calm_p99_ms": waits[0],
        "attacked_p99_ms": waits[1],
        "extra_p99_ms": round(max(0.0, waits[1] - waits[0]), 2),
        "calm_work_p99_ms": work[0],
        "attacked_work_p99_ms": work[1],
    }


def status_of(call: Callable[[], object]) -> str:
    """Return the status of a gRPC call."""
    try:
        call()
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def p99_ms(seconds: list[float]) -> float:
    """Return the 99th percentile in milliseconds, which is the longest of fewer than a hundred."""
    ordered = sorted(seconds) or [0.0]
    return round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] * 1e3, 2)
