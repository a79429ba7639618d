"""The short form of `make chaos`: a service is broken under load, and its ledger has all that was acknowledged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.chaos.counting import Kept, compared
from benchmarks.chaos.load import Load, Reply
from benchmarks.chaos.service import Service
from tests.conftest import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("_real_encoder")
def test_the_short_form_loses_nothing() -> None:
    # The limits on time are wide: other tests may run beside it.
    argv = [sys.executable, "-m", "benchmarks.chaos", "--quick", "--factor", "10"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout
    ran = [row for row in json.loads(done.stdout)["faults"] if "skipped" not in row]
    assert len(ran) >= 2
    assert all(row["measured"]["decisions"] > 10 and row["measured"]["feedback"] > 3 for row in ran)


def test_what_is_lost_doubled_or_of_another_version_is_counted(tmp_path: Path) -> None:
    load = Load(Service(tmp_path, "http://127.0.0.1:1/v1", str(tmp_path / "ledger.db"), tmp_path / "spool"))
    load.replies = [Reply(at, "Complete", "p", f"d{at:.0f}", "v1", "weak", 1) for at in (1.0, 2.0, 5.0)]
    load.feedback, load.accepted = {"f1": "d1", "f2": "d2"}, {"d2"}
    ledger = Kept({"d1": ("p", "v2", "weak")}, {"d1"}, {"f1": "d1"}, doubled=3)
    # The processes that answered d2 and d5 were killed in the same moment; feedback on d2 was accepted before.
    found = compared(load, ledger, [2.5, 5.5], {"v1": "weak"})
    assert (found["lost_decisions"], found["lost_outcomes"], found["lost_feedback"]) == (1, 0, 1)
    assert (found["doubled"], found["other_version"], found["lost_with_the_process"]) == (3, 1, 1)
