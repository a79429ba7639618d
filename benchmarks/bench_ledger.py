"""Measure what the ledger costs a service, in SQLite and in PostgreSQL, by turning it on and off; print JSON.

    python -m benchmarks.bench_ledger [--starts 3] [--rounds 20] [--seconds 0.75] [--only sqlite]

A service with one encoder thread runs for each database (PostgreSQL is left out if the machine has none). In every
round each of them decides new prompts as fast as it can for some seconds with its ledger, without it, and without it
again, in random order. Without it means that the ledger of the running process is told of no decision: two processes of
the very same service differ by some percent for as long as they run, depending on where their memory lies, so that the
ledger's cost could not be told from that. Every prompt is new, so each is encoded. Client, service and database share
the machine. Services are started anew several times.

- `throughput_cost`: 1 - decisions a second with the ledger / without, the geometric mean of both parts without it, as
  the median over rounds with its 95 % bootstrap interval, because a neighbour makes single rounds a multiple slower;
- `cpu_cost`: CPU seconds of the service and of the database's processes per decision with the ledger / without - 1, in
  the same way;
- `cpu_us`: CPU microseconds per decision of the ledger's thread, and of the database's processes;
- `same`: the first two figures of the rounds without the ledger against the others without it, which say how well the
  costs can be told from 0;
- `lost`: decisions that were answered with the ledger on and are not in it at the end. It must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
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
from benchmarks.serve.processes import cpu_s, thread_s, tree_s
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


#: What a service does with its ledger in a part of a round.
_MODES = ("on", "off", "off again")

#: A service whose ledger is told of decisions from SIGUSR1 on, and not from SIGUSR2 on. Its threads have their names.
_SWITCHED = """
import ctypes, signal, threading
from router.cli.main import main
from router.ledger.recorder import Ledger
decided, start, is_on = Ledger.decided, threading.Thread.run, [False]
def run(thread):
    ctypes.CDLL(None).prctl(15, thread.name.encode()[:15], 0, 0, 0)
    start(thread)
