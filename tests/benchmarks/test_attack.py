"""The short form of `make attack`: a real service is attacked, and another caller and the memory are watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.attack.machine import Noise
from benchmarks.attack.victim import clock_of
from tests.conftest import ROOT


@pytest.mark.usefixtures("_real_encoder")
def test_the_short_form_keeps_every_limit() -> None:
    # The limits on time are wide: other tests may run beside it. What it guards against took seconds.
    argv = [sys.executable, "-m", "benchmarks.attack", "--quick", "--factor", "40"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    table = json.loads(done.stdout)
    assert done.returncode == 0, [row for row in table["attacks"] if not row["kept"]]
    assert table["alive_afterwards"]
    assert len(table["attacks"]) >= 5
    # By these a reader can tell a noisy run.
    assert table["machine"]["processors"] >= 1
    assert 0 <= table["machine"]["stolen"] <= 1
    watched = [row["measured"] for row in table["attacks"] if "attacked_p99_ms" in row["measured"]]
    assert all(0 <= one["stolen"] <= 1 and one["calm_work_p99_ms"] > 0 for one in watched)
    # Whoever waits sees how far it is.
    assert [line.split()[0] for line in done.stderr.splitlines() if "/" in line.split()[0]] == [
        f"{number}/{len(table['attacks'])}" for number in range(1, len(table["attacks"]) + 1)
    ]


def test_the_work_of_a_process_is_read_from_its_clock() -> None:
    worked, clock = time.process_time(), time.clock_gettime(clock_of(os.getpid()))
    assert worked <= clock <= time.process_time()


def test_what_neighbours_take_is_told_from_other_time(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu 100 0 50 800 0 0 0 50 0 0\ncpu0 1 2 3\n")
    noise = Noise(stat)
    assert noise.stolen() == 0
    # Of 200 ticks 50 are stolen. The last two columns are in the first one as well.
    stat.write_text("cpu 150 0 50 900 0 0 0 100 70 70\ncpu0 1 2 3\n")
    assert noise.stolen() == 0.25


def test_every_attack_is_listed_with_what_it_does() -> None:
    argv = [sys.executable, "-m", "benchmarks.attack", "--list"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(listed) > 40
    assert all(len(line.split()) > 3 for line in listed)
