"""The benchmark of the HTTP door runs and says what it measured; its milliseconds are not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.usefixtures("_real_encoder")
@pytest.mark.slow
def test_it_times_the_door_its_parts_and_litellm_above_the_direct_call() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_http", "--quick"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    report = json.loads(result.stdout)
    assert report["commit"]
    assert report["hardware"]["cores"]
    assert report["calls"] == 20
    assert report["direct_ms"]["p50"] > 0
    above = report["above_direct_ms"]
    assert above.keys() == {"door", "door_pinned", "decide", "dispatch", "litellm", "sdk"}
    assert above["door"]["p50"] > above["door_pinned"]["p50"] > 0
    assert report["must"]["door_p50_ms"]["met"] is (above["door"]["p50"] < 5)
