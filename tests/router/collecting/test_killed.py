"""A collection that is killed again and again ends with the same file, and no upstream is paid twice for one call."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from router.collecting.calls.store import StoreError, open_store
from router.collecting.collect import CollectOptions, collect
from router.collecting.sampling import Selection
from tests.conftest import ROOT
from tests.router.collecting.simulated import Simulated, simulated, write_log, write_policy

N = 40


def command(folder: Path) -> list[str]:
    paths = [str(folder / "log.jsonl"), "--policy", str(folder / "p.yaml"), "--out", str(folder / "o.jsonl")]
    code = "from router.cli.main import main; main()"
    return [sys.executable, "-c", code, "collect", *paths, "--n", str(N), "--yes", "--budget-usd", "5"]


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(folder), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(folder: Path) -> None:
    """Run the same collection in this process, and let it end by itself."""
    options = CollectOptions(selection=Selection(n=N), budget_usd=5.0)
    summary = collect([folder / "log.jsonl"], folder / "p.yaml", folder / "o.jsonl", options)
    assert summary is not None
    assert summary.stopped is None


def kill_at(upstream: Simulated, folder: Path, n_paid: int, *, before: bool) -> None:
    """Run the collection until an upstream has been paid for so many calls, and kill it around that answer."""
    reached = threading.Event()

    def check(n: int) -> None:
        if n >= n_paid and not reached.is_set():
            reached.set()
            process.send_signal(signal.SIGKILL)

    with start(folder) as process:
        if before:
            upstream.before_answer = check
        else:
            upstream.after_answer = check
        assert reached.wait(240), process.stderr.read().decode() if process.stderr and process.poll() else "too slow"
        assert process.wait(60) == -signal.SIGKILL
        upstream.before_answer = upstream.after_answer = lambda n: None


@pytest.mark.parametrize("n_kills", [1, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_run_killed_at_random_moments_ends_with_the_file_of_one_that_was_left_alone(
    tmp_path: Path, n_kills: int
) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    moments = random.Random(n_kills)
    with simulated() as upstream:
        for folder in (alone, killed):
            folder.mkdir()
            write_log(folder / "log.jsonl", N)
            write_policy(folder / "p.yaml", upstream.url)
        finish(alone)
        assert (sum(upstream.paid.values()), set(upstream.paid.values())) == (4 * N, {1})
    with simulated() as upstream:
        write_policy(killed / "p.yaml", upstream.url)
        for n_paid in sorted(moments.sample(range(1, 4 * N - 20), n_kills)):
            kill_at(upstream, killed, n_paid, before=moments.random() < 0.5)
            assert not (killed / "o.jsonl").exists()
        finish(killed)
        n_requests = sum(upstream.requests.values())
        assert len(upstream.paid) == 4 * N, "each of the calls has one key, and the upstream charges a key once"
        assert n_requests - 4 * N <= n_kills * 4 * 8, "only what was in flight was sent again"
    assert (killed / "o.jsonl").read_bytes() == (alone / "o.jsonl").read_bytes()


def test_a_store_is_open_in_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    code = f"from router.collecting.calls.store import open_store\nwith open_store({str(path)!r}): print('open')"
    with open_store(path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert "is open in another process; wait until that one ends, or give --store FILE." in done.stderr
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "open\n"


def test_another_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("These are my notes, and they are no database at all.\n" * 40)
    with pytest.raises(StoreError, match="cannot be used as the store of answers: file is not a database"):
        open_store(tmp_path / "notes.txt").__enter__()
    assert (tmp_path / "notes.txt").read_text().startswith("These are my notes")
    if os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="cannot be used"):
            open_store(tmp_path / "shut" / "store.sqlite").__enter__()


def test_a_full_disk_ends_the_run_with_a_message_and_what_was_kept_is_not_asked_again(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", N)
    with simulated(answer=lambda *_: "word " * 2000) as upstream:
        write_policy(tmp_path / "p.yaml", upstream.url)
        # No file may grow beyond 400 KiB, which SQLite sees as it sees a full disk.
        limited = ["bash", "-c", 'ulimit -f 400; exec "$0" "$@"', *command(tmp_path)]
        full = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True, check=False)
        assert full.returncode == 1
        assert "Traceback" not in full.stderr
        assert "elle-collect.sqlite cannot be used any more" in full.stderr
        asked = upstream.requests.total()
        assert 0 < asked < 4 * N
        finish(tmp_path)
        assert upstream.requests.total() < asked + 4 * N
        assert upstream.paid.total() == 4 * N
