"""Fit or measure the default probe; see `benchmarks.default_probe`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.default_probe.anchors import read_anchors
from benchmarks.default_probe.fit import DefaultFit, choose_penalty, fit_default, left_out_by_source, training_set
from benchmarks.default_probe.gate import learn_gate
from benchmarks.default_probe.kinds import default_kinds, kind_figures
from benchmarks.default_probe.measure import measure, thresholds
from benchmarks.default_probe.sources import read_rows
from benchmarks.default_probe.whole import compare
from probes.artifacts import store
from router.policies.loading import DEFAULTS


def fit(with_anchors: bool) -> DefaultFit:
    """Fit the default probe, with the penalty that is best on files left out whole."""
    rows, anchors = read_rows(), read_anchors() if with_anchors else None
    data = training_set(rows, anchors, on_progress=_show)
    found = fit_default(rows, anchors, data, choose_penalty(left_out_by_source(data, rows), rows))
    return replace(found, probe=replace(found.probe, kinds=default_kinds(rows, anchors, data)))


def learn_kinds(out: Path, with_anchors: bool) -> dict[str, object]:
    """Learn the kinds of the saved probe anew, keep everything else of it to the bit, and return their figures."""
    rows, anchors = read_rows(), read_anchors() if with_anchors else None
    data = training_set(rows, anchors, with_variants=False, on_progress=_show)
    store.save(replace(store.load(out), kinds=default_kinds(rows, anchors, data)), out)
    return kind_figures(rows, anchors, data)


def _show(done: int, total: int) -> None:
    if done % 1000 == 0 or done == total:
        print(f"encoded {done:,} of {total:,}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.default_probe", description=__doc__)
    parser.add_argument("what", choices=("fit", "kinds", "gate", "measure", "appended"))
    parser.add_argument("--out", type=Path, default=DEFAULTS / "tiers", help="folder of the probe")
    parser.add_argument("--without-anchors", action="store_true", help="leave out the prompts of our own")
    options = parser.parse_args()
    others: dict[str, Callable[[], object]] = {
        "measure": lambda: measure(on_progress=_show),
        "appended": compare,
        "kinds": lambda: learn_kinds(options.out, not options.without_anchors),
        "gate": lambda: learn_gate(read_rows(), read_anchors()),
    }
    if options.what in others:
        json.dump(others[options.what](), sys.stdout, indent=1)
        return
    found = fit(not options.without_anchors)
    store.save(found.probe, options.out)
    print(json.dumps({"out": str(options.out), "penalty": found.penalty, "thresholds": thresholds(found)}))


if __name__ == "__main__":
    main()
