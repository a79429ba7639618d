"""Measure the speed of the probe against its limits and against scikit-learn, and print one JSON document.

    python benchmarks/bench_probe.py [--quick]

Ratios compare medians of both sides run in turns in one process: a noisy machine slows both. Times in
microseconds are the best of the same rounds, as timeit takes them: what the code needs, not its neighbours.
BLAS is pinned to one thread by its environment variables, set before numpy is first imported:
the arrays of one score are so small that threads only fight over them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"

import numpy as np  # noqa: E402 - BLAS reads its number of threads when numpy is first imported
from sklearn.linear_model import Ridge, RidgeCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from probes.regression.fit import fit_ridge  # noqa: E402
from probes.regression.linear import LinearProbe  # noqa: E402

MUST = {
    "single_us": 3.0,
    "batch_us_per_sample": 0.1,
    "stream_us_per_sample": 0.1,
    "single_times_faster": 50.0,
    "batch_times_faster": 8.0,
    "fit_times_faster": 8.0,
}
"""Upper limits for times in microseconds, lower limits for ratios (issue 3)."""


def main() -> None:
    """Run everything and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="smaller data: checks the script, not the speed")
    quick = parser.parse_args().quick
    figures = {**scoring(quick), **fitting(quick)}
    report = {
        "commit": commit(),
        "hardware": hardware(),
        "blas_threads": blas_threads(),
        "quick": quick,
        "figures": figures,
        "must": {name: {"limit": limit, "met": met(name, figures)} for name, limit in MUST.items()},
    }
    print(json.dumps(report, indent=2))


def scoring(quick: bool) -> dict[str, float]:
    """Time one score, batches of 1,000 and a stream, 384 float32 features, against the article's pipeline."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4_000, 384)).astype(np.float32)
    y = X[:, :5].sum(axis=1) + rng.normal(size=4_000).astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), Ridge(alpha=1.0)).fit(X, y)
    probe = fit_ridge(X, y, alphas=[1.0]).probe
    np.testing.assert_allclose(probe.predict(X)[:, 0], pipeline.predict(X), atol=1e-4)
    one, row, batch = X[0], X[:1], X[:1000]
    rounds = 5 if quick else 40
    single = in_turns(lambda: probe.predict(one), lambda: pipeline.predict(row), rounds, 2_000, 20)
    many = in_turns(lambda: probe.predict(batch), lambda: pipeline.predict(batch), rounds, 50, 10)
    return {
        "single_us": min(single[0]) * 1e6,
        "single_median_us": median(single[0]) * 1e6,
        "sklearn_single_median_us": median(single[1]) * 1e6,
        "single_times_faster": median(single[1]) / median(single[0]),
        "batch_us_per_sample": min(many[0]) * 1e3,
        "batch_median_us_per_sample": median(many[0]) * 1e3,
        "sklearn_batch_median_us_per_sample": median(many[1]) * 1e3,
        "batch_times_faster": median(many[1]) / median(many[0]),
        **streams(probe, 100_000 if quick else 1_000_000),
    }


def streams(probe: LinearProbe, n_rows: int) -> dict[str, float]:
    """Score n_rows x d, 1,000 rows at a time: from memory, and from the buffer that a reader refills.

    From memory the machine's memory sets the pace (1.5 GB for 1M x 384), so that merely finding the largest
    number of the same array, in the same rounds, is given beside it.
    """
    data = np.random.default_rng(1).normal(size=(1_000, probe.n_features)).astype(np.float32)
    data = np.tile(data, (n_rows // 1_000, 1))
    buffer = data[:1_000].copy()
    starts = range(0, n_rows, 1_000)

    def from_memory() -> None:
        for start in starts:
            probe.predict(data[start : start + 1_000])

    def from_buffer() -> None:
        for _ in starts:
            probe.predict(buffer)

    timed = [(seconds(from_memory, 1), seconds(from_buffer, 1), seconds(data.max, 1)) for _ in range(7)]
    memory, buffered, floor = (min(column) / n_rows * 1e6 for column in zip(*timed, strict=True))
    return {
        "stream_us_per_sample": memory,
        "stream_from_buffer_us_per_sample": buffered,
        "reading_the_same_memory_us_per_sample": floor,
    }


def fitting(quick: bool) -> dict[str, float | bool]:
    """Time the fit with its exact leave-one-out path over 29 penalties against RidgeCV on the same grid."""
    n, d, rounds = (2_000, 64, 1) if quick else (40_000, 768, 2)
    rng = np.random.default_rng(2)
    X = (rng.normal(size=(n, d)) * np.geomspace(1.0, 0.05, d)).astype(np.float32)
    y = X @ rng.normal(size=d).astype(np.float32) + 3.0 * rng.normal(size=n).astype(np.float32)
    alphas = np.logspace(-1.0, 6.0, 29)
    chosen: dict[str, float] = {}

    def ours() -> None:
        chosen["ours"] = float(fit_ridge(X, y, alphas=alphas).alpha[0])

    def theirs() -> None:
        Z = StandardScaler().fit_transform(X.astype(np.float64))
        chosen["theirs"] = float(RidgeCV(alphas=alphas).fit(Z, y).alpha_)

    fast, slow = in_turns(ours, theirs, rounds, 1, 1)
    return {
        "fit_n": n,
        "fit_d": d,
        "fit_median_s": median(fast),
        "ridge_cv_median_s": median(slow),
        "fit_times_faster": median(slow) / median(fast),
        "fit_alpha": chosen["ours"],
        "ridge_cv_alpha": chosen["theirs"],
        "fit_same_alpha": bool(np.isclose(chosen["ours"], chosen["theirs"])),
    }


def in_turns(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, n_ours: int, n_theirs: int
) -> tuple[list[float], list[float]]:
    """Return the seconds per call of both in each of `rounds` rounds, run alternately."""
    pairs = [(seconds(ours, n_ours), seconds(theirs, n_theirs)) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def seconds(call: Callable[[], object], n: int) -> float:
    """Return the mean seconds of n calls in a row."""
    start = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - start) / n


def met(name: str, figures: dict[str, float]) -> bool:
    """Return whether a figure keeps its limit; the fit counts only with the same penalty chosen."""
    if name.endswith("_faster"):
        return figures[name] >= MUST[name] and (name != "fit_times_faster" or bool(figures["fit_same_alpha"]))
    return figures[name] <= MUST[name]


def commit() -> str:
    """Return the commit of the sources, or "unknown" outside git."""
    root = Path(__file__).resolve().parent.parent
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return "unknown"


def hardware() -> dict[str, object]:
    """Return what the figures were measured on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "load_average": os.getloadavg()[0],
    }


def blas_threads() -> dict[str, object]:
    """Return how BLAS was pinned, and what threadpoolctl (a dependency of scikit-learn) sees of it."""
    from threadpoolctl import threadpool_info

    libraries = [f"{info['internal_api']} {info['num_threads']}" for info in threadpool_info()]
    return {"pinned_by": "OMP_NUM_THREADS=1 and the like, set before numpy is imported", "seen": libraries}


if __name__ == "__main__":
    main()