Ledger.decided = lambda ledger, event: decided(ledger, event) if is_on[0] else None
threading.Thread.run = run
signal.signal(signal.SIGUSR1, lambda *_: is_on.__setitem__(0, True))
signal.signal(signal.SIGUSR2, lambda *_: is_on.__setitem__(0, False))
main()
"""


@dataclass
class Part:
    """Holds what was measured of one service in one mode in one round."""

    n_decided: int
    seconds: float
    service_s: float
    ledger_s: float
    database_s: float

    @property
    def per_s(self) -> float:
        """Return the decisions a second."""
        return self.n_decided / self.seconds

    @property
    def cpu_per_decision_s(self) -> float:
        """Return the CPU seconds that service and database together take for one decision."""
        return (self.service_s + self.database_s) / self.n_decided


@dataclass
class Served:
    """One service, and what was measured of it."""

    name: str
    address: str
    pid: int
    ledger: LedgerSettings
    database: int | None
    rounds: list[dict[str, Part]] = field(default_factory=list)
    n_recorded: int = 0
    lost: int = 0

    def used(self) -> tuple[float, float, float]:
        """Return the CPU seconds so far: of the service, of its ledger's thread, and of the database's processes."""
        return cpu_s(self.pid), thread_s(self.pid, "ledger"), tree_s(self.database) if self.database else 0.0


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.75)
    parser.add_argument("--only", choices=MOST_COST, help="leave the other database out")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-ledger-", dir="/var/tmp") as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        root.chmod(0o755)
        (root / "key").write_text("0" * 32)
        places: dict[str, tuple[str, int | None]] = {}
        if asked.only != "postgresql":
            places["sqlite"] = str(root / "ledger.db"), None
        if asked.only != "sqlite" and not missing():
            server = stack.enter_context(running_postgres())
            assert server.process is not None  # noqa: S101
            places["postgresql"] = server.url, server.process.pid
        starts = [one_start(places, root, asked.rounds, asked.seconds, n) for n in range(asked.starts)]
    figures = {name: figures_of(name, [one[name] for one in starts]) for name in places}
    print(
        json.dumps({"commit": commit(), **hardware(), "load_before": load, **vars(asked), "ledgers": figures}, indent=2)
    )


def one_start(
    places: dict[str, tuple[str, int | None]], root: Path, rounds: int, seconds: float, number: int
) -> dict[str, Served]:
    """Start all services, measure them, stop them, and return them by name."""
    with contextlib.ExitStack() as stack:
        services, before = [], {}
        for name, (place, database) in places.items():
            settings = LedgerSettings(place, key_file=root / "key", spool_dir=root / f"spool-{name}")
            services.append(stack.enter_context(served(name, settings, database)))
            before[name] = rows_in(settings)
        asyncio.run(measure(services, rounds, seconds, random.Random(number)))
        for one in services:
            one.lost = one.n_recorded - (rows_in(one.ledger) - before[one.name])
    return {one.name: one for one in services}


def rows_in(settings: LedgerSettings) -> int:
    """Return how many decisions a ledger holds."""
    with opened_reader(settings) as reader:
        return reader.count()


@contextlib.contextmanager
def served(name: str, ledger: LedgerSettings, database: int | None) -> Iterator[Served]:
    """Run a service whose ledger is turned on by SIGUSR1 and off by SIGUSR2."""
    command = [sys.executable, "-c", _SWITCHED, "serve", "--port", "0", "--threads", "1", "--drain-delay-s", "0"]
    command += ["--ledger-key", str(ledger.key_file), "--ledger-spool", str(ledger.spool_dir)]
    environment = {**os.environ, "ELLE_LEDGER": ledger.place}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None  # noqa: S101
    try:
        for line in process.stderr:
            if found := re.search(r"serving .* on (\S+)", line):
                yield Served(name, found[1], process.pid, ledger, database)
                break
    finally:
        process.terminate()
        process.wait(30)


async def measure(services: list[Served], rounds: int, seconds: float, order: random.Random) -> None:
    """Ask each service in each mode in every round, in random order."""
    clients = {one.name: AsyncRouterClient(one.address) for one in services}
    # The first round warms up.
    for turn in range(rounds + 1):
        parts: dict[str, dict[str, Part]] = {one.name: {} for one in services}
        wanted = [(one, mode) for one in services for mode in _MODES]
        for one, mode in order.sample(wanted, len(wanted)):
            os.kill(one.pid, signal.SIGUSR1 if mode == "on" else signal.SIGUSR2)
            await asyncio.sleep(0.05)
            before, started = one.used(), time.perf_counter()
            ends = started + seconds
            counts = await asyncio.gather(*(ask(clients[one.name], _numbers, ends) for _ in range(_CONCURRENCY)))
            elapsed = time.perf_counter() - started
            # The writer works on for a moment, and that belongs to these decisions.
            await asyncio.sleep(0.4)
            spent = [now - then for now, then in zip(one.used(), before, strict=True)]
            parts[one.name][mode] = Part(sum(counts), elapsed, *spent)
            one.n_recorded += sum(counts) if mode == "on" else 0
        if turn:
            for one in services:
                one.rounds.append(parts[one.name])
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


def figures_of(name: str, starts: list[Served]) -> dict[str, Any]:
    """Return the figures of a ledger."""
    rounds = [one for start in starts for one in start.rounds]
    n_recorded = sum(one["on"].n_decided for one in rounds)
    figures: dict[str, Any] = {
        f"decisions_per_s_{mode}": round(
            sum(one[mode].n_decided for one in rounds) / sum(one[mode].seconds for one in rounds), 1
        )
        for mode in ("on", "off")
    }
    figures |= costs(rounds, "on")
    figures["cpu_us"] = {
        "thread": round(sum(one["on"].ledger_s for one in rounds) / n_recorded * 1e6, 1),
        "database": round(sum(one["on"].database_s for one in rounds) / n_recorded * 1e6, 1),
    }
    return {
        **figures,
        "same": costs(rounds, "off again"),
        "most": MOST_COST[name],
        "lost": sum(one.lost for one in starts),
    }


def costs(rounds: list[dict[str, Part]], mode: str) -> dict[str, list[float]]:
    """Return what a mode costs against those without the ledger: of throughput and computing time, with intervals."""
    others = [[one[name] for name in _MODES if name not in {"on", mode}] for one in rounds]
    slower = [
        _mean_log([one[mode].per_s / other.per_s for other in off]) for one, off in zip(rounds, others, strict=True)
    ]
    more = [
        _mean_log([one[mode].cpu_per_decision_s / other.cpu_per_decision_s for other in off])
        for one, off in zip(rounds, others, strict=True)
    ]
    return {"throughput_cost": _median_cost(slower, -1), "cpu_cost": _median_cost(more, 1)}


def _mean_log(ratios: list[float]) -> float:
    return float(np.mean(np.log(ratios)))


def _median_cost(logs: list[float], sign: int) -> list[float]:
    """Return the median of ratios as a cost with its interval; `sign` is -1 if smaller ratios are worse."""
    found = bootstrap(lambda sample: sign * math.expm1(float(np.median(sample))), np.array(logs))
    return [round(value, 4) for value in (found.value, found.low, found.high)]


if __name__ == "__main__":
    main()
