"""Measure what the ledger costs a service, in SQLite and in PostgreSQL, interleaved; print JSON.

    python -m benchmarks.bench_ledger [--starts 6] [--rounds 6] [--seconds 1.5]

Three services with one encoder thread each run side by side: without a ledger, with SQLite, and with PostgreSQL (left
out if the machine has none). In every round each of them in turn, in random order, decides new prompts as fast as it
can for some seconds, so that a noisy machine slows all alike. Every prompt is new, so each is encoded. All services are
started anew several times, because two processes of the very same service differ by some percent for as long as they
run, depending on where their memory lies. So a start is the unit of the intervals, and not a round.

- `throughput_cost`: 1 - decisions a second with the ledger / without, of all rounds of a start: the mean over starts
  with its 95 % bootstrap interval;
- `cpu_cost`: CPU seconds of the process per decision with the ledger / without - 1, in the same way;
- `same`: both figures of a second service without a ledger, which say how well the others can be told from 0;
- `lost`: decisions that were answered and are not in the ledger at the end. It must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.processes import cpu_s
from probes.measures.bootstrap import bootstrap
from router.client import AsyncRouterClient
from router.ledger.opening import opened_reader
from router.ledger.settings import LedgerSettings
from tests.postgres import missing, running_postgres

#: The limits of issue 20.
MOST_COST = {"sqlite": 0.03, "postgresql": 0.05}

_CONCURRENCY = 8

#: Makes every prompt a new one.
_numbers = itertools.count()


@dataclass
class Served:
    """One service, and what was measured of it."""

    name: str
    address: str
    pid: int
    ledger: LedgerSettings | None
    seconds: float = 0.0
    n_counted: int = 0
    n_decided: int = 0
    cpu_s: float = 0.0
    lost: int = 0

    @property
    def per_s(self) -> float:
        """Return the decisions a second."""
        return self.n_counted / self.seconds

    @property
    def cpu_per_decision_s(self) -> float:
        """Return the computing time of the process per decision in seconds."""
        return self.cpu_s / self.n_counted


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--starts", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=1.5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-", dir="/var/tmp") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o755)
        (root / "key").write_text("0" * 32)
        places = {"sqlite": str(root / "ledger.db")}
        if not missing():
            places["postgresql"] = stack.enter_context(running_postgres()).url
        starts = [one_start(places, root, asked.rounds, asked.seconds, n) for n in range(asked.starts)]
    figures = {name: figures_of(name, starts) for name in starts[0]}
    print(json.dumps({"commit": commit(), **hardware(), **vars(asked), "services": figures}, indent=2))


def one_start(places: dict[str, str], root: Path, rounds: int, seconds: float, number: int) -> dict[str, Served]:
    """Start all services, measure them, stop them, and return them by name."""
    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(served(name, None)) for name in ("none", "same")]
        before = {}
        for name, place in places.items():
            settings = LedgerSettings(place, key_file=root / "key", spool_dir=root / f"spool-{name}")
            services.append(stack.enter_context(served(name, settings)))
            before[name] = rows_in(settings)
        asyncio.run(measure(services, rounds, seconds, random.Random(number)))
        for one in services:
            if one.ledger is not None:
                one.lost = one.n_decided - (rows_in(one.ledger) - before[one.name])
    return {one.name: one for one in services}


def rows_in(settings: LedgerSettings) -> int:
    """Return how many decisions a ledger holds."""
    with opened_reader(settings) as reader:
        return reader.count()


@contextlib.contextmanager
def served(name: str, ledger: LedgerSettings | None) -> Iterator[Served]:
    """Run a service as its user would."""
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve", "--port", "0"]
    command += ["--threads", "1", "--drain-delay-s", "0"]
    environment = dict(os.environ)
    if ledger is not None:
        command += ["--ledger-key", str(ledger.key_file), "--ledger-spool", str(ledger.spool_dir)]
        environment["ELLE_LEDGER"] = ledger.place
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None  # noqa: S101
    try:
        for line in process.stderr:
            if found := re.search(r"serving .* on (\S+)", line):
                yield Served(name, found[1], process.pid, ledger)
                break
    finally:
        process.terminate()
        process.wait(30)


async def measure(services: list[Served], rounds: int, seconds: float, order: random.Random) -> None:
    """Ask each service in every round, in random order."""
    clients = {one.name: AsyncRouterClient(one.address) for one in services}
    for turn in range(rounds + 1):
        for one in order.sample(services, len(services)):
            before, started = cpu_s(one.pid), time.perf_counter()
            ends = started + seconds
            counts = await asyncio.gather(*(ask(clients[one.name], _numbers, ends) for _ in range(_CONCURRENCY)))
            elapsed = time.perf_counter() - started
            # The writer works on for a moment, and that belongs to these decisions.
            await asyncio.sleep(0.4)
            one.n_decided += sum(counts)
            if turn:  # The first round warms up.
                one.n_counted += sum(counts)
                one.seconds += elapsed
                one.cpu_s += cpu_s(one.pid) - before
    for client in clients.values():
        await client.close()


async def ask(client: AsyncRouterClient, numbers: Iterator[int], ends: float) -> int:
    """Let a service decide new prompts until the time is over. Return how many it decided."""
    count = 0
    while time.perf_counter() < ends:
        await client.route(
            f"Explain in two sentences how the number {next(numbers)} is written in base seven, and why."
        )
        count += 1
    return count


def figures_of(name: str, starts: list[dict[str, Served]]) -> dict[str, Any]:
    """Return the figures of a service, compared with that without a ledger."""
    figures: dict[str, Any] = {"decisions_per_s": round(float(np.median([one[name].per_s for one in starts])), 1)}
    if name == "none":
        return figures
    slower = [1 - one[name].per_s / one["none"].per_s for one in starts]
    more_cpu = [one[name].cpu_per_decision_s / one["none"].cpu_per_decision_s - 1 for one in starts]
    for key, values in (("throughput_cost", slower), ("cpu_cost", more_cpu)):
        cost = bootstrap(lambda sample: float(np.mean(sample)), np.array(values))
        figures[key] = [round(value, 4) for value in (cost.value, cost.low, cost.high)]
    if name in MOST_COST:
        figures |= {"most": MOST_COST[name], "lost": sum(one[name].lost for one in starts)}
    return figures


if __name__ == "__main__":
    main()
