"""The short form of `make attack`: a real service is attacked, and another caller and the memory are watched."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

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


def test_every_attack_is_listed_with_what_it_does() -> None:
    argv = [sys.executable, "-m", "benchmarks.attack", "--list"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(listed) > 40
    assert all(len(line.split()) > 3 for line in listed)
