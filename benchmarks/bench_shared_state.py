"""Measure what one decision would wait for its session, by where the workers of a service could share sessions.

Each place looks up the session that answered last and writes the new one, as a decision does. Then it measures what an
exchange with a database takes, which no decision waits for. Run `python -m benchmarks.bench_shared_state`; it prints
JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import multiprocessing
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from router.deciding.session_memory import SessionMemory
from router.ledger.settings import DatabaseSettings
from router.sharing.exchange import opened
from router.sharing.session_table import Entry
from router.sharing.state_rows import SharedSession, UsedByAccount
from router.sharing.usage import CallerUsage
from tests.postgres import missing, running_postgres

#: Sessions that call in turns, and the calls of each place.
SESSIONS, CALLS = 5000, 5000

#: A decision for a number of a session.
Decide = Callable[[int], object]


@contextlib.contextmanager
def table() -> Iterator[Decide]:
    """Yield a function that does what one decision does with its session: here in the table in shared memory."""
    memory = SessionMemory(max_entries=50_000, ttl_s=3600)

    def decide(number: int) -> None:
        memory.held("me", str(number), "policy", ("small", "large"))
        memory.remember("me", str(number), "policy", "large", number)

    yield decide


@contextlib.contextmanager
def sqlite() -> Iterator[Decide]:
    """Yield a decision that uses an SQLite file in memory, which does not wait for a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        connection = sqlite3.connect(Path(folder) / "sessions.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE sessions (id BLOB PRIMARY KEY, name TEXT, tokens INT) WITHOUT ROWID")

        def decide(number: int) -> None:
            key = str(number).encode()
            connection.execute("SELECT name, tokens FROM sessions WHERE id = ?", (key,)).fetchone()
            connection.execute("INSERT OR REPLACE INTO sessions VALUES (?, 'large', ?)", (key, number))

        yield decide
        connection.close()


@contextlib.contextmanager
def parent() -> Iterator[Decide]:
    """Yield the same with another process, which keeps a dictionary and is asked over a pipe."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_keep, args=(theirs,), daemon=True)
    process.start()

    def decide(number: int) -> None:
        mine.send((number, "large"))
        mine.recv()

    decide(0)
    yield decide
    process.kill()
    process.join()


def _keep(pipe: Connection) -> None:
    sessions: dict[int, str] = {}
    while True:
        number, name = pipe.recv()
        pipe.send(sessions.get(number))
        sessions[number] = name


@contextlib.contextmanager
def postgresql() -> Iterator[Decide]:
    """Yield a decision that looks its session up in PostgreSQL; what is written is written later."""
    import psycopg

    with running_postgres() as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE sessions (id bytea PRIMARY KEY, name text)")
        connection.execute("INSERT INTO sessions SELECT n::text::bytea, 'large' FROM generate_series(1, 5000) n")

        def decide(number: int) -> None:
            connection.execute("SELECT name FROM sessions WHERE id = %s", (str(number).encode(),)).fetchone()

        yield decide


def measured(decide: Decide) -> dict[str, float]:
    """Return the times of decisions, in microseconds."""
    times = []
    for number in range(CALLS):
        began = time.perf_counter()
        decide(number % SESSIONS)
        times.append(1e6 * (time.perf_counter() - began))
    return {"median_us": round(statistics.median(times), 1), "p99_us": round(statistics.quantiles(times, n=100)[98], 1)}


async def exchanged(settings: DatabaseSettings) -> dict[str, float]:
    """Return the milliseconds of the steps of an exchange: 1,000 sessions are told and heard, and 100 callers."""
    mine, theirs = opened(settings), opened(settings)
    await mine.connect()
    await theirs.connect()
    found: dict[str, list[float]] = {"tell_1000_sessions": [], "hear_1000_sessions": [], "tell_100_callers": []}
    _ = [one async for one in theirs.sessions(3600, 100_000)]
    for step in range(20):
        keys = [hashlib.sha256(b"%d-%d" % (step, number)).digest()[:16] for number in range(1000)]
        sessions = [SharedSession(key, 0, Entry(key, 7, 0.0)) for key in keys]
        callers = [UsedByAccount(key, 20_000, CallerUsage(1, 1, 0, 0.01)) for key in keys[:100]]
        began = time.perf_counter()
        await mine.save(sessions)
        told = time.perf_counter()
        heard = [one async for one in theirs.sessions(3600, 100_000)]
        read = time.perf_counter()
        await mine.add_usage(callers)
        found["tell_1000_sessions"].append(told - began)
        if heard:
            found["hear_1000_sessions"].append((read - told) * 1000 / len(heard))
        found["tell_100_callers"].append(time.perf_counter() - read)
    await mine.close()
    await theirs.close()
    return {f"{name}_ms": round(1000 * statistics.median(times), 1) for name, times in found.items() if times}


def exchanges() -> dict[str, dict[str, float]]:
    """Return what exchanges take, by the kind of database."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        key = Path(folder) / "key"
        key.write_text("0" * 32)
        places = {"sqlite": str(Path(folder) / "state.db")}
        if not missing():
            places["postgresql"] = stack.enter_context(running_postgres()).url
        return {kind: asyncio.run(exchanged(DatabaseSettings(place, key))) for kind, place in places.items()}


def main() -> None:
    """Measure every place and print the figures."""
    places = [table, sqlite, parent, *([] if missing() else [postgresql])]
    found = {}
    for place in places:
        with place() as decide:
            found[place.__name__] = measured(decide)
    print(json.dumps({"decision": found, "exchange": exchanges()}, indent=1))


if __name__ == "__main__":
    main()
