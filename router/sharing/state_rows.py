"""Define what processes share through a database (`SharedSession`, `StateDatabase`), and the SQL that both kinds know.

What is kept is of the moment, so there are no migrations: tables of another form get another name. A database gets ages
instead of times, so the clocks of replicas need not agree.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from router.sharing.session_table import Entry
from router.sharing.usage import CallerUsage

#: Seconds that a connection may take, and that a statement may take, before the database counts as gone.
CONNECT_S, STATEMENT_S = 3, 2

#: Most rows of one statement.
_ROWS = 200

#: Days for which it is kept what callers have used.
DAYS_KEPT = 2

DAY_S = 86_400

#: The tables. In PostgreSQL a session also has the transaction that changed it last.
TABLES = (
    "CREATE TABLE IF NOT EXISTS elle_sessions_1 (key bytea PRIMARY KEY, kind smallint NOT NULL, "
    "candidate bytea NOT NULL, tokens bigint NOT NULL, at double precision NOT NULL{change})",
    "CREATE TABLE IF NOT EXISTS elle_usage_1 (account bytea NOT NULL, day integer NOT NULL, requests bigint NOT NULL, "
    "turns bigint NOT NULL, strong bigint NOT NULL, usd double precision NOT NULL, PRIMARY KEY (account, day))",
    "CREATE TABLE IF NOT EXISTS elle_state_1 (name varchar(16) PRIMARY KEY, value bytea NOT NULL)",
)
#: Says with which key the digests were made, by a digest of it.
ADD_KEY = "INSERT INTO elle_state_1 (name, value) VALUES ('key', {value}) ON CONFLICT (name) DO NOTHING"
FIND_KEY = "SELECT value FROM elle_state_1 WHERE name = 'key'"

#: Most statements in a row that delete sessions.
_MOST_DELETIONS = 20
#: Finds the time of the oldest session that there is room for, and deletes some of those before a time.
OLDEST_KEPT = "SELECT at FROM elle_sessions_1 ORDER BY at DESC LIMIT 1 OFFSET {value}"
DELETE_SESSIONS = (
    "DELETE FROM elle_sessions_1 WHERE key IN (SELECT key FROM elle_sessions_1 WHERE at < {value} LIMIT 5000) "
    "RETURNING 1"
)
DELETE_USAGE = "DELETE FROM elle_usage_1 WHERE day < {value}"

_SAVE = (
    "INSERT INTO elle_sessions_1 (key, kind, candidate, tokens, at) VALUES {rows} ON CONFLICT (key) DO UPDATE SET "
    "candidate = excluded.candidate, tokens = excluded.tokens, at = excluded.at{change} "
    "WHERE excluded.at > elle_sessions_1.at"
)
#: Leaves a row that is there as it is, and returns whose it is.
_CLAIM = (
    "INSERT INTO elle_sessions_1 (key, kind, candidate, tokens, at) VALUES {rows} ON CONFLICT (key) DO UPDATE SET "
    "at = elle_sessions_1.at RETURNING key, candidate"
)
#: The kind of a row that says which process has claimed something.
_CLAIMED = 3

_ADD_USAGE = (
    "INSERT INTO elle_usage_1 (account, day, requests, turns, strong, usd) VALUES {rows} "
    "ON CONFLICT (account, day) DO UPDATE SET requests = elle_usage_1.requests + excluded.requests, "
    "turns = elle_usage_1.turns + excluded.turns, strong = elle_usage_1.strong + excluded.strong, "
    "usd = elle_usage_1.usd + excluded.usd RETURNING account, day, requests, turns, strong, usd"
)

#: A statement, and its values.
Statement = tuple[str, list[Any]]


class StateDownError(Exception):
    """The database cannot be used now, and may be usable later."""


@dataclass(frozen=True, slots=True)
class SharedSession:
    """Says who answered a session or gave a response.

    Attributes:
        key: the keyed digest of the session.
        kind: 0 for a session, 1 for a response, 2 for what is to be settled of a response.
        entry: who answered; its `at_s` is an age in seconds.
    """

    key: bytes
    kind: int
    entry: Entry


@dataclass(frozen=True, slots=True)
class UsedByAccount:
    """Says what a caller has used on a day.

    Attributes:
        account: the keyed digest of the caller's id.
        day: the days since 1970 (UTC).
        usage: what it has used.
    """

    account: bytes
    day: int
    usage: CallerUsage


class StateDatabase(abc.ABC):
    """Keeps what processes share. One event loop uses it. Every method raises StateDownError.

    Attributes:
        VALUE: how the database writes the place of a value in a statement.
        CHANGE: what a changed session has besides.
    """

    VALUE = "?"
    CHANGE = ""

    @abc.abstractmethod
    async def connect(self) -> None:
        """Connect, and make the tables if they are missing."""

    @abc.abstractmethod
    async def now(self) -> float:
        """Return the Unix time of the database."""

    @abc.abstractmethod
    def sessions(self, ttl_s: float, most: int) -> AsyncIterator[SharedSession]:
        """Yield the newest sessions at the first call, and later those that have changed since the last call."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connection, if there is one."""

    @abc.abstractmethod
    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Execute a statement, and return its rows."""

    async def check_key(self, key: bytes) -> None:
        """Raise StateDownError if digests in the database were made with another key."""
        mine = hashlib.blake2b(b"key", digest_size=16, key=hashlib.sha256(key).digest()).digest()
        await self.run(ADD_KEY.format(value=self.VALUE), [mine])
        if bytes((await self.run(FIND_KEY))[0][0]) != mine:
            raise StateDownError(
                "it was used with another key; give all processes the same --state-key, or another database"
            )

    async def save(self, sessions: Sequence[SharedSession]) -> None:
        """Keep sessions, unless newer entries of theirs are there."""
        if not sessions:
            return
        now = await self.now()
        # Writers that take rows in the same order never wait for each other in a circle.
        ordered = sorted(sessions, key=lambda one: one.key)
        rows = [(s.key, s.kind, s.entry.name, s.entry.tokens, now - s.entry.at_s) for s in ordered]
        for statement in _in_chunks(_SAVE, rows, self.VALUE, self.CHANGE):
            await self.run(*statement)

    async def add_usage(self, used: Sequence[UsedByAccount]) -> dict[tuple[bytes, int], CallerUsage]:
        """Add what callers have used, and return by account and day what they have used in all."""
        ordered = sorted(used, key=lambda one: (one.account, one.day))
        rows = [(u.account, u.day, u.usage.requests, u.usage.turns, u.usage.strong, u.usage.usd) for u in ordered]
        found: list[tuple[Any, ...]] = []
        for statement in _in_chunks(_ADD_USAGE, rows, self.VALUE, ""):
            found += await self.run(*statement)
        return {(bytes(account), day): CallerUsage(*counts) for account, day, *counts in found}

    async def claim(self, keys: Sequence[bytes], owner: bytes) -> set[bytes]:
        """Claim what only one process may do, and return the keys that nobody else had claimed before.

        owner: 16 bytes that only this process has. What it has claimed already it may claim again.
        """
        if not keys:
            return set()
        now = await self.now()
        found: list[tuple[Any, ...]] = []
        for statement in _in_chunks(_CLAIM, [(key, _CLAIMED, owner, 0, now) for key in sorted(keys)], self.VALUE, ""):
            found += await self.run(*statement)
        return {bytes(key) for key, claimed_by in found if bytes(claimed_by) == owner}

    async def tidy(self, ttl_s: float, most: int) -> None:
        """Delete sessions that are older than `ttl_s`, and all but the newest `most`; and usage of days long past."""
        now = await self.now()
        before = await self.run(OLDEST_KEPT.format(value=self.VALUE), [most - 1])
        oldest = max([now - ttl_s, *(row[0] for row in before)])
        for _ in range(_MOST_DELETIONS):
            if not await self.run(DELETE_SESSIONS.format(value=self.VALUE), [oldest]):
                break
        await self.run(DELETE_USAGE.format(value=self.VALUE), [int(now // DAY_S) - DAYS_KEPT])


def _in_chunks(statement: str, rows: Sequence[tuple[Any, ...]], value: str, change: str) -> Iterator[Statement]:
    for at in range(0, len(rows), _ROWS):
        chunk = rows[at : at + _ROWS]
        one_row = f"({', '.join([value] * len(chunk[0]))})"
        text = statement.format(rows=", ".join([one_row] * len(chunk)), change=change)
        yield text, [one for row in chunk for one in row]
