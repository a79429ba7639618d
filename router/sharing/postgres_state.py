"""Keep what replicas share in a PostgreSQL database (`PostgresState`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import psycopg

from router.sharing import state_rows
from router.sharing.session_table import Entry
from router.sharing.state_rows import CONNECT_S, STATEMENT_S, SharedSession, StateDatabase, StateDownError

#: A number by which processes agree in PostgreSQL that only one of them makes the tables.
_LOCK = 0x656C6C67

#: Seconds after which a transaction of ours is over, whatever happens.
_OVER_S = 15.0

_SELECT = (
    "SELECT key, kind, candidate, tokens, greatest(0, extract(epoch FROM clock_timestamp())::float8 - at) "
    "FROM elle_sessions_1 WHERE "
)
_TRANSACTIONS = (
    "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint FROM pg_current_snapshot() s"
)
_NOW = "extract(epoch FROM clock_timestamp())::float8"


class PostgresState(StateDatabase):
    """Keeps what replicas share. No statement is waited for longer than `STATEMENT_S`.

    conninfo: the URL of the database.
    """

    VALUE = "%s"
    CHANGE = ", change = pg_current_xact_id()"

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        #: The transaction from which on changes have not been read; None before the first reading.
        self._since: int | None = None
        # When we looked, and the first transaction that had not begun then.
        self._looked: deque[tuple[float, int]] = deque()

    async def connect(self) -> None:
        """Connect, and make the tables if they are missing."""
        options = f"-c statement_timeout={STATEMENT_S * 1000} -c idle_in_transaction_session_timeout=5000"
        with _errors():
            self._connection = await psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                connect_timeout=CONNECT_S,
                options=options,
                application_name="elle-router",
                # Poolers lead statements of one process to different connections.
                prepare_threshold=None,
            )
        # The last table is there once all are.
        if (await self.run("SELECT to_regclass('elle_state_1')"))[0][0] is None:
            await self._make_tables()

    async def _make_tables(self) -> None:
        with _errors():
            async with self._connected.transaction():
                await self.run("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
                for table in state_rows.TABLES:
                    change = ", change xid8 NOT NULL DEFAULT pg_current_xact_id()"
                    await self.run(table.format(change=change))
                await self.run("CREATE INDEX IF NOT EXISTS elle_sessions_1_change ON elle_sessions_1 (change)")

    async def now(self) -> float:
        """Return the Unix time of the database."""
        return float((await self.run(f"SELECT {_NOW}"))[0][0])

    async def sessions(self, ttl_s: float, most: int) -> AsyncIterator[SharedSession]:
        """Yield the newest sessions at the first call, and later those that have changed since the last call.

        A transaction may end after one that began later. So all changes are read again that were made since the
        oldest transaction began that was not over; a foreign one that takes long counts as over after `_OVER_S`.
        """
        oldest, newest = (await self.run(_TRANSACTIONS))[0]
        if self._since is None:
            rows = await self.run(f"{_SELECT} at > {_NOW} - %s ORDER BY at DESC LIMIT %s", [ttl_s, most])
        else:
            rows = await self.run(f"{_SELECT} change >= %s::text::xid8 ORDER BY change LIMIT %s", [self._since, most])
        for key, kind, candidate, tokens, age_s in rows:
            yield SharedSession(bytes(key), kind, Entry(bytes(candidate), tokens, age_s))
        self._looked.append((time.monotonic(), newest))
        over = time.monotonic() - _OVER_S
        while len(self._looked) > 1 and self._looked[1][0] < over:
            self._looked.popleft()
        looked_at, first = self._looked[0]
        self._since = max(oldest, first) if looked_at < over else oldest

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            # Saying farewell could wait for a server that is gone.
            self._connection.pgconn.finish()
            self._connection = None

    @property
    def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._connection is None:
            raise StateDownError("not connected")
        return self._connection

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        with _errors():
            # A server that is stopped, or behind a cable that is cut, answers nothing at all.
            async with asyncio.timeout(STATEMENT_S + 1):
                cursor = await self._connected.execute(statement, values or None)
                return await cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (psycopg.Error, OSError, TimeoutError) as error:
        raise StateDownError(type(error).__name__) from error
