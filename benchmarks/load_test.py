"""Test the real service under overload and over a long time; print JSON, and exit with status 1 beyond a limit.

    python -m benchmarks.load_test overload [--seconds 60] [--factor 3]
    python -m benchmarks.load_test soak [--decisions 200000]

Overload: the capacity is measured first, closed loop; then Poisson arrivals at nine tenths of it, then at so many times
it. Soak: so many decisions of prompts that never repeat within the cache's size, memory read throughout; nine batches
in ten are cut to their first words, because what may leak does so per decision, and time goes by tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.processes import Server, load, serving
from benchmarks.serve.prompts import read_prompts

SERVE = ("-c", "from router.cli.main import main; main()", "serve", "--port", "0")

#: Limits of issue 5.
REFUSED_P99_MS, ACCEPTED_FACTOR, GROWTH = 50.0, 2.0, 0.05

#: Characters of a prompt in the batches that are cut.
CUT = 100

#: Decisions before memory is first read: the cache is full and every length of prompt has been seen.
WARM_UP = 12_000

CONCURRENCY = 32


def main() -> None:
    """Run one of the two and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    kinds = parser.add_subparsers(dest="kind", required=True)
    over = kinds.add_parser("overload")
    over.add_argument("--seconds", type=float, default=60.0)
    over.add_argument("--factor", type=float, default=3.0)
    long = kinds.add_parser("soak")
    long.add_argument("--decisions", type=int, default=200_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.json"
        if asked.kind == "overload":
            file.write_text(json.dumps(read_prompts()), "utf-8")
            with serving((*SERVE, "--cache-entries", "0"), env=one_thread()) as server:
                found = overload(server, file, asked.seconds, asked.factor)
        else:
            with serving(SERVE, env=one_thread()) as server:
                found = soak(server, Path(folder), asked.decisions)
    print(json.dumps({"commit": commit(), "hardware": hardware(), **found}, indent=2))
    sys.exit(0 if all(found["met"].values()) else 1)


def overload(server: Server, prompts: Path, seconds: float, factor: float) -> dict[str, Any]:
    """Measure what happens at `factor` times the capacity."""
    capacity = load(server, prompts, "--concurrency", str(CONCURRENCY), "--seconds", "10")["per_second"]
    busy = load(server, prompts, "--rate", str(0.9 * capacity), "--seconds", str(seconds / 3))
    before = server.rss_mb()
    over = load(server, prompts, "--rate", str(factor * capacity), "--seconds", str(seconds))
    after = server.rss_mb()
    again = load(server, prompts, "--concurrency", "1", "--seconds", "3")
    return {
        "capacity_per_second": capacity,
        "at_nine_tenths": busy,
        "overloaded": over,
        "afterwards": again,
        "rss_mb": {"before": before, "after": after},
        "met": {
            "only_answers_and_refusals": set(over["statuses"]) == {"OK", "RESOURCE_EXHAUSTED"},
            "refused_p99_within_50_ms": over["refused_ms"].get("p99_ms", 0.0) <= REFUSED_P99_MS,
            "accepted_p99_within_twice_that_at_nine_tenths": over["p99_ms"] <= ACCEPTED_FACTOR * busy["p99_ms"],
            "memory_within_5_percent": after <= before * (1 + GROWTH),
            "answers_afterwards": set(again["statuses"]) == {"OK"},
        },
    }


def soak(server: Server, folder: Path, decisions: int) -> dict[str, Any]:
    """Measure the memory of the service over many decisions."""
    base, memory, done = read_prompts(), [], 0
    begun = time.perf_counter()
    number = 0
    while done < decisions:
        # Each batch has words of its own, so that nothing is answered from the cache.
        file = folder / "prompts.json"
        length = None if number % 10 == 0 else CUT
        file.write_text(json.dumps([f"{number} {place} {text[:length]}" for place, text in enumerate(base)]), "utf-8")
        found = load(server, file, "--concurrency", str(CONCURRENCY), "--calls", str(len(base)), "--seed", str(number))
        done += found["statuses"]["OK"]
        memory.append({"decisions": done, "rss_mb": found["rss_mb"]})
        number += 1
        if sys.stderr.isatty() or number % 10 == 0:
            print(f"soak: {done} of {decisions}, {memory[-1]['rss_mb']:.0f} MB", file=sys.stderr)
    warm = [one["rss_mb"] for one in memory if one["decisions"] >= min(WARM_UP, decisions / 2)]
    growth = float(np.mean(warm[-3:]) / np.mean(warm[:3]) - 1)
    return {
        "decisions": done,
        "seconds": time.perf_counter() - begun,
        "memory": memory,
        "growth": growth,
        "met": {"memory_grows_less_than_5_percent": growth < GROWTH},
    }


def one_thread() -> Mapping[str, str]:
    """Set BLAS to one thread, as `make run` does."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1")}


if __name__ == "__main__":
    main()
