"""The benchmark runs and says what it measured; its figures are not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_benchmark_prints_every_figure_it_must_as_json() -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "bench_probe.py"), "--quick"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    report = json.loads(result.stdout)
    assert report["quick"] is True
    assert report["commit"]
    assert report["hardware"]["cpu"]
    for name, entry in report["must"].items():
        assert report["figures"][name] > 0
        assert isinstance(entry["met"], bool)
    assert report["figures"]["fit_same_alpha"] is True
