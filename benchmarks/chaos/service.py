"""Run the service that is broken: start it, start it again, and find its workers (`Service`)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import grpc
import yaml

from benchmarks.bench_http import EXAMPLE_POLICY
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.policy_file import read_policy_file

WORKERS = 2

#: Seconds of silence after which the parent replaces a worker.
WORKER_TIMEOUT_S = 3

#: Policies by name: one that answers if the encoder fails, one that refuses, and one whose versions take turns.
DEFAULT, STRICT, TURNS = "default", "strict", "turns"


class Service:
    """Describes a service in a process of its own.

    Args:
        folder: where its policies and its log are.
        upstream: the URL of what answers.
        ledger: the path or URL of the ledger.
        spool: the folder of the ledger's spool.
        env: further variables of its environment.

    Attributes:
        address: host and port of gRPC.
        http: host and port of the HTTP door.
        first: the weakest candidate, which the even versions choose.
        starts: how often it was started. It ends if its ports are not free yet.
        known: the candidate that each digest of a policy chooses, or None if it depends on the prompt.
    """

    def __init__(
        self, folder: Path, upstream: str, ledger: str, spool: Path, env: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self.ledger = folder, ledger
        self.address, self.http = (f"127.0.0.1:{_free_port()}" for _ in range(2))
        self.encoder_fault = folder / "encoder-fails"
        self.known: dict[str, str | None] = {}
        self._policy = yaml.safe_load(EXAMPLE_POLICY.read_text("utf-8"))
        self.first = str(self._policy["candidates"][0]["name"])
        for candidate in self._policy["candidates"]:
            # The seconds for which a candidate rests that has failed often: less than the 5 s of the limit.
            candidate |= {"api_base": upstream, "cooldown_s": 2.0}
        files = [self._write(DEFAULT, {}), self._write(STRICT, {"failure_mode": "error"}), self.turn(0)]
        self._argv = [sys.executable, "-m", "benchmarks.chaos.server", "serve", "--watch", "--drain-delay-s", "0.2"]
        self._argv += ["--port", self.address.partition(":")[2], "--http", self.http.partition(":")[2]]
        self._argv += ["--workers", str(WORKERS), "--worker-timeout-s", str(WORKER_TIMEOUT_S)]
        self._argv += ["--ledger-key", str(folder / "key"), "--ledger-spool", str(spool)]
        self._argv += [word for file in files for word in ("--policy", str(file))]
        (folder / "key").write_text("0123456789abcdef" * 4)
        (folder / "key").chmod(0o600)
        self._env = {**os.environ, **(env or {}), "ELLE_LEDGER": ledger, "ELLE_CHAOS_ENCODER": str(self.encoder_fault)}
        self._process: subprocess.Popen[bytes] | None = None
        self.starts = 0

    @property
    def log(self) -> Path:
        """Return the file of its log."""
        return self.folder / "service.log"

    @property
    def turns_file(self) -> Path:
        """Return the file of the policy whose versions take turns."""
        return self.folder / f"{TURNS}.yaml"

    def turn(self, number: int) -> Path:
        """Write a version of the policy whose versions take turns; the odd ones choose the stronger candidate."""
        names = [candidate["name"] for candidate in self._policy["candidates"]]
        rule = {"kind": "fixed", "candidate": names[number % 2]}
        return self._write(TURNS, {"version": f"t{number}", "rule": rule})

    def start(self, old: Sequence[int] = ()) -> None:
        """Start the service as a supervisor does: again if it ends, until it serves and no old worker listens."""
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            if self._process is None or self._process.poll() is not None:
                self.starts += 1
                with self.log.open("ab") as log:
                    self._process = subprocess.Popen(self._argv, stderr=log, env=self._env)
            if not any(self.listens(pid) for pid in old) and self.asked():
                return
            time.sleep(0.1)
        raise RuntimeError(f"the service did not start: {self.log.read_text('utf-8', 'replace')[-2000:]}")

    def stop(self) -> None:
        """Stop the service and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Kill the parent process, as the kernel does when memory runs out."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        pid = self._process.pid if self._process is not None else 0
        found = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]

    def listeners(self) -> set[str]:
        """Return the sockets that listen on the port of gRPC, as `/proc/PID/fd` names them."""
        port = f":{int(self.address.partition(':')[2]):04X}"
        # gRPC listens on an IPv6 socket for addresses of IPv4 too.
        files = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        rows = [line.split() for file in files for line in file.read_text().splitlines()[1:]]
        return {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == "0A"}

    @property
    def is_whole(self) -> bool:
        """Return whether all workers of the service run and accept connections."""
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            workers = self.workers()
            return len(workers) == WORKERS and all(map(self.listens, workers))
        return False

    def listens(self, pid: int) -> bool:
        """Return whether a process listens on the port of gRPC."""
        sockets = self.listeners()
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(file.readlink()) in sockets:
                        return True
        return False

    def signal_worker(self, number: signal.Signals) -> None:
        """Send a signal to the first worker."""
        os.kill(self.workers()[0], number)

    def limit_files(self, more: int | None) -> None:
        """Let the workers open this many files more than they have open; None lets them open as many as they may."""
        for pid in self.workers():
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            soft = hard if more is None else len(list(Path(f"/proc/{pid}/fd").iterdir())) + more
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(soft, hard), hard))

    def asked(self, policy: str = TURNS, timeout_s: float = 1.0) -> str:
        """Ask for a decision on a new connection. Return the digest of its policy, or an empty text without one."""
        request = pb.RouteRequest(prompt="ready?")
        request.overrides.policy = policy
        with contextlib.suppress(grpc.RpcError), channel(self.address) as opened:
            reply = pb_grpc.RouterServiceStub(opened).Route(request, timeout=timeout_s)
            return str(reply.decision.policy.digest)
        return ""

    def _write(self, name: str, changes: Mapping[str, object]) -> Path:
        file = self.folder / f"{name}.yaml"
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump({**self._policy, "name": name, **changes}), "utf-8")
        rule = changes.get("rule")
        self.known[read_policy_file(new).digest] = rule["candidate"] if isinstance(rule, dict) else None
        new.replace(file)
        return file


def channel(address: str) -> grpc.Channel:
    """Open a connection that no other channel of this process shares."""
    return grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
