"""Measure what authentication, metrics and TLS cost in throughput, interleaved in one run; print JSON.

    python -m benchmarks.bench_overhead > overhead.json

Two services run side by side: one as it is, and one with what is measured. Rounds of load alternate between them, in an
order that changes, so that whatever else the machine does hits both alike. Each figure is a pair: that of the plain
service, and that of the other one. The prompt is the same each time, so with a
token the judgement comes from the cache of that caller: without the encoder nothing hides what the measured part costs.
The plain service gets an API key, for which it caches judgements too. `--new-prompts` sends a new prompt each time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.serve.processes import cpu_s
from probes.measures.bootstrap import bootstrap
from router.client import AsyncRouterClient

#: Calls that wait at the same time, and connections.
CONCURRENCY, CONNECTIONS = 16, 4


@contextlib.contextmanager
def service(options: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Run `elle serve` in a process of its own, whose log goes to a file. Yield its address and the process's id."""
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve", "--port", "0", *options]
    with tempfile.NamedTemporaryFile() as log, subprocess.Popen(command, stderr=log) as process:
        try:
            while not (found := re.search(r"serving .* on ([^\s\",]+)", _text(log.name))):
                if process.poll() is not None:
                    raise RuntimeError(f"the service did not start: {_text(log.name)}")
                time.sleep(0.1)
            yield found[1], process.pid
        finally:
            process.terminate()


def _text(path: str) -> str:
    return Path(path).read_text("utf-8")


async def throughput(address: str, key: str, seconds: float, *, new_prompts: bool) -> tuple[float, int]:
    """Return decisions a second over `seconds` of load, and their number."""
    done, numbers = 0, itertools.count()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncRouterClient(address, api_key=key)) for _ in range(CONNECTIONS)]
        ends = time.perf_counter() + seconds

        async def ask(client: AsyncRouterClient) -> None:
            nonlocal done
            while time.perf_counter() < ends:
                tail = f" {next(numbers)} {time.time_ns()}" if new_prompts else ""
                await client.route(f"What is the capital of France?{tail}")
                done += 1

        started = time.perf_counter()
        await asyncio.gather(*(ask(clients[number % CONNECTIONS]) for number in range(CONCURRENCY)))
        return done / (time.perf_counter() - started), done


def measure(
    services: tuple[tuple[str, int], tuple[str, int]], keys: tuple[str, str], asked: argparse.Namespace
) -> dict[str, object]:
    """Return throughput and computing time of both services, and by how much the second one is worse."""
    rates, cpu_ms = np.zeros((asked.rounds, 2)), np.zeros(2)
    decisions = np.zeros(2)
    for number in range(-1, asked.rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            address, pid = services[which]
            before = cpu_s(pid)
            rate, done = asyncio.run(throughput(address, keys[which], asked.seconds, new_prompts=asked.new_prompts))
            if number < 0:  # The first round warms up.
                continue
            rates[number, which] = rate
            cpu_ms[which] += 1000 * (cpu_s(pid) - before)
            decisions[which] += done
    lost = bootstrap(lambda r: float(1 - np.median(r[:, 1] / r[:, 0])), rates)
    cpu_ms /= decisions
    return {
        "per_s": [round(float(one), 1) for one in np.median(rates, axis=0)],
        "lost_share": [round(float(one), 4) for one in (lost.value, lost.low, lost.high)],
        "cpu_ms_per_decision": [round(float(one), 4) for one in cpu_ms],
        "more_cpu_share": round(float(cpu_ms[1] / cpu_ms[0] - 1), 4),
        "rounds": asked.rounds,
        "decisions": [int(one) for one in decisions],
    }


def main() -> None:
    """Read the command line and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--new-prompts", action="store_true")
    parser.add_argument("--no-tokens", action="store_true", help="Do not measure authentication.")
    parser.add_argument("options", nargs="*", help="Further options of `elle serve` that are measured, after --.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tokens = Path(folder) / "tokens.json"
        command = ["token", "create", "bench", "--tokens", str(tokens), "--strong-share", "0.99", "--beyond", "cheap"]
        made = subprocess.run(
            [sys.executable, "-c", "from router.cli.main import main; main()", *command, "--usd-per-day", "1e9"],
            capture_output=True,
            text=True,
            check=True,
        )
        own = [] if asked.no_tokens else ["--tokens", str(tokens)]
        services = stack.enter_context(service([])), stack.enter_context(service([*own, *asked.options]))
        found = measure(services, ("a-key-of-a-caller", made.stdout.strip()), asked)
    head = {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "measured": [*(["--tokens"] if own else []), *asked.options],
        "new_prompts": asked.new_prompts,
    }
    json.dump(head | found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
