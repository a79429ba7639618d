"""Reproduce the ELLE finding without a network, which says that a model's own loss is linear in its embedding.

    python -m benchmarks.reproduce_elle [--only ROW,ROW] [--scale 0.1] [--jobs 2] [--out DIR]

Real MiniLM weights and small models trained on the spot, on data every machine has. Writes results.json,
figure.png and calibration.png; rows measured one at a time (`--only`) are merged into the results that are
there. Source: "ELLE: Embeddings Linearly contain their Loss Estimate", LGND devlog, 2026-03-01.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproduce import report
from benchmarks.reproduce.analysis import analyse
from benchmarks.reproduce.experiments import EXPERIMENTS
from probes.losses.pairs import slices


def measure(name: str, scale: float, folder: Path) -> dict[str, Any]:
    """One row of the results; the held-out losses go beside them for the calibration figure."""
    experiment = next(experiment for experiment in EXPERIMENTS if experiment.name == name)
    started = time.perf_counter()
    measured = experiment.run(scale)
    extracted = time.perf_counter()
    figures, (actual, predicted) = analyse(measured.pairs, measured.groups, measured.compressible)
    np.savez(folder / f"{name}.npz", actual=actual, predicted=predicted)
    return {
        **{key: getattr(experiment, key) for key in ("name", "modality", "objective", "model", "data")},
        "scale": scale,
        **figures,
        "seconds_train_and_extract": round(extracted - started, 1),
        "seconds_probe_and_controls": round(time.perf_counter() - extracted, 1),
        "provenance": dict(measured.pairs.provenance),
    }


def prepare_worker() -> None:
    """One thread each: models this small lose more by waiting for each other's threads than they gain."""
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # The bars of several workers would write over each other; the main process draws one for all.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def measure_all(names: list[str], scale: float, folder: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """Yield each row when it has been measured; `jobs` rows are measured at a time, in processes of their own."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=prepare_worker) as pool:
        futures = [pool.submit(measure, name, scale, folder) for name in names]
        for _, future in zip(slices(len(names), 1, "rows measured"), as_completed(futures), strict=True):
            row = future.result()
            r, seconds = row["probe"], row["seconds_train_and_extract"] + row["seconds_probe_and_controls"]
            print(
                f"{row['name']}: r = {r['r']:.3f} [{r['low']:.3f}, {r['high']:.3f}], n = {row['n']:,}, {seconds:.0f} s",
                file=sys.stderr,
            )
            yield row


def arguments_of_command(names: list[str]) -> argparse.Namespace:
    """Parse the command line; `only` becomes a list of known rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated rows of: {', '.join(names)}")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink samples and training steps for a quick look")
    parser.add_argument("--out", type=Path, default=Path("out/reproduce-elle"))
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="rows measured at a time")
    arguments = parser.parse_args()
    if unknown := sorted(set((arguments.only or names[0]).split(",")) - set(names)):
        parser.error(f"--only must name rows of {', '.join(names)}; got {', '.join(unknown)}")
    return arguments


def main() -> None:
    """Run the chosen rows, then write and print everything known."""
    names = [experiment.name for experiment in EXPERIMENTS]
    arguments = arguments_of_command(names)
    started = time.perf_counter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.json"
    known: dict[str, dict[str, Any]] = {}
    if arguments.only and results.exists():
        known = {row["name"]: row for row in json.loads(results.read_text())["rows"]}
    wanted = arguments.only.split(",") if arguments.only else names
    rows: list[dict[str, Any]] = []
    for row in measure_all(wanted, arguments.scale, arguments.out, arguments.jobs):
        known[row["name"]] = row
        rows = [known[name] for name in names if name in known]
        circumstances = report.circumstances(arguments.jobs)
        report.write_json(results, {**circumstances, "seconds": round(time.perf_counter() - started), "rows": rows})
    scatters = {}
    for row in rows:
        with np.load(arguments.out / f"{row['name']}.npz") as held_out:
            scatters[row["name"]] = (held_out["actual"], held_out["predicted"])
    report.print_table(rows)
    report.draw(arguments.out / "figure.png", rows)
    report.draw_calibration(arguments.out / "calibration.png", rows, scatters)
    print(f"wrote results.json, figure.png and calibration.png to {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
