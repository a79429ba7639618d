"""Exchange sessions and usage with other processes through a database, apart from all requests (`StateExchange`).

No request ever waits for the database. A process says what is new a few times a second, and hears what others said.
While the database is gone, each process goes on with what it knows, and says the rest when the database is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from router.ledger.settings import DatabaseSettings
from router.loop_thread import LoopThread, in_background
from router.sharing.session_table import KEY_BYTES, Entry
from router.sharing.sqlite_state import SqliteState
from router.sharing.state_rows import CONNECT_S, SharedSession, StateDatabase, StateDownError, UsedByAccount
from router.sharing.usage import Unsent, UsageBook

log = logging.getLogger(__name__)

#: Seconds between two exchanges, and the least of them when something is urgent.
EXCHANGE_S, LEAST_S = 0.25, 0.01

#: Seconds until a database that failed is tried again. They double up to the second number.
_RETRY_S, _LONGEST_RETRY_S = 0.25, 4.0

#: Seconds between two times of deleting what is old, and the least sessions that are kept in a database.
_TIDY_S, _LEAST_KEPT = 30.0, 1000

#: Most sessions that wait to be said. When there are more, the oldest of them is not said.
_MOST_WAITING = 50_000

#: Seconds between two lines of the log about trouble.
_ALARM_S = 30.0


class Memory(Protocol):
    """Remembers who answered, as `router.deciding.session_memory.SessionMemory` does.

    Attributes:
        listener: is told of every entry that this process makes.
    """

    listener: Callable[[bytes, Entry], None] | None

    def learn(self, key: bytes, entry: Entry) -> None:
        """Take over an entry that another process made, unless a newer one is here."""


@dataclass(frozen=True)
class StateSettings:
    """Says what a process shares and where.

    Attributes:
        database: the database.
        ttl_s: the seconds for which sessions are kept.
        most: the most sessions that are read at once; 0 shares no sessions.
        reads: whether this process reads the sessions of others; one worker does for all of a machine.
    """

    database: DatabaseSettings
    ttl_s: float
    most: int
    reads: bool = True


@dataclass
class ExchangeCounts:
    """Counts how the exchange goes.

    Attributes:
        failures: exchanges that failed.
        unsaid: sessions that others were never told, because too many waited.
        worked_at: when the last exchange worked, by the monotonic clock; at first when the process began.
    """

    failures: int = 0
    unsaid: int = 0
    worked_at: float = 0.0

    @property
    def age_s(self) -> float:
        """The seconds since the last exchange worked."""
        return time.monotonic() - self.worked_at


class StateExchange:
    """Says what is new in this process, and takes over what is new in others. It runs in an event loop of its own.

    Args:
        settings: what is shared and where.
        memories: those of `AnswerMemory`, in an order that all processes have alike.
        accounts: what callers have used.
    """

    def __init__(self, settings: StateSettings, memories: Sequence[Memory], accounts: UsageBook) -> None:
        self._settings, self._memories, self._accounts = settings, memories, accounts
        self._key = settings.database.key()
        self._secret = hashlib.sha256(self._key).digest()
        self._database: StateDatabase | None = None
        self._waiting: dict[bytes, SharedSession] = {}
        self._to_settle: dict[bytes, Callable[[], None]] = {}
        self._owner = secrets.token_bytes(KEY_BYTES)
        self._is_new = True
        self._tidied_at = self._alarmed_at = float("-inf")
        self._retry_s = _RETRY_S
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = asyncio.Event()
        self._lock = threading.Lock()
        self._tried = threading.Event()
        self.counts = ExchangeCounts(worked_at=time.monotonic())
        accounts.on_due = self._wake
        if settings.most:
            for kind, memory in enumerate(memories):
                memory.listener = partial(self.note, kind)

    def note(self, kind: int, key: bytes, entry: Entry) -> None:
        """Note a new entry of this process, which others are to be told. Any thread may call this."""
        with self._lock:
            self._waiting.pop(key, None)
            self._waiting[key] = SharedSession(key, kind, entry)
            self._forget_oldest()

    def settle_once(self, key: bytes, settle: Callable[[], None]) -> None:
        """Call `settle` in a moment, in another thread, unless a process that shares the database does it for the key.

        While the database is away it waits. Any thread may call this.
        """
        with self._lock:
            self._to_settle[key] = settle
            if len(self._to_settle) > _MOST_WAITING:
                self._to_settle.pop(next(iter(self._to_settle)))
        self._wake()

    def _forget_oldest(self) -> None:
        while len(self._waiting) > _MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self.counts.unsaid += 1

    async def run(self) -> None:
        """Tell and hear what is new a few times a second, for ever, and try again after a failure."""
        self._loop = asyncio.get_running_loop()
        while True:
            works = await self._try()
            self._tried.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._due.wait() if works else asyncio.Event().wait(), self._pause_s(works))
            self._due.clear()
            await asyncio.sleep(LEAST_S)

    def wait_until_tried(self) -> None:
        """Wait until the first exchange has worked or failed, but not for long."""
        self._tried.wait(CONNECT_S)

    async def finish(self) -> None:
        """Say what is new for the last time, and close the database."""
        await self._try()
        await self._close()

    async def _try(self) -> bool:
        try:
            await self._exchange()
        except StateDownError as error:
            await self._note_failure(str(error))
            return False
        except Exception:
            # Whatever it is, requests are decided by what this process knows, and the next exchange may work.
            log.exception("the exchange of sessions and usage failed")
            await self._note_failure("see the error above")
            return False
        self._is_new, self._retry_s = False, _RETRY_S
        self.counts.worked_at = time.monotonic()
        return True

    async def _exchange(self) -> None:
        database = self._database
        if database is None:
            database = self._database = opened(self._settings.database)
            await database.connect()
            await database.check_key(self._key)
        self._accounts.clock_ahead_s = await database.now() - time.time()
        await self._settle(database)
        await self._tell_usage(database)
        await self._tell_sessions(database)
        if self._settings.reads:
            await self._hear_sessions(database)
            if time.monotonic() > self._tidied_at + _TIDY_S:
                self._tidied_at = time.monotonic()
                await database.tidy(self._settings.ttl_s, max(_LEAST_KEPT, 2 * self._settings.most))
        self._accounts.share(works=True)

    async def _settle(self, database: StateDatabase) -> None:
        with self._lock:
            taken, self._to_settle = self._to_settle, {}
        claims = {hashlib.blake2b(key, digest_size=KEY_BYTES, person=b"settled").digest(): key for key in taken}
        try:
            won = await database.claim(list(claims), self._owner)
        except BaseException:
            with self._lock:
                self._to_settle = taken | self._to_settle
            raise
        for claim in won:
            taken[claims[claim]]()

    async def _tell_sessions(self, database: StateDatabase) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, {}
        now = time.monotonic()
        sessions = [replace(one, entry=replace(one.entry, at_s=now - one.entry.at_s)) for one in taken.values()]
        try:
            await database.save(sessions)
        except BaseException:
            with self._lock:
                # What is newer keeps its place at the end.
                self._waiting = {key: one for key, one in taken.items() if key not in self._waiting} | self._waiting
                self._forget_oldest()
            raise

    async def _hear_sessions(self, database: StateDatabase) -> None:
        heard = database.sessions(self._settings.ttl_s, self._settings.most)
        async for one in heard:
            entry = replace(one.entry, at_s=time.monotonic() - one.entry.at_s)
            if 0 <= one.kind < len(self._memories) and len(one.key) == KEY_BYTES == len(entry.name):
                self._memories[one.kind].learn(one.key, entry)

    async def _tell_usage(self, database: StateDatabase) -> None:
        unsent = self._accounts.take_unsent()
        digests = {self._digest(one): one for one in unsent}
        try:
            rows = [UsedByAccount(digest, one.day, one.usage) for digest, one in digests.items()]
            totals = await database.add_usage(rows)
        except BaseException:
            for one in unsent:
                self._accounts.give_back(one)
            raise
        for digest, one in digests.items():
            self._accounts.learn(one, totals[digest, one.day], is_new=self._is_new)

    def _digest(self, one: Unsent) -> bytes:
        return hashlib.blake2b(one.account.encode(), digest_size=KEY_BYTES, key=self._secret).digest()

    async def _note_failure(self, trouble: str) -> None:
        self.counts.failures += 1
        self._is_new = True
        self._accounts.share(works=False)
        await self._close()
        if time.monotonic() > self._alarmed_at + _ALARM_S:
            self._alarmed_at = time.monotonic()
            name = self._settings.database.name
            log.error("the shared state %s cannot be used (%s); each process goes on with what it knows", name, trouble)

    async def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(Exception):
                await database.close()

    def _pause_s(self, works: bool) -> float:
        if works:
            return EXCHANGE_S
        pause_s, self._retry_s = self._retry_s, min(2 * self._retry_s, _LONGEST_RETRY_S)
        return pause_s

    def _wake(self) -> None:
        if self._loop is not None and not self._due.is_set():
            # The loop is closed when the service ends.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._due.set)


def opened(settings: DatabaseSettings) -> StateDatabase:
    """Return the database that settings name, which is not connected yet."""
    if settings.is_sqlite:
        return SqliteState(settings.place)
    from router.sharing.postgres_state import PostgresState

    return PostgresState(settings.url.replace("+psycopg", "", 1))


@contextlib.asynccontextmanager
async def exchanging(
    settings: StateSettings, memories: Sequence[Memory], accounts: UsageBook
) -> AsyncIterator[StateExchange]:
    """Exchange in a thread while the context lasts, and once more at its end.

    It begins after the first exchange, so that the sessions of others are known, or a few seconds later.
    """
    exchange = StateExchange(settings, memories, accounts)
    thread = LoopThread("state")
    try:
        async with in_background(thread.call(exchange.run)):
            await asyncio.to_thread(exchange.wait_until_tried)
            yield exchange
    finally:
        await thread.aclose(exchange.finish)
