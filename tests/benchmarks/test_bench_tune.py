"""The benchmark of tuning runs and says what it measured; its seconds are not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_it_times_the_whole_command_for_each_rule_with_and_without_the_extras() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_tune", "--quick"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    report = json.loads(result.stdout)
    assert report["commit"]
    assert report["hardware"]["cores"]
    assert len(report["figures"]) == 4
    for name, one in report["figures"].items():
        assert one["certified"], name
        assert one["n_calibration"] == 600
        assert one["cpu_s"] > 0
        assert 0 < one["wall_s"] < 100
    assert report["must"].keys() == report["figures"].keys()
