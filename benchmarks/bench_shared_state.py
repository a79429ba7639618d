"""Measure what one decision would wait for its session, by where the workers of a service could share sessions.

Each place looks up the session that answered last and writes the new one, as a decision does. Run
`python -m benchmarks.bench_shared_state`; it prints JSON.
"""

from __future__ import annotations

import contextlib
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
from tests.postgres import missing, running_postgres

#: Sessions that call in turns, and the calls of each place.
SESSIONS, CALLS = 5000, 5000

#: A decision for a number of a session.
Decide = Callable[[int], object]


@contextlib.contextmanager
def table() -> Iterator[Decide]:
    """Yield a decision that uses the table in memory."""
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
    """Yield a decision that asks another process over a pipe, which keeps a dictionary."""
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


def main() -> None:
    """Measure every place and print the figures."""
    places = [table, sqlite, parent, *([] if missing() else [postgresql])]
    found = {}
    for place in places:
        with place() as decide:
            found[place.__name__] = measured(decide)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
