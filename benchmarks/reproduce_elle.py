"""Reproduce the ELLE finding without a network: is a model's own loss linear in its embedding?

    python -m benchmarks.reproduce_elle [--only ROW,ROW] [--scale 0.1] [--out out/reproduce-elle]

Real MiniLM weights and small models trained on the spot, on data every machine has. Writes results.json,
figure.png and calibration.png; rows measured one at a time (`--only`) are merged into the results that are
there. Source: "ELLE: Embeddings Linearly contain their Loss Estimate", LGND devlog, 2026-03-01.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproduce import report
from benchmarks.reproduce.analysis import analyse
from benchmarks.reproduce.experiments import EXPERIMENTS, Experiment


def measure(experiment: Experiment, scale: float, folder: Path) -> dict[str, Any]:
    """One row of the results; the held-out losses go beside them for the calibration figure."""
    started = time.perf_counter()
    measured = experiment.run(scale)
    extracted = time.perf_counter()
    figures, (actual, predicted) = analyse(measured.pairs, measured.groups, measured.compressible)
    np.savez(folder / f"{experiment.name}.npz", actual=actual, predicted=predicted)
    row = {
        **{key: getattr(experiment, key) for key in ("name", "modality", "objective", "model", "data")},
        "scale": scale,
        **figures,
        "seconds_train_and_extract": round(extracted - started, 1),
        "seconds_probe_and_controls": round(time.perf_counter() - extracted, 1),
        "provenance": dict(measured.pairs.provenance),
    }
    r = figures["probe"]
    print(
        f"{experiment.name}: r = {r['r']:.3f} [{r['low']:.3f}, {r['high']:.3f}], n = {figures['n']:,}, "
        f"{time.perf_counter() - started:.0f} s",
        file=sys.stderr,
    )
    return row


def main() -> None:
    """Run the chosen rows, then write and print everything known."""
    names = [experiment.name for experiment in EXPERIMENTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"comma-separated rows of: {', '.join(names)}")
    parser.add_argument("--scale", type=float, default=1.0, help="shrink samples and training steps for a quick look")
    parser.add_argument("--out", type=Path, default=Path("out/reproduce-elle"))
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else names
    if unknown := sorted(set(wanted) - set(names)):
        parser.error(f"--only must name rows of {', '.join(names)}; got {', '.join(unknown)}")
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    os.environ["HF_HUB_OFFLINE"] = "1"
    threads = int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1)))
    torch.set_num_threads(threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = arguments.out / "results.json"
    known = (
        {row["name"]: row for row in json.loads(results.read_text())["rows"]}
        if arguments.only and results.exists()
        else {}
    )
    for experiment in EXPERIMENTS:
        if experiment.name in wanted:
            known[experiment.name] = measure(experiment, arguments.scale, arguments.out)
            rows = [known[name] for name in names if name in known]
            report.write_json(results, {**report.circumstances(threads), "rows": rows})
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
