"""Write the reproduction as JSON, as a table to read, and as a figure like the article's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scatter = tuple[NDArray[Any], NDArray[Any]]
_COLOURS = {
    "text": "#4c72b0",
    "code": "#55a868",
    "image": "#c44e52",
    "audio": "#8172b3",
    "geospatial": "#ccb974",
}


def circumstances(jobs: int) -> dict[str, Any]:
    """Return commit, machine and versions, so that the figures can be placed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "uncommitted_changes": bool(changed.stdout.strip()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "jobs": jobs,
        "threads_per_job": 1,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "scikit-learn", "torch", "transformers")},
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write the JSON under a temporary name beside the file, and rename it."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(path)


def _interval(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{value['r']:+.3f} [{value['low']:+.3f}, {value['high']:+.3f}]"


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print every row on stdout, the strongest first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Loss read linearly out of the embedding: Pearson r on the held-out 20 %, 95 % interval")
    for heading in ("row", "data", "n", "d"):
        table.add_column(heading, justify="right" if heading in "nd" else "left", overflow="fold")
    for heading in ("probe r", "held-out groups", "shuffled losses", "L2 norm", "gzip length"):
        table.add_column(heading, no_wrap=True)
    for row in sorted(rows, key=lambda row: -row["probe"]["r"]):
        keys = ("probe", "held_out_groups", "shuffled", "l2_norm", "gzip_length")
        name = f"{row['name']} ({row['objective']}, {row['model']})"
        table.add_row(name, row["data"], f"{row['n']:,}", str(row["d"]), *(_interval(row.get(key)) for key in keys))
    Console(width=220).print(table)
    curves = Table(title="r by the number of fitting samples; prefix / random dimensions (mean of 5 subsets)")
    for heading in ("row", "fitting samples", "dimensions"):
        curves.add_column(heading, overflow="fold")
    for row in rows:
        samples = "  ".join(f"{point['n']:,}: {point['r']:.2f}" for point in row["scaling"])
        sizes = "  ".join(f"{p['k']}: {p['prefix']:.2f}/{p['random_mean']:.2f}" for p in row["dimensions"])
        curves.add_row(row["name"], samples, sizes)
    Console(width=220).print(curves)


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draw three panels: r of each row with interval and controls, r by samples, first against random dimensions."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (bars, samples, sizes) = plt.subplots(1, 3, figsize=(19, 6.5), width_ratios=(1.5, 1, 1))
    _draw_bars(bars, sorted(rows, key=lambda row: row["probe"]["r"]))
    for row in rows:
        colour = _COLOURS[row["modality"]]
        points = row["scaling"]
        samples.plot([p["n"] for p in points], [p["r"] for p in points], "o-", color=colour, ms=3)
        samples.annotate(row["name"], (points[-1]["n"], points[-1]["r"]), fontsize=7, color=colour)
        full = row["dimensions"][-1]["prefix"]
        shares = [p["k"] / row["d"] for p in row["dimensions"]]
        sizes.plot(shares, [p["prefix"] / full for p in row["dimensions"]], "-", color=colour)
        sizes.plot(shares, [p["random_mean"] / full for p in row["dimensions"]], "--", color=colour)
    samples.set(xscale="log", xlabel="fitting samples", ylabel="Pearson r", title="Sample scaling")
    samples.axhline(0.5, color="grey", lw=0.8, ls=":")
    sizes.set(
        xscale="log",
        xlabel="share of dimensions",
        ylabel="r / r with all dimensions",
        title="First dimensions (solid) and random ones (dashed)",
    )
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _draw_bars(axes: Any, rows: list[dict[str, Any]]) -> None:
    places = np.arange(len(rows))
    r = np.array([row["probe"]["r"] for row in rows])
    low = np.array([row["probe"]["low"] for row in rows])
    high = np.array([row["probe"]["high"] for row in rows])
    axes.barh(
        places,
        r,
        xerr=np.abs([r - low, high - r]),
        color=[_COLOURS[row["modality"]] for row in rows],
        capsize=3,
    )
    marks = {"l2_norm": ("D", "L2 norm"), "shuffled": ("x", "shuffled losses")}
    marks |= {"gzip_length": ("s", "gzip length"), "held_out_groups": ("^", "held-out groups")}
    for key, (mark, label) in marks.items():
        known = [(row[key]["r"], place) for place, row in zip(places, rows, strict=True) if key in row]
        axes.plot(*zip(*known, strict=True), mark, color="black", mfc="none", label=label)
    axes.set_yticks(places, [f"{row['name']}\n{row['data']}" for row in rows], fontsize=7)
    axes.axvline(0.5, color="grey", lw=0.8, ls=":")
    axes.axvline(0.0, color="black", lw=0.8)
    axes.set(xlabel="Pearson r, held-out 20 %", title="Loss predicted from the embedding alone")
    axes.legend(fontsize=7, loc="lower right")


def draw_calibration(path: Path, rows: list[dict[str, Any]], scatters: dict[str, Scatter]) -> None:
    """Draw predicted against actual loss of the held-out samples, one panel per row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 4
    figure, axes = plt.subplots(-(-len(rows) // columns), columns, figsize=(15, 3.6 * -(-len(rows) // columns)))
    for axis in np.ravel(axes)[len(rows) :]:
        axis.axis("off")
    for axis, row in zip(np.ravel(axes), rows, strict=False):
        actual, predicted = (values[:2000] for values in scatters[row["name"]])
        axis.scatter(actual, predicted, s=4, alpha=0.3, color=_COLOURS[row["modality"]])
        ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
        axis.plot(ends, ends, "k--", lw=0.8)
        axis.set_title(f"{row['name']}: r = {row['probe']['r']:.3f}", fontsize=9)
        axis.set(xlabel="actual loss", ylabel="predicted from the embedding")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
