"""Fuzz the doors: `python -m tests.fuzz --requests 1000000 --seed 1`, or `make fuzz-doors`.

Random requests, mostly well-formed, go to a real service on loopback through gRPC, HTTP and Envoy's protocol; its
candidates are answered by an upstream of this process, which says random things to one request in ten. No input may
cause a 5xx, INTERNAL, UNKNOWN or UNAVAILABLE, a
connection that breaks, an answer that is not JSON, a caller's long text given back whole, or a traceback in the log.
What does is made smaller and written to `--seeds`; the default tests send every seed again. Prints the counts as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from router.serving.http_server import serve_on_loopback
from tests.fuzz import cases
from tests.fuzz.answers import Upstream
from tests.fuzz.cases import Case
from tests.fuzz.doors import Doors, Ended, connected

SEEDS = Path(__file__).parent / "seeds"

#: Cases in flight; fewer than the service takes before it says that it is overloaded.
IN_FLIGHT = 8

#: Stands for the number of a stored case.
STORED = -1

#: Faults that are made smaller; more of a kind tell nothing new.
MAX_OF_A_KIND = 3


@contextlib.asynccontextmanager
async def service(upstream: Upstream, log: Path) -> AsyncIterator[dict[str, str]]:
    """Run a service in a process of its own before this upstream, and yield its addresses."""
    async with serve_on_loopback(upstream.app()) as upstream_url:
        with tempfile.TemporaryDirectory() as folder, log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.fuzz.service", folder, upstream_url),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
            assert process.stdout is not None
            assert process.stdin is not None
            try:
                line = await asyncio.wait_for(process.stdout.readline(), 120)
                if not line:
                    raise RuntimeError(f"the service did not start; see {log}")
                yield json.loads(line)
            finally:
                process.stdin.close()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 20)
                if process.returncode is None:
                    process.kill()
                    await process.wait()


class Run:
    """Holds one run of the fuzzer and what it found."""

    def __init__(self, doors: Doors, seeds: Path | None) -> None:
        self.statuses: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.examples: list[dict[str, Any]] = []
        self._doors, self._seeds = doors, seeds

    async def try_out(self, numbered: Iterator[tuple[int, Case]], ends: float) -> None:
        """Send these cases until they or the time end; stored ones in any case."""
        for number, case in numbered:
            if number != STORED and time.monotonic() > ends:
                return
            ended = await self._doors.send(case)
            where = (
                case["target"].partition("?")[0][:24] if case["door"] == "http" else case["method"].rpartition("/")[2]
            )
            self.statuses[
                f"{case['door']} {where} {ended.status}" if case["door"] == "grpc" else f"http {ended.status}"
            ] += 1
            if ended.fault:
                await self._found(number, case, ended)

    async def _found(self, number: int, case: Case, ended: Ended) -> None:
        kind = f"{case['door']} {case['method']} {ended.fault}"
        self.faults[kind] += 1
        if self.faults[kind] > MAX_OF_A_KIND:
            return
        case = await self._made_smaller(case, ended.fault)
        self.examples.append({"seed": number, "fault": kind, "detail": ended.detail, "case": case})
        print(json.dumps(self.examples[-1])[:2000], file=sys.stderr, flush=True)
        if self._seeds is not None:
            text = json.dumps(case, indent=1) + "\n"
            self._seeds.mkdir(parents=True, exist_ok=True)
            (self._seeds / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.json").write_text(text)

    async def _made_smaller(self, case: Case, fault: str) -> Case:
        ends = time.monotonic() + 20
        found = True
        while found and time.monotonic() < ends:
            found = False
            for less in cases.smaller(case):
                if time.monotonic() > ends:
                    break
                if (await self._doors.send(less)).fault == fault:
                    case, found = less, True
                    break
        return case


def stored() -> list[Case]:
    """Return the stored cases, which failed once."""
    return [json.loads(path.read_text()) for path in sorted(SEEDS.glob("*.json"))]


async def fuzz(n_requests: int, seed: int, *, seconds: float, seeds: Path | None, log: Path) -> dict[str, Any]:
    """Send the stored cases and a number of new ones, for a bounded time, and return the counts.

    Failures go to `seeds`.
    """
    started = time.monotonic()
    drawn = ((number, cases.draw(number)) for number in range(seed * 10**9, seed * 10**9 + n_requests))
    numbered = itertools.chain(((STORED, case) for case in stored()), drawn)
    upstream = Upstream()
    async with (
        service(upstream, log) as addresses,
        connected(addresses, upstream.answers, n_connections=2 * IN_FLIGHT) as doors,
    ):
        run, ends = Run(doors, seeds), time.monotonic() + seconds
        await asyncio.gather(*(run.try_out(numbered, ends) for _ in range(IN_FLIGHT)))
    return {
        "requests": run.statuses.total(),
        "seconds": round(time.monotonic() - started, 1),
        "faults": dict(run.faults),
        "examples": run.examples,
        "statuses": dict(sorted(run.statuses.items())),
    }


def tracebacks_in(log: Path) -> int:
    """Return how many tracebacks a log holds."""
    with log.open(errors="replace") as lines:
        return sum("Traceback" in line for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the doors.")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--seeds", type=Path, default=SEEDS, help="folder for the cases that fail")
    parser.add_argument("--log", type=Path, default=None, help="file for the service's log")
    given = parser.parse_args()
    log = given.log or Path(tempfile.mkstemp(suffix=".log", prefix="fuzz-")[1])
    report = asyncio.run(fuzz(given.requests, given.seed, seconds=given.seconds, seeds=given.seeds, log=log))
    report["tracebacks_in_log"] = tracebacks_in(log)
    print(json.dumps(report, indent=1))
    return int(bool(report["faults"] or report["tracebacks_in_log"]))


if __name__ == "__main__":
    sys.exit(main())
