"""The verbs of `elle ledger` make, count, export and sample a ledger, and say what is missing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from router.cli.main import cli
from router.ledger.tables import VERSION
from router.values import RouteQuery
from tests.router.ledger.rows import sqlite_ledger
from tests.router.ledger.test_recorder import decided


def elle(*arguments: str, status: int = 0) -> Any:
    done = CliRunner().invoke(cli, ["ledger", *arguments])
    assert done.exit_code == status, done.output
    return done


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    settings = sqlite_ledger(tmp_path, keep_prompts=True)
    decided(tmp_path, settings, *(RouteQuery.from_prompt(f"prompt {number % 5}") for number in range(8)))
    return settings.place


def test_migrate_makes_the_tables_once(tmp_path: Path) -> None:
    place = str(tmp_path / "new.db")
    assert f"went from nothing to version {VERSION}" in elle("migrate", "--ledger", place).stdout
    told = json.loads(elle("migrate", "--ledger", place, "--json").stdout)
    assert (told["before"], told["after"]) == (VERSION, VERSION)
    assert "holds no decisions" in elle("stats", "--ledger", place).stdout


def test_stats_count_what_there_is(ledger: str) -> None:
    found = json.loads(elle("stats", "--ledger", ledger, "--json").stdout)
    assert (found["decisions"], found["rows_dropped"]) == (8, 0)
    assert found["answers"][0]["cost_usd"] == pytest.approx(0.008)
    said = elle("stats", "--ledger", ledger).stdout
    assert "8 decisions from" in said
    assert "feedback" not in said  # there is none, and so no table of it
    assert json.loads(elle("stats", "--ledger", ledger, "--json", "--since", "2090-01-01").stdout)["decisions"] == 0


def test_export_writes_every_table(ledger: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    written = json.loads(elle("export", "--ledger", ledger, "--out", str(out), "--json").stdout)
    assert written.items() >= {"decisions": 8, "outcomes": 8, "feedback": 0, "events": 0}.items()
    rows = pq.read_table(out / "decisions.parquet").to_pylist()
    assert [row["prompt"] for row in rows] == [f"prompt {number % 5}" for number in range(8)]
    assert {one["candidate"] for one in json.loads(rows[0]["candidates"])} == {"small", "large"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}


def test_stats_say_of_how_many_answers_the_cost_is_known(ledger: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database, database:
        database.execute("UPDATE outcomes SET cost_usd = NULL WHERE rowid <= 3")
    assert "(5 are known)" in elle("stats", "--ledger", ledger).stdout


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_bytes(b"no ledger at all" * 99), "this file is no ledger; give the path of one"),
        (lambda path: path.write_bytes(path.read_bytes()[:6000]), "the file is damaged; restore it from a backup"),
        ("DROP TABLE feedback", "the file has lost a table; restore it from a backup"),
        ("UPDATE decisions SET candidates = '{no JSON'", "a row of the ledger is damaged"),
    ],
)
def test_a_damaged_ledger_is_told_in_one_line_and_an_export_of_it_leaves_nothing(
    ledger: str, tmp_path: Path, spoil: str | Callable[[Path], Any], why: str
) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database, database:
        if isinstance(spoil, str):
            database.execute(spoil)
    if callable(spoil):
        spoil(Path(ledger))
    out = tmp_path / "out"
    done = elle("export", "--ledger", ledger, "--out", str(out), status=1)
    assert why in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith("Error: ")
    assert not out.exists() or not list(out.iterdir())


def test_tables_without_a_version_are_told_when_they_are_to_be_brought_up_to_date(ledger: str) -> None:
    with contextlib.closing(sqlite3.connect(ledger)) as database, database:
        database.execute("DROP TABLE alembic_version")
    done = elle("migrate", "--ledger", ledger, status=1)
    assert "the file has lost the version of its tables; restore it from a backup" in done.stderr


def test_a_key_that_does_not_exist_is_not_called_one_that_may_not_be_read(ledger: str) -> None:
    done = elle("forget", "--ledger", ledger, "--session", "s", "--ledger-key", f"{ledger}.no", status=1)
    assert f"the key {ledger}.no does not exist" in done.stderr


def test_sample_draws_distinct_prompts_for_elle_collect(ledger: str, tmp_path: Path) -> None:
    out = tmp_path / "sample.jsonl"
    elle("sample", "--ledger", ledger, "--n", "3", "--out", str(out))
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert len({row["prompt"] for row in rows}) == 3
    plan = CliRunner().invoke(cli, ["collect", "--help"])
    assert plan.exit_code == 0


def test_sampling_needs_prompts(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    decided(tmp_path, settings, RouteQuery.from_prompt("x"))
    done = elle("sample", "--ledger", settings.place, "--out", str(tmp_path / "s.jsonl"), status=1)
    assert "a service keeps it with --ledger-prompts" in done.output


def test_a_sample_of_no_decisions_says_so(ledger: str, tmp_path: Path) -> None:
    done = elle("sample", "--ledger", ledger, "--policy", "nobody", "--out", str(tmp_path / "s.jsonl"), status=1)
    assert "the ledger has no such decisions" in done.output


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(ledger: str) -> None:
    done = elle("export", "--ledger", ledger, "--out", "/proc/nowhere/out", status=1)
    assert done.stderr.splitlines()[-1] == (
        "Error: cannot use '/proc/nowhere': No such file or directory. Check the path, and the rights to it."
    )


def test_a_full_disk_is_an_error_in_one_line_and_other_faults_keep_their_traceback(
    ledger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(number: int) -> None:
        def raises(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("router.ledger.export.export_ledger", raises)

    fail(errno.ENOSPC)
    done = elle("export", "--ledger", ledger, "--out", str(tmp_path / "out"), status=1)
    assert "a file cannot be written: No space left on device. Make room on the disk" in done.stderr
    fail(errno.ENOTCONN)
    failed = CliRunner().invoke(cli, ["ledger", "export", "--ledger", ledger, "--out", str(tmp_path / "out")])
    assert isinstance(failed.exception, OSError)


@pytest.mark.parametrize("verb", [("stats",), ("export", "--out", "exported")])
def test_a_folder_is_not_called_a_ledger_that_a_service_could_make(verb: tuple[str, ...], tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["ledger", *verb, "--ledger", str(tmp_path)])
    assert done.exit_code != 0
    assert f"the ledger must be a file, and {tmp_path} is a folder" in done.output
