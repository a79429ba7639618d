"""Measure what the ledger costs a service, in SQLite and in PostgreSQL, interleaved; print JSON.

    python -m benchmarks.bench_ledger [--rounds 30] [--seconds 2]

Three services with one encoder thread each run side by side: without a ledger, with SQLite, and with PostgreSQL (left
out if the machine has none). In every round each of them in turn, in random order, decides new prompts as fast as it
can for some seconds, so that a noisy machine slows all alike. Every prompt is new, so each is encoded.

- `throughput_cost`: 1 - decisions a second with the ledger / without, paired by round: the median over rounds with its
  95 % bootstrap interval;
- `cpu_cost`: CPU seconds of the process per decision with the ledger / without - 1, over all rounds; what else the
  machine does changes it little;
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
from dataclasses import dataclass, field
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


@dataclass
class Served:
    """One service, and what was measured of it."""

    name: str
    address: str
    pid: int
    ledger: LedgerSettings | None
    rates: list[float] = field(default_factory=list)
    n_decided: int = 0
    cpu_s: float = 0.0


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-", dir="/var/tmp") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o755)
        (root / "key").write_text("0" * 32)
        places = {"sqlite": str(root / "ledger.db")}
        if not missing():
            places["postgresql"] = stack.enter_context(running_postgres()).url
        services = [stack.enter_context(served("none", None))]
        for name, place in places.items():
            settings = LedgerSettings(place, key_file=root / "key", spool_dir=root / f"spool-{name}")
            services.append(stack.enter_context(served(name, settings)))
        asyncio.run(measure(services, asked.rounds, asked.seconds))
        figures = {one.name: figures_of(one, services[0]) for one in services}
    print(json.dumps({"commit": commit(), **hardware(), "rounds": asked.rounds, "services": figures}, indent=2))


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


async def measure(services: list[Served], rounds: int, seconds: float) -> None:
    """Ask each service in every round, in random order."""
    numbers = itertools.count()
    order = random.Random(0)
    clients = {one.name: AsyncRouterClient(one.address) for one in services}
    for turn in range(rounds + 1):
        for one in order.sample(services, len(services)):
            before, started = cpu_s(one.pid), time.perf_counter()
            ends = started + seconds
            counts = await asyncio.gather(*(ask(clients[one.name], numbers, ends) for _ in range(_CONCURRENCY)))
            elapsed = time.perf_counter() - started
            # The writer works on for a moment, and that belongs to these decisions.
            await asyncio.sleep(0.3)
            one.n_decided += sum(counts)
            if turn:  # The first round warms up.
                one.rates.append(sum(counts) / elapsed)
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


def figures_of(one: Served, plain: Served) -> dict[str, Any]:
    """Return the figures of a service, compared with that without a ledger."""
    figures: dict[str, Any] = {"decisions_per_s": round(float(np.median(one.rates)), 1)}
    if one.ledger is None:
        return figures
    with opened_reader(one.ledger) as reader:
        lost = one.n_decided - reader.count()
    ratios = 1 - np.array(one.rates) / np.array(plain.rates)
    cost = bootstrap(lambda sample: float(np.median(sample)), ratios)
    per_decision = [a.cpu_s / sum(a.rates) for a in (one, plain)]
    return figures | {
        "throughput_cost": [round(value, 4) for value in (cost.value, cost.low, cost.high)],
        "cpu_cost": round(per_decision[0] / per_decision[1] - 1, 4),
        "most": MOST_COST[one.name],
        "lost": lost,
    }


if __name__ == "__main__":
    main()
