"""The ledger in a real PostgreSQL: the same tables, each row once, and nothing lost when the server is killed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from router.errors import ConfigError
from router.ledger import database
from router.ledger.export import export_ledger
from router.ledger.insertion import DatabaseSink
from router.ledger.opening import opened_reader
from router.ledger.recorder import Ledger
from router.ledger.records import LedgerRow, event_row
from router.ledger.settings import LedgerSettings
from router.ledger.stats import ledger_stats
from router.ledger.tables import metadata
from router.times import new_id
from router.values import RouteQuery
from tests.postgres import Postgres, missing, running_postgres
from tests.router.ledger.rows import row, wait_until
from tests.router.ledger.test_recorder import decided, logged

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def settings(server: Postgres, tmp_path: Path) -> LedgerSettings:
    (tmp_path / "key").write_text("0" * 32)
    return LedgerSettings(server.url, key_file=tmp_path / "key", spool_dir=tmp_path / "spool", flush_s=0.001)


def count(settings: LedgerSettings, kind: str) -> list[int]:
    with opened_reader(settings) as reader:
        return [one.detail["number"] for one in reader.events(kind)]


def statements_of(sink: DatabaseSink) -> list[str]:
    """Return a list to which each statement that the sink executes from now on adds its first words."""
    executed: list[str] = []
    sa.event.listen(sink._engine, "before_cursor_execute", lambda *told: executed.append(told[2].split("(")[0].strip()))
    return executed


def stored(settings: LedgerSettings, name: str, ids: Collection[str]) -> list[dict[str, Any]]:
    """Return the rows of a table with these ids in the order of the ids, without what differs for equal rows."""
    engine, table = database.open_engine(settings), metadata.tables[name]
    (key,) = table.primary_key.columns
    with engine.connect() as connection:
        found = connection.execute(sa.select(table).where(key.in_(ids)).order_by(key)).mappings().all()
    engine.dispose()
    return [{column: value for column, value in one.items() if column not in {key.name, "arrived"}} for one in found]


def test_the_migrations_make_exactly_the_tables_that_the_code_names(settings: LedgerSettings) -> None:
    engine = database.open_engine(settings)
    database.migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_decisions_are_written_read_counted_and_exported(settings: LedgerSettings, tmp_path: Path) -> None:
    keeping = replace(settings, keep_prompts=True, keep_features=True)
    decisions = decided(tmp_path, keeping, RouteQuery.from_prompt("why\0?", session_id="s", request_id="\0r"))
    found = next(one for one in logged(settings) if one.decision_id == decisions[0].decision_id)
    assert (found.values["prompt"], found.answered_by) == ("why\ufffd?", "large")
    assert found.features is not None
    with opened_reader(settings) as reader:
        assert ledger_stats(reader)["decisions"] == 1
        assert export_ledger(reader, tmp_path / "out")["decisions"] == 1


def test_a_row_is_kept_once_and_one_that_is_refused_costs_no_other(settings: LedgerSettings) -> None:
    sink = DatabaseSink(settings)
    rows = [event_row("once", {"number": number}) for number in range(3)]
    refused = replace(rows[1], values=dict(rows[1].values) | {"at": "not a number"})
    assert sink.write([rows[0], refused, rows[2]]) == 1
    assert sink.write(rows) == 0
    sink.close()
    assert sorted(count(settings, "once")) == [0, 1, 2]


def test_rows_that_are_copied_are_those_that_statements_insert(settings: LedgerSettings, tmp_path: Path) -> None:
    keeping = replace(settings, keep_prompts=True, keep_features=True, place=str(tmp_path / "other.db"))
    with patch.object(DatabaseSink, "write", return_value=0) as write:
        decided(tmp_path, keeping, *(RouteQuery.from_prompt(f"why {n}?\n\t\\ 'é'", session_id="s") for n in range(2)))
    rows: list[LedgerRow] = [one for call in write.call_args_list for one in call.args[0] if one.table != "events"]
    sink = DatabaseSink(settings)
    sink.migrate()
    executed, found = statements_of(sink), []
    for parts in ([[one] for one in rows], [rows]):
        new = {one.values["decision_id"]: new_id() for one in rows}
        for part in parts:
            sink.write(
                [replace(one, values={**one.values, "decision_id": new[one.values["decision_id"]]}) for one in part]
            )
        found.append([stored(settings, name, new.values()) for name in ("decisions", "outcomes")])
    sink.close()
    assert executed == [
        *["INSERT INTO decisions"] * 2,
        *["INSERT INTO outcomes"] * 2,
        "COPY decisions",
        "COPY outcomes",
    ]
    assert found[0] == found[1]
    assert [one["prompt"] for one in found[1][0]] == ["why 0?\n\t\\ 'é'", "why 1?\n\t\\ 'é'"]
    assert [one["candidates"][0]["candidate"] for one in found[1][0]] == ["small", "small"]
    assert [one["input_tokens"] for one in found[1][1]] == [12, 12]


def test_rows_that_are_given_again_stay_as_they_are_and_their_table_is_not_copied_into_for_a_while(
    settings: LedgerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, rows = DatabaseSink(settings), [event_row("again", {"number": number}) for number in range(4)]
    assert sink.write(rows[:2]) == 0
    executed = statements_of(sink)
    assert sink.write([replace(one, values={**one.values, "actor": "somebody"}) for one in rows[:3]]) == 0
    assert sink.write(rows) == 0
    assert executed == ["COPY events", "INSERT INTO events", "INSERT INTO events"]
    found = stored(settings, "events", [one.values["event_id"] for one in rows])
    assert [(one["detail"]["number"], one["actor"]) for one in found] == [(0, ""), (1, ""), (2, "somebody"), (3, "")]
    monkeypatch.setattr(sink._inserts["events"], "copies_from", 0.0)
    assert sink.write([row(), row()]) == 0
    assert executed[3:] == ["COPY events"]
    sink.close()


@pytest.mark.slow
def test_a_server_that_is_killed_loses_and_doubles_nothing(
    settings: LedgerSettings, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.ledger.writer._RETRY_S", 0.05)
    monkeypatch.setattr("router.ledger.writer._LONGEST_RETRY_S", 0.1)
    ledger = Ledger(settings)
    for number in range(300):
        ledger.writer.put(lambda number=number: row(number))  # type: ignore[misc]
        if number == 100:
            server.kill()
    ledger.writer.flush().result(60)
    assert ledger.counts.is_down
    assert ledger.counts.spooled > 0
    server.start()
    wait_until(lambda: not ledger.counts.is_down and not ledger.counts.spool_bytes, 60)
    ledger.close()
    assert count(settings, "test") == list(range(300))
    assert ledger.counts.dropped == 0


def test_two_processes_that_migrate_at_once_take_turns(settings: LedgerSettings) -> None:
    first, second = database.open_engine(settings), database.open_engine(settings)
    with first.connect() as connection:
        database._take_turn(connection)
        with second.connect() as waiting:
            waiting.execute(sa.text("SET lock_timeout = '50ms'"))
            with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
                database._take_turn(waiting)
    first.dispose()
    second.dispose()


def test_no_password_is_in_an_error(settings: LedgerSettings) -> None:
    wrong = replace(settings, place=settings.place.replace("hunter2", "hunter3"))
    with pytest.raises(ConfigError) as refused, opened_reader(wrong):
        pass
    assert "hunter3" not in str(refused.value)
    assert "cannot use the ledger postgresql://127.0.0.1/postgres" in str(refused.value)
