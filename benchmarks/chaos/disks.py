"""Faults of disks, of the database and of the clock."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from benchmarks.attack.target import Found
from benchmarks.chaos.trial import SkippedError, Trial, postgres_trial, sqlite_trial
from router.ledger import tables

#: Where libfaketime may be; the variable names another place.
FAKETIME = ("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/faketime/libfaketimeMT.so.1")


def full_disk(trial: Trial) -> Found:
    """Fill the disk of the ledger; that of its spool has room."""
    with _filled(trial.disk, trial.url):
        began, ended = trial.wait()
        is_spooled = any(file.stat().st_size for file in trial.spool.glob("*.jsonl"))
    given = trial.load.failed(began, ended, "Feedback")
    measured = {"refused": trial.load.failed(began, ended).total(), "feedback_refused": given.total()}
    measured["not_spooled"] = int(not is_spooled)
    return trial.found(ended, measured, refused=0, feedback_refused=0, not_spooled=0)


def full_disks(trial: Trial) -> Found:
    """Fill the disks of the ledger and of its spool: decisions must go on, and feedback may be refused."""
    with _filled(trial.disk, trial.url), _filled(trial.spool):
        began, ended = trial.wait()
    given = trial.load.failed(began, ended, "Feedback")
    measured = {"refused": trial.load.failed(began, ended).total(), "feedback_refused": dict(given)}
    return trial.found(ended, measured, refused=0)


def read_only_disk(trial: Trial) -> Found:
    """Make the disks of ledger and spool read-only for whoever opens a file there, and kill a worker."""
    with _read_only(trial.disk), _read_only(trial.spool):
        trial.killed()
        trial.service.signal_worker(signal.SIGKILL)
        trial.wait()
        is_serving = trial.service.asked()
    return trial.found(time.monotonic(), {"not_serving": int(not is_serving)}, not_serving=0)


def postgres_killed(seconds: float, factor: float) -> Found:
    """Kill PostgreSQL with SIGKILL, and start it again after a while."""
    from tests.postgres import missing, running_postgres

    if reason := missing():
        raise SkippedError(reason)
    with (
        tempfile.TemporaryDirectory(prefix="elle-chaos-") as folder,
        running_postgres() as server,
        postgres_trial(seconds, factor, server, Path(folder)) as trial,
    ):
        server.kill()
        began, ended = trial.wait()
        server.start()
        measured = {"refused": trial.load.failed(began, ended).total()}
        return trial.found(ended, measured, refused=0)


def clock_jump(seconds: float, factor: float) -> Found:
    """Let the clock of the service jump an hour ahead, and then two hours back (libfaketime)."""
    wanted = (os.environ.get("ELLE_CHAOS_FAKETIME", ""), *FAKETIME)
    library = next((path for path in wanted if path and Path(path).exists()), "")
    if not library:
        raise SkippedError("libfaketime is not installed; ELLE_CHAOS_FAKETIME may name its library")
    with tempfile.TemporaryDirectory(prefix="elle-chaos-") as folder:
        offset = Path(folder) / "offset"
        offset.write_text("+0\n")
        env = {"LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_CACHE_DURATION": "1"}
        with sqlite_trial(seconds, factor, {**env, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}) as trial:
            began = time.monotonic()
            for jump in ("+3600\n", "-3600\n"):
                offset.write_text(jump)
                trial.wait()
            measured = {"refused": trial.load.failed(began, time.monotonic()).total()}
            found = trial.found(time.monotonic(), measured, refused=0, did_not_jump=0)
            found.measured["did_not_jump"] = int(not _is_ahead(trial.url))
            return found


def _is_ahead(url: str) -> bool:
    """Return whether a decision of the ledger was made in what is the future here."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        latest = connection.execute(sa.select(sa.func.max(tables.decisions.c.at))).scalar_one()
    engine.dispose()
    return float(latest) > time.time() + 1800


@contextlib.contextmanager
def _filled(folder: Path, url: str = "") -> Iterator[None]:
    """Fill a small disk, for as long as the context lasts. An SQLite database there first gives back its log."""
    if not folder.is_mount():
        raise SkippedError("the bench is not root, or may not mount a small disk")
    if url:
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Lay a read-only view of a folder over it. Files that are open already stay as they are."""
    if not folder.is_mount():
        raise SkippedError("the bench is not root, or may not mount a small disk")
    for arguments in (("--bind", str(folder), str(folder)), ("-o", "remount,ro,bind", str(folder))):
        subprocess.run(["mount", *arguments], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)
