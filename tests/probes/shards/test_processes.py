"""Local processes compute every shard once, also if some of them are killed, and end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from probes.errors import DataError
from probes.shards.checkpoint import FolderCheckpoint
from probes.shards.choosing import chosen_engine
from probes.shards.processes import LocalProcesses
from probes.shards.work import run_shards
from tests.conftest import ROOT
from tests.probes.shards.squares import Squares


def test_every_shard_is_computed_once_and_each_worker_opens_once(tmp_path: Path) -> None:
    found = list(LocalProcesses(2).results(Squares(tmp_path, 40), range(40)))
    assert sorted(found) == [(number, str(number * number).encode()) for number in range(40)]
    assert 1 <= len(list(tmp_path.glob("opened-*"))) <= 2


def test_a_killed_worker_costs_no_shard_and_doubles_none(tmp_path: Path) -> None:
    done: list[int] = []
    checkpoint = FolderCheckpoint(tmp_path, 12)
    run_shards(Squares(tmp_path, 12, killed_by=(5,)), checkpoint, LocalProcesses(2), done.append)
    assert (tmp_path / "killed-5").exists()
    assert sorted(done) == list(range(12))
    assert [checkpoint.result(number) for number in range(12)] == [str(n * n).encode() for n in range(12)]


def test_workers_that_die_again_and_again_are_an_error_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    checkpoint = FolderCheckpoint(tmp_path, 6)
    with pytest.raises(DataError, match="use fewer processes"):
        run_shards(Squares(tmp_path, 6, (4,), always=True), checkpoint, LocalProcesses(1), lambda number: None)
    assert checkpoint.finished >= {0, 1, 2, 3}


def test_an_error_of_the_work_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="shard 3 cannot be squared"):
        list(LocalProcesses(2).results(Squares(tmp_path, 6, failing=3), range(6)))


def test_one_process_is_this_one() -> None:
    assert chosen_engine("local", None) is None
    assert chosen_engine("local", 1) is None
    with pytest.raises(DataError, match="at least 1"):
        LocalProcesses(0)


DRIVER = """
import sys, time
from pathlib import Path
from probes.shards.processes import LocalProcesses
from tests.probes.shards.squares import Squares
if __name__ == "__main__":
    for number, result in LocalProcesses(2).results(Squares(Path(sys.argv[1]), 4), range(4)):
        time.sleep(60)
"""


def test_workers_end_if_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    driver = subprocess.Popen([sys.executable, script, tmp_path], env=os.environ | {"PYTHONPATH": str(ROOT)})
    for _ in range(600):
        if workers := [int(path.name.removeprefix("opened-")) for path in tmp_path.glob("opened-*")]:
            break
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    for _ in range(600):
        if not any(Path(f"/proc/{worker}").exists() for worker in workers):
            return
        time.sleep(0.05)
    pytest.fail("workers outlived their parent")
