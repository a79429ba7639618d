"""The tables are those that the code names, are made once, and keep each row once; old rows go."""

from __future__ import annotations

import dataclasses
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from router.errors import ConfigError
from router.ledger import database
from router.ledger.insertion import DatabaseSink
from router.ledger.reader import LedgerReader
from router.ledger.records import LedgerRow
from router.ledger.settings import LedgerSettings
from router.ledger.tables import VERSION, metadata
from router.ledger.writer import LedgerDownError
from router.times import first_id_at
from tests.router.ledger.rows import numbers, row, sqlite_ledger


def events(settings: LedgerSettings) -> list[int]:
    with LedgerReader.opened(settings) as reader:
        return [one.detail["number"] for one in reader.events("test")]


def test_the_migrations_make_exactly_the_tables_that_the_code_names(tmp_path: Path) -> None:
    engine = database.open_engine(sqlite_ledger(tmp_path))
    assert database.migrate(engine) == ("", VERSION)
    assert database.migrate(engine) == (VERSION, VERSION)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_processes_that_start_together_make_the_tables_once(tmp_path: Path) -> None:
    sinks = [DatabaseSink(sqlite_ledger(tmp_path)) for _ in range(4)]
    threads = [threading.Thread(target=sink.write, args=([row(number)],)) for number, sink in enumerate(sinks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in sinks:
        sink.close()
    assert sorted(events(sqlite_ledger(tmp_path))) == [0, 1, 2, 3]


def test_a_row_that_is_given_again_is_kept_once(tmp_path: Path) -> None:
    settings, sink = sqlite_ledger(tmp_path), DatabaseSink(sqlite_ledger(tmp_path))
    rows = [row(0), row(1)]
    sink.write(rows)
    sink.write([*rows, row(2)])
    sink.close()
    assert events(settings) == [0, 1, 2]


@pytest.mark.parametrize("n_rows", [19, 20, 21, 45])
def test_rows_of_several_statements_all_arrive(n_rows: int, tmp_path: Path) -> None:
    settings, sink = sqlite_ledger(tmp_path), DatabaseSink(sqlite_ledger(tmp_path))
    assert sink.write([row(number) for number in range(n_rows)]) == 0
    sink.close()
    assert events(settings) == list(range(n_rows))


def test_commits_wait_for_the_disk_and_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    sink = DatabaseSink(settings)
    sink.write([row(0)])
    engine = database.open_engine(settings)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    engine.dispose()
    sink.close()


def test_a_row_that_the_database_refuses_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = DatabaseSink(sqlite_ledger(tmp_path))
    without_kind = dataclasses.replace(row(1), values=dict(row(1).values) | {"kind": None})
    assert sink.write([row(0), without_kind, row(2)]) == 1
    sink.close()
    assert events(sqlite_ledger(tmp_path)) == [0, 2]
    assert "refuses a row: IntegrityError" in caplog.text


@pytest.mark.parametrize("unfit", [{"at": 10**30}, {"detail": {"half": "\ud83d"}}, {"kind": "\ud83d"}])
def test_a_row_that_cannot_be_sent_costs_no_other(unfit: dict[str, object], tmp_path: Path) -> None:
    sink = DatabaseSink(sqlite_ledger(tmp_path))
    assert sink.write([row(0), dataclasses.replace(row(1), values={**row(1).values, **unfit}), row(2)]) == 1
    sink.close()
    assert events(sqlite_ledger(tmp_path)) == [0, 2]


def test_a_database_that_cannot_be_opened_may_come_back(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    sink = DatabaseSink(sqlite_ledger(folder))
    with pytest.raises(LedgerDownError, match="unable to open"):
        sink.write([row(0)])
    folder.mkdir()
    sink.write([row(1)])
    sink.close()
    assert events(sqlite_ledger(folder)) == [1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small file system")
def test_a_full_disk_is_trouble_that_may_pass(tmp_path: Path) -> None:
    """The real thing: a file system of 400 KB."""
    import subprocess

    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        sink = DatabaseSink(sqlite_ledger(disk))
        sink.write([row(0)])
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"):
            filler.write_bytes(b"0" * 400_000)
        rows = [row(number) for number in range(1, 400)]
        with pytest.raises(LedgerDownError, match="full"):
            sink.write(rows)
        filler.unlink()
        sink.write(rows)
        sink.close()
        assert events(sqlite_ledger(disk)) == list(range(400))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_tables_of_a_newer_program_are_refused_and_missing_ones_named(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    (tmp_path / "ledger.db").touch()
    with pytest.raises(ConfigError, match="has no tables of a ledger; run `elle ledger migrate`"):
        events(settings)
    engine = database.open_engine(settings)
    database.migrate(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="version 9999, which this program does not know"):
        database.migrate(engine)
    with pytest.raises(ConfigError, match="update elle-router"):
        events(settings)
    engine.dispose()


def test_what_is_too_old_goes_and_the_trail_says_so(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path, keep_days=1)
    sink = DatabaseSink(settings)
    ids = [f"{first_id_at(time.time() - days * 86_400)}7000" + "8" * 16 for days in (3, 2, 0.5)]
    old = [LedgerRow("events", dict(row(n).values) | {"event_id": one}) for n, one in enumerate(ids)]
    sink.write(old)
    sink.tidy()
    sink.close()
    assert events(settings) == [2]
    with LedgerReader.opened(settings) as reader:
        (noted,) = reader.events("rows_expired")
    assert noted.detail == {"decisions": 0, "outcomes": 0, "feedback": 0, "events": 2}
    assert numbers(old) == [0, 1, 2]


def test_the_tables_have_the_version_of_the_last_migration_and_alembic_is_not_imported_to_see_that() -> None:
    script = "import sys\nfrom router.ledger import recorder\nassert not any('alembic' in name for name in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert ScriptDirectory(str(Path(database.__file__).parent / "migrations")).get_current_head() == VERSION


def test_a_ledger_of_the_first_version_is_brought_up_to_date_and_keeps_its_rows(tmp_path: Path) -> None:
    settings, engine = sqlite_ledger(tmp_path), database.open_engine(sqlite_ledger(tmp_path))
    with engine.connect() as connection:
        config = database._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            sa.text("INSERT INTO feedback VALUES ('f', 'd', 1.0, 'thumb', 1.0, '', 'user', '', NULL, true)")
        )
        connection.commit()
    assert database.migrate(engine) == ("0001", VERSION)
    engine.dispose()
    with LedgerReader.opened(settings) as reader:
        found = reader.feedback_by_id("f")
        assert found is not None
        assert found.candidate is None


@pytest.mark.parametrize("replacement", [None, b""])
def test_a_file_that_is_deleted_or_replaced_gets_no_rows_any_more(
    tmp_path: Path, replacement: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    settings = sqlite_ledger(tmp_path)
    sink, place = DatabaseSink(settings), Path(settings.place)
    sink.write([row(0)])
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    if replacement is not None:
        place.write_bytes(replacement)
    sink.write([row(1)])
    sink.write([row(2)])
    sink.close()
    assert events(settings) == [1, 2]
    assert caplog.text.count("was replaced") == 1


def test_a_file_that_is_no_database_any_more_takes_no_rows_and_says_so(tmp_path: Path) -> None:
    settings = sqlite_ledger(tmp_path)
    sink = DatabaseSink(settings)
    sink.write([row(0)])
    for file in tmp_path.glob("ledger.db-*"):
        file.unlink()
    new = tmp_path / "other"
    new.write_bytes(b"no database " * 5000)
    new.replace(settings.place)
    with pytest.raises(LedgerDownError, match="not a database"):
        sink.write([row(1)])
    sink.close()
