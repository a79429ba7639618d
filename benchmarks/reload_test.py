"""Replace the policy of a real service a thousand times under load; print JSON, and exit with status 1 beyond a limit.

    python -m benchmarks.reload_test [--reloads 1000]

Two versions of the embedded policy, each with the probe that is loaded anew every time, take turns by SIGHUP. Four
callers ask for decisions and one for streamed answers, one after the other, all the time. Every decision must name a
version that was in force while it was made, no request may fail, and memory may not grow after the
first 250, while the libraries for answering are imported.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.processes import Server, serving
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.loading import DEFAULT_POLICY
from router.policies.policy_file import read_policy_file

SERVE = ("-c", "from router.cli.main import main; main()", "serve", "--port", "0", "--policy")

#: Share by which the resident memory may grow from the end of the warm-up to the last reload.
GROWTH = 0.05

#: Reloads before memory is first read, and callers who ask for decisions.
WARM_UP, CALLERS = 250, 4

#: Seconds within which a reload must be seen.
SEEN_S = 30.0


class Callers:
    """Ask one request after the other, and note the version that each decision names."""

    def __init__(self, address: str) -> None:
        self.latest, self.statuses, self.wrong = "", Counter[str](), 0
        self.in_force: set[str] = set()
        self._address = address

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        """Ask for as long as the context lasts."""
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = pb_grpc.RouterServiceStub(channel)
            ways = [self._decide] * CALLERS + [self._answer]
            tasks = [asyncio.create_task(self._for_ever(way, stub, number)) for number, way in enumerate(ways)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _for_ever(self, way: Callable[..., Awaitable[str]], stub: Any, number: int) -> None:
        for turn in range(sys.maxsize):
            allowed = set(self.in_force)
            try:
                digest = await way(stub, f"question {number} {turn}")
            except grpc.RpcError as error:
                self.statuses[error.code().name] += 1
                continue
            self.statuses["OK"] += 1
            self.wrong += digest not in allowed | self.in_force
            self.latest = digest

    @staticmethod
    async def _decide(stub: Any, prompt: str) -> str:
        return str((await stub.Route(pb.RouteRequest(prompt=prompt))).decision.policy.digest)

    @staticmethod
    async def _answer(stub: Any, prompt: str) -> str:
        call = stub.StreamComplete(pb.StreamCompleteRequest(route=pb.RouteRequest(prompt=prompt)))
        digest = ""
        async for message in call:
            digest = message.decision.policy.digest or digest
        return digest


async def reload(server: Server, policy: Path, n_reloads: int) -> dict[str, Any]:
    """Let two versions take turns, and return what was found."""
    texts = {}
    for name in ("one", "two"):
        file = policy.with_name(f"{name}.yaml")
        text = re.sub(r"^version: .*$", f"version: {name}", DEFAULT_POLICY.read_text("utf-8"), flags=re.MULTILINE)
        file.write_text(text, "utf-8")
        texts[read_policy_file(file).digest] = file.read_bytes()
    digests, took, memory = list(texts), [], {}
    callers = Callers(server.address)
    callers.in_force = {digests[0], read_policy_file(policy).digest}
    async with callers.calling():
        for number in range(1, n_reloads + 1):
            digest = digests[number % 2]
            policy.with_suffix(".new").write_bytes(texts[digest])
            policy.with_suffix(".new").replace(policy)
            callers.in_force = {*callers.in_force, digest}
            started = time.monotonic()
            os.kill(server.pids[0], signal.SIGHUP)
            while callers.latest != digest:
                await asyncio.sleep(0.001)
                if time.monotonic() - started > SEEN_S:
                    raise RuntimeError(f"reload {number} was not seen within {SEEN_S:g} s")
            took.append(time.monotonic() - started)
            # No request that begins from now on may see the version before.
            callers.in_force = {digest}
            if number in (WARM_UP, n_reloads) or number % 250 == 0:
                memory[number] = round(server.rss_mb(), 1)
    ordered = sorted(took)
    first, last = memory.get(WARM_UP, 0.0), memory[n_reloads]
    return {
        "reloads": n_reloads,
        "calls": dict(callers.statuses),
        "decisions_of_another_version": callers.wrong,
        "seen_after_s": {"p50": round(ordered[len(ordered) // 2], 3), "max": round(ordered[-1], 3)},
        "rss_mb_after_reload": memory,
        "met": {
            "no_call_failed": set(callers.statuses) == {"OK"},
            "no_other_version": callers.wrong == 0,
            "memory": last <= first * (1 + GROWTH),
        },
    }


def main() -> None:
    """Run the test and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--reloads", type=int, default=1000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_bytes(DEFAULT_POLICY.read_bytes())
        with serving((*SERVE, str(policy)), env={"OMP_NUM_THREADS": "1"}) as server:
            found = asyncio.run(reload(server, policy, max(WARM_UP, asked.reloads)))
    print(json.dumps({"commit": commit(), "hardware": hardware(), **found}, indent=2))
    sys.exit(0 if all(found["met"].values()) else 1)


if __name__ == "__main__":
    main()
