"""Keep what the processes of one machine share in an SQLite file (`SqliteState`)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from router.sharing import state_rows
from router.sharing.session_table import Entry
from router.sharing.state_rows import SharedSession, StateDatabase, StateDownError


class SqliteState(StateDatabase):
    """Keeps what processes share. A lock that another process holds is waited for, but only for `STATEMENT_S`.

    place: the path of the file, which is made if it does not exist.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._connection: sqlite3.Connection | None = None
        self._is_loaded = False

    async def connect(self) -> None:
        """Connect, and make the tables if they are missing."""
        with _errors():
            # Nobody but its owner may read who uses how much.
            os.close(os.open(self._place, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(self._place, timeout=state_rows.STATEMENT_S, isolation_level=None)
            self._connection = connection
            # After a power failure the last moments may be missing; the file is whole.
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
                connection.execute(f"PRAGMA {pragma}")
            for table in state_rows.TABLES:
                connection.execute(table.format(change=""))

    async def now(self) -> float:
        """Return the time of this machine."""
        return time.time()

    async def sessions(self, ttl_s: float, most: int) -> AsyncIterator[SharedSession]:
        """Yield the newest sessions at the first call. Later there are none, for workers share a table in memory."""
        if self._is_loaded:
            return
        now = time.time()
        query = "SELECT key, kind, candidate, tokens, at FROM elle_sessions_1 WHERE at > ? ORDER BY at DESC LIMIT ?"
        for key, kind, candidate, tokens, at in await self.run(query, [now - ttl_s, most]):
            yield SharedSession(key, kind, Entry(candidate, tokens, max(0.0, now - at)))
        self._is_loaded = True

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""
        if self._connection is None:
            raise StateDownError("not connected")
        with _errors():
            return self._connection.execute(statement, values).fetchall()


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StateDownError(f"{type(error).__name__}: {error}") from error
