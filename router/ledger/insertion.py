"""Write rows to the database of a ledger, each of them once, and delete what must go (`DatabaseSink`)."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import operator
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects import postgresql, sqlite

from router.ledger.database import driver_words, migrate, open_engine
from router.ledger.records import LedgerRow, event_row
from router.ledger.settings import LedgerSettings
from router.ledger.tables import metadata, outcomes
from router.ledger.writer import LedgerDownError
from router.times import first_id_at

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Rows that are deleted in one transaction, so that writers do not wait for long.
_DELETED_ROWS = 2000

_DAY_S = 86_400.0

#: Rows of one statement. SQLite takes at least 999 values in one.
_ROWS_AT_ONCE = 20

#: Seconds for which a table gets rows by statements after one that was there already.
_NO_COPY_S = 60.0

#: Errors that say that a row cannot be kept: those of the database, and those of a driver that cannot send a value.
_UNFIT = (sa.exc.DataError, sa.exc.IntegrityError, TypeError, ValueError, OverflowError)

#: What of an answer is known only at its end.
_ENDS = ("at", "outcome", "input_tokens", "output_tokens", "cost_usd", "error")

#: For each table the column whose ids say how old a row is. Feedback goes with its decision.
_AGES = {"decisions": "decision_id", "outcomes": "decision_id", "feedback": "decision_id", "events": "event_id"}


class DatabaseSink:
    """Writes rows to the database that settings name. It is used by one thread at a time.

    The tables are made or brought up to date when the database is first reached. A database that cannot be reached is
    no error of this class's construction: the service starts without it.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        if settings.is_sqlite:
            # Only its owner may read a ledger. SQLite gives the files beside it the same rights. A folder that cannot
            # be written now is tried again with every write.
            with contextlib.suppress(OSError):
                Path(settings.place).touch(mode=0o600)
        self._engine = open_engine(settings)
        self._may_copy = not settings.is_sqlite
        if self._may_copy:
            sa.event.listen(self._engine, "do_executemany", _copy_rows)
        self._file = Path(settings.place) if settings.is_sqlite else None
        self._file_mark: tuple[int, int] | None = None
        self._keep_days = settings.keep_days
        self._is_migrated = False
        self._inserts = {name: _Insert(table, self._engine.dialect) for name, table in metadata.tables.items()}

    def migrate(self) -> tuple[str, str]:
        """Bring the tables up to date, and return their versions before and after; before may be empty.

        Raises ConfigError for tables of a newer program, and LedgerDownError.
        """
        versions = _attempt(lambda: migrate(self._engine))
        self._is_migrated = True
        self._file_mark = self._mark_of_file()
        return versions

    def write(self, rows: Sequence[LedgerRow]) -> int:
        """Commit rows, and ignore those that are there. Return how many of them no database could ever take."""
        self._leave_a_replaced_file()
        if not self._is_migrated:
            self.migrate()
        try:
            _attempt(lambda: self._insert(rows))
        except _UNFIT as error:
            # The database refuses one of the rows, so each is tried by itself.
            cause = getattr(error, "orig", None) or error
            log.error("the ledger's database refuses a row: %s", type(cause).__name__)  # noqa: TRY400
            return 1 if len(rows) == 1 else sum(self.write([row]) for row in rows)
        return 0

    def tidy(self) -> None:
        """Delete what is older than `keep_days`, and note in the audit trail how many rows that were."""
        if self._keep_days is None or not self._is_migrated:
            return
        oldest = first_id_at(time.time() - self._keep_days * _DAY_S)
        deleted = dict.fromkeys(_AGES, 0)
        for name, column in _AGES.items():
            while n_rows := _attempt(lambda name=name, column=column: self._delete(name, column, oldest)):  # type: ignore[misc]
                deleted[name] += n_rows
        if any(deleted.values()):
            self.write([event_row("rows_expired", deleted)])

    def decisions_of(self, callers: Collection[str], sessions: Collection[str]) -> set[str]:
        """Return the ids of all decisions of these callers and sessions, by their digests. Raises LedgerDownError."""
        table = metadata.tables["decisions"]
        wanted = table.c.caller.in_(callers) | table.c.session.in_(sessions)
        query = sa.select(table.c.decision_id).where(wanted)

        def read() -> set[str]:
            with self._engine.connect() as connection:
                return set(connection.execute(query).scalars())

        return _attempt(read)

    def remove(self, decision_ids: Collection[str], callers: Collection[str]) -> dict[str, int]:
        """Delete decisions with their answers and feedback, and what these callers said of others, for ever.

        Return the number of rows of each table. Raises LedgerDownError.
        """
        ids, removed = sorted(decision_ids), dict.fromkeys(("decisions", "outcomes", "feedback"), 0)
        for start in range(0, len(ids), _DELETED_ROWS):
            part = ids[start : start + _DELETED_ROWS]
            for name in removed:
                removed[name] += _attempt(lambda name=name, part=part: self._remove(name, "decision_id", part))  # type: ignore[misc]
        if callers:
            removed["feedback"] += _attempt(lambda: self._remove("feedback", "caller", sorted(callers)))
        if self._engine.dialect.name == "sqlite":
            _attempt(self._forget_log)
        return removed

    def _remove(self, name: str, column: str, values: Sequence[str]) -> int:
        table = metadata.tables[name]
        with self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":
                # What is deleted is overwritten in the file.
                connection.exec_driver_sql("PRAGMA secure_delete=ON")
            return connection.execute(sa.delete(table).where(table.c[column].in_(values))).rowcount

    def _forget_log(self) -> None:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _leave_a_replaced_file(self) -> None:
        """Begin anew if somebody has moved, deleted or replaced the file: what is committed to it now would be lost."""
        if self._is_migrated and self._mark_of_file() != self._file_mark:
            log.error("the file of the ledger was replaced while the service wrote to it; rows go to the new one")
            self._engine.dispose()
            self._is_migrated = False

    def _mark_of_file(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _insert(self, rows: Sequence[LedgerRow]) -> None:
        by_table: dict[str, list[LedgerRow]] = {}
        for row in rows:
            by_table.setdefault(row.table, []).append(row)
        try:
            self._insert_into(by_table, may_copy=self._may_copy)
        except (*_UNFIT, sa.exc.NotSupportedError) as error:
            if not self._may_copy:
                raise
            # COPY refuses a row that is there: one that is given again, or an answer that has ended since. It is also
            # what a database may not know. Statements do it, and for a while for the table that is at fault.
            at_fault = getattr(getattr(getattr(error, "orig", None), "diag", None), "table_name", None)
            for name in [at_fault] if at_fault in self._inserts else by_table:
                self._inserts[name].copies_from = time.monotonic() + _NO_COPY_S
            self._insert_into(by_table, may_copy=False)

    def _insert_into(self, by_table: Mapping[str, Sequence[LedgerRow]], *, may_copy: bool) -> None:
        with self._engine.begin() as connection:
            for name in sorted(by_table):
                self._inserts[name].execute(connection, by_table[name], may_copy=may_copy)

    def _delete(self, name: str, column: str, oldest: str) -> int:
        table = metadata.tables[name]
        key = next(iter(table.primary_key.columns))
        old = sa.select(key).where(table.c[column] < oldest).limit(_DELETED_ROWS)
        with self._engine.begin() as connection:
            return connection.execute(sa.delete(table).where(key.in_(old))).rowcount


class _Insert:
    """Inserts rows into one table. A row that is there already is left as it is, so that rows may be given again.

    Of two answers of one decision the later one counts, in whatever order they come: an answer in the background ends
    after the caller got a first one. Who gave it, and after which attempts, is what the first row says.

    The statement is compiled once. SQLAlchemy's own way would prepare every value of every row anew, which takes twice
    as long as all the rest. SQLite gets many rows in one statement, because Python's lock is given up for each, and
    under load the writer would wait for the lock as often as there are rows. PostgreSQL gets new rows by `COPY`, which
    takes both sides less time than statements (`benchmarks/bench_ledger.py`).
    """

    def __init__(self, table: sa.Table, dialect: sa.Dialect) -> None:
        insert = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        statement = insert(table)
        if table is outcomes:
            later = {name: statement.excluded[name] for name in _ENDS}
            statement = statement.on_conflict_do_update(
                index_elements=[table.c.decision_id], set_=later, where=statement.excluded.at > table.c.at
            )
        else:
            statement = statement.on_conflict_do_nothing()
        compiled = statement.compile(dialect=dialect)
        self._sql = str(compiled)
        self._is_sqlite = dialect.name == "sqlite"
        self._names: list[str] = getattr(compiled, "positiontup", None) or list(table.columns.keys())
        self._pick = operator.itemgetter(*self._names)
        self._json = [n for n, name in enumerate(self._names) if isinstance(table.columns[name].type, sa.JSON)]
        self._notes_arrival = "arrived" in self._names
        # Most statements are for as many rows as there may be.
        self._statement = functools.cache(self._for_sqlite)
        self._copy = f"COPY {table.name} ({', '.join(self._names)}) FROM STDIN (FORMAT BINARY)"
        self._copied = {"copied_types": [_copied_type(table.columns[name].type) for name in self._names]}
        #: When rows may be copied again, in seconds of the monotonic clock.
        self.copies_from = float("-inf")

    def execute(self, connection: sa.Connection, rows: Sequence[LedgerRow], *, may_copy: bool) -> None:
        """Insert rows into the table. With `may_copy` the database may refuse them all, because one of them is there.

        Raises IntegrityError or another DBAPIError of SQLAlchemy's then.
        """
        # COPY is not worth its own parsing for one row, for which a statement is prepared.
        if may_copy and len(rows) > 1 and time.monotonic() >= self.copies_from:
            connection.exec_driver_sql(self._copy, self._prepared(rows, _binary_json), execution_options=self._copied)
        elif self._is_sqlite:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some = self._prepared(rows[start : start + _ROWS_AT_ONCE], _json_text)
                connection.exec_driver_sql(self._statement(len(some)), tuple(itertools.chain.from_iterable(some)))
        else:
            some = self._prepared(rows, _json_text)
            connection.exec_driver_sql(self._sql, [dict(zip(self._names, one, strict=True)) for one in some])

    def _for_sqlite(self, n_rows: int) -> str:
        """Return the statement that inserts so many rows into SQLite."""
        head, _, tail = self._sql.partition(" VALUES ")
        one, _, tail = tail.partition(")")
        return f"{head} VALUES {', '.join([f'{one})'] * n_rows)}{tail}"

    def _prepared(self, rows: Sequence[LedgerRow], json_of: Callable[[Any], Any]) -> list[tuple[Any, ...]]:
        """Return the values of rows in the order of the statement, JSON as `json_of` makes it."""
        prepared, arrived = [], {"arrived": time.time()} if self._notes_arrival else {}
        for row in rows:
            try:
                values = list(self._pick(row.values))
            except KeyError:
                # What a row does not have is NULL.
                given = {**row.values, **arrived}
                values = [given.get(name) for name in self._names]
            for place in self._json:
                if values[place] is not None:
                    values[place] = json_of(values[place])
            prepared.append(tuple(values))
        return prepared


def _copy_rows(cursor: Any, statement: str, rows: Sequence[Any], context: Any) -> bool:
    """Do in SQLAlchemy's place what it cannot: give rows to a `COPY`. Return False if the statement is another one."""
    types = context.execution_options.get("copied_types")
    if types is None:
        return False
    with cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
    return True


def _copied_type(kind: sa.types.TypeEngine[Any]) -> str:
    """Return the type of PostgreSQL whose binary form the values of a column are given in."""
    # `_binary_json` makes the binary form of JSON.
    names = {sa.Double: "float8", sa.BigInteger: "int8", sa.Boolean: "bool", sa.LargeBinary: "bytea", sa.JSON: "bytea"}
    return next((name for of, name in names.items() if isinstance(kind, of)), "text")


def _json_text(value: Any) -> str:
    return to_json(value).decode()


def _binary_json(value: Any) -> bytes:
    # The first byte is the version of the binary form.
    return b"\1" + to_json(value)


def _attempt(work: Callable[[], T]) -> T:
    """Do something with the database. Raises LedgerDownError unless a row is at fault: all other errors may pass."""
    try:
        return work()
    except _UNFIT:
        raise
    except sa.exc.SQLAlchemyError as error:
        raise LedgerDownError(driver_words(error)) from None
