"""Measure the engines beside the plain loop: scoring embeddings and prompts, fitting pairs, and serving; print JSON.

    .venv-ray/bin/python -m benchmarks.bench_engines [--rows 1000000] [--prompts 5000] [--decisions 500]

Every job is a whole run of `elle`, start included, with one BLAS thread: in a plain loop, in two local processes, and
on Ray with two actors. All engines must write the same bytes. The plain loop encodes with a thread for each core. Then
one client decides new prompts, one at a time and eight at a time, by a plain service and by one on Ray, each with one
replica and one encoder thread.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.bench_probe import commit, hardware
from probes.artifacts import store as artifact
from probes.probe import DifficultyProbe
from router.client import RouterClient
from router.policies.loading import DEFAULT_POLICY, load_policy
from tests.router.serving.processes import elle_serve, wait_until

WIDTH = 384

ENGINES: dict[str, tuple[str, ...]] = {
    "plain": (),
    "two processes": ("--processes", "2"),
    "ray, two actors": ("--engine", "ray", "--processes", "2"),
}

SERVICES: dict[str, tuple[str, ...]] = {
    "plain": ("--threads", "1"),
    "ray, one replica": ("--engine", "ray", "--insecure", "--max-replicas", "1"),
}

_NUMBERS = itertools.count()


def write_inputs(folder: Path, rows: int, prompts: int) -> None:
    """Write synthetic pairs, generated prompts, and the probe of the default policy."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=WIDTH) / 20
    schema = pa.schema([("embedding", pa.list_(pa.float32(), WIDTH)), ("loss", pa.float64())])
    with pq.ParquetWriter(folder / "pairs.parquet", schema, compression="none", use_dictionary=False) as writer:
        for first in range(0, rows, 50_000):
            X = rng.normal(size=(min(50_000, rows - first), WIDTH)).astype(np.float32)
            column = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), WIDTH)
            loss = X @ direction + rng.normal(size=len(X))
            writer.write_table(pa.table({"embedding": column, "loss": loss}, schema=schema))
    texts = [f"What is {n} plus {n % 17}, and how does a child of {n % 9 + 5} work it out?" for n in range(prompts)]
    pq.write_table(pa.table({"prompt": texts}), folder / "prompts.parquet")
    artifact.save(cast(DifficultyProbe, load_policy(DEFAULT_POLICY).probe), folder / "probe")


def run(folder: Path, *arguments: object) -> dict[str, float]:
    """Run `elle` and return its time and the CPU seconds of it and its children that it waited for."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    code = "from router.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(time.perf_counter() - started, 1), "cpu_s_of_waited": round(cpu, 1)}


def jobs(folder: Path) -> dict[str, Any]:
    """Run every job on every engine, and say whether all engines wrote the same bytes."""
    run(folder, "fit-pairs", "pairs.parquet", "--out", "pair-probe")
    kinds = {
        "score embeddings": ("score", "pairs.parquet", "--probe", "pair-probe", "--out"),
        "score prompts": ("score", "prompts.parquet", "--probe", "probe", "--out"),
        "fit-pairs": ("fit-pairs", "pairs.parquet", "--name", "same", "--out"),
    }
    found: dict[str, Any] = {}
    for kind, command in kinds.items():
        out = {name: folder / f"{kind} {name}.parquet" for name in ENGINES}
        found[kind] = {name: run(folder, *command, out[name], *engine) for name, engine in ENGINES.items()}
        files = [path / "probe.safetensors" if path.is_dir() else path for path in out.values()]
        found[kind]["same_bytes"] = len({path.read_bytes() for path in files}) == 1
    return found


def served(options: tuple[str, ...], decisions: int) -> dict[str, float]:
    """Decide new prompts by a service, one at a time and eight at a time."""
    with elle_serve(*options) as service, RouterClient(_ready(service)) as client:

        def decide(_: int) -> float:
            started = time.perf_counter()
            client.route(f"Why is {next(_NUMBERS)} not the product of two primes?")
            return time.perf_counter() - started

        for number in range(50):
            decide(number)
        alone = [decide(number) for number in range(decisions)]
        started = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            together = list(pool.map(decide, range(decisions)))
        seconds = time.perf_counter() - started
        service.ask_to_end()
        service.process.wait(120)
    return {
        "alone_p50_ms": round(statistics.median(alone) * 1e3, 2),
        "alone_p99_ms": round(float(np.quantile(alone, 0.99)) * 1e3, 2),
        "eight_p50_ms": round(statistics.median(together) * 1e3, 2),
        "eight_per_s": round(decisions / seconds, 1),
    }


def _ready(service: Any) -> str:
    wait_until(lambda: "serving" in service.text and " on 127" in service.text, 300)
    return str(service.address)


def main() -> None:
    """Run everything and print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=5000)
    parser.add_argument("--decisions", type=int, default=500)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    report: dict[str, Any] = {"commit": commit(), "hardware": hardware(), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), options.rows, options.prompts)
        report["jobs"] = {"rows": options.rows, "prompts": options.prompts, **jobs(Path(folder))}
    report["decisions"] = {name: served(arguments, options.decisions) for name, arguments in SERVICES.items()}
    report["load_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
