"""Measure what a core that would idle does for a lone forward pass, and what it does if no core idles; print JSON.

    python -m benchmarks.idle_core [--calls 100]

The same prompts, alone and helped in turns, beside busy neighbours, from none to one more than there are cores:
processes that do nothing but count. Milliseconds at the median and the 99th percentile; `times_faster` is the ratio of
the medians. Features are compared bit by bit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.bench_probe import commit, hardware
from probes.encoders.exported import ExportedEncoder, load_exported_encoder
from probes.encoders.spec import MINILM_L6

LENGTHS = (8, 16, 32, 64, 128, 256)


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=100, help="of each kind, in each cell")
    asked = parser.parse_args()
    alone, helped = (load_exported_encoder(MINILM_L6) for _ in range(2))
    helped.use_idle_core()
    report: dict[str, Any] = {
        "commit": commit(),
        "hardware": hardware(),
        "runtime": alone.runtime,
        "calls": asked.calls,
    }
    for n_busy in range((os.cpu_count() or 1) + 2):
        with neighbours(n_busy):
            report[f"{n_busy} busy neighbours"] = {n: compare(alone, helped, n, asked.calls) for n in LENGTHS}
    print(json.dumps(report, indent=2))


@contextlib.contextmanager
def neighbours(n: int) -> Iterator[None]:
    """Run `n` processes that want a core each, for as long as the context lasts."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def compare(alone: ExportedEncoder, helped: ExportedEncoder, n_tokens: int, calls: int) -> dict[str, Any]:
    """Return the times of both on one prompt of this many tokens, in turns."""
    rng = np.random.default_rng(n_tokens)
    ids = [101, *rng.integers(1000, 20_000, n_tokens - 2).tolist(), 102]
    expected = alone.encode_ids(ids)
    spent: dict[str, list[float]] = {"alone": [], "helped": []}
    for _ in range(calls):
        for name, encoder in (("alone", alone), ("helped", helped)):
            begun = time.perf_counter()
            features = encoder.encode_ids(ids)
            spent[name].append((time.perf_counter() - begun) * 1e3)
            if not np.array_equal(features, expected):
                raise RuntimeError(f"{name}: other features than before")
    figures = {
        name: dict(zip(("p50", "p99"), np.percentile(ms, (50, 99)).tolist(), strict=True)) for name, ms in spent.items()
    }
    return {"times_faster": figures["alone"]["p50"] / figures["helped"]["p50"], **figures}


if __name__ == "__main__":
    main()
