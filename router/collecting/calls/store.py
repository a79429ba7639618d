"""Keep every answer and every verdict that was paid for in an SQLite file, so that nothing is paid for twice.

Before a call is sent, the store records that it will be: with its idempotency key and with the most that it can cost.
A call that was in flight when the process was killed is therefore known at the next start, is asked again under the
same key, and stays charged at the most that it can have cost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from probes.bounded.text import os_fault
from router.collecting.values import ModelAnswer, Verdict
from router.errors import RouterError

#: The format of the file, which SQLite keeps in its header.
FORMAT = 1

_TABLES = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT, input_tokens INTEGER, output_tokens INTEGER,
    cost_usd REAL, mean_token_loss REAL
) WITHOUT ROWID;
CREATE TABLE verdicts (
    key TEXT PRIMARY KEY, score REAL, grader TEXT NOT NULL, version TEXT NOT NULL, reason TEXT NOT NULL,
    detail TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, purpose TEXT NOT NULL, state TEXT NOT NULL, charged_usd REAL NOT NULL
);
CREATE INDEX calls_by_key ON calls (key);
CREATE TABLE written (place TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID;
"""

_TEXT, _NUMBER, _NOTHING = (str,), (int, float), (type(None),)

#: What the columns of an answer and of a verdict hold, in the order in which they are read.
_ANSWER_TYPES = (_TEXT, _TEXT + _NOTHING, *[_NUMBER + _NOTHING] * 4)
_VERDICT_TYPES = (_NUMBER + _NOTHING, *[_TEXT] * 4)

#: How a call ended. `refused` and `failed` calls cost nothing: the upstream said so by a status of the 400s or 500s. Of
#: an `unknown` one nobody knows: it timed out, broke off, or was in flight when the process was killed.
CallState = Literal["answered", "refused", "failed", "unknown"]


class StoreError(RouterError):
    """The store of answers cannot be used: another process has it open, or the file is no store of this version."""

    status = "FAILED_PRECONDITION"


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that the store knows of and that may be sent: its row, and the key under which it is sent."""

    row: int
    idempotency_key: str


class CallStore:
    """Holds answers, verdicts and calls by digest; one process at a time. Make it with `open_store`.

    Every method raises StoreError if the file cannot be read or written, as on a full disk.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def answer(self, key: str, model: str) -> ModelAnswer | None:
        """Return the answer of the call with this digest under the name `model`, or None if it was never answered."""
        found = self._one(
            "SELECT text, finish_reason, input_tokens, output_tokens, cost_usd, mean_token_loss FROM answers "
            "WHERE key = ?",
            key,
        )
        return None if found is None else ModelAnswer(model, *self._checked("answers", found, _ANSWER_TYPES))

    def verdict(self, key: str) -> Verdict | None:
        """Return the verdict with this digest, or None if it was never made."""
        found = self._one("SELECT score, grader, version, reason, detail FROM verdicts WHERE key = ?", key)
        if found is None:
            return None
        score, grader, version, reason, detail = self._checked("verdicts", found, _VERDICT_TYPES)
        try:
            facts = json.loads(detail)
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict) or not (score is None or 0 <= score <= 1):
            raise self._edited("verdicts")
        return Verdict(score, grader, version, reason, facts)

    def add_verdict(self, key: str, verdict: Verdict) -> None:
        """Keep a verdict under this digest."""
        values = (key, verdict.score, verdict.grader, verdict.version, verdict.reason, json.dumps(dict(verdict.detail)))
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)", values)

    def begin(self, key: str, purpose: str, worst_usd: float) -> OpenCall:
        """Record that a call is about to be sent for this purpose, charged at the most that it can cost in USD.

        Its idempotency key is the one of the call before with this digest, unless that one failed for certain: an
        upstream that keeps what it answered to a key would repeat the failure.
        """
        with self._writing():
            failed = self._one("SELECT count(*) FROM calls WHERE key = ? AND state = 'failed'", key)
            row = self._connection.execute(
                "INSERT INTO calls (key, purpose, state, charged_usd) VALUES (?, ?, 'sent', ?)",
                (key, purpose, worst_usd),
            ).lastrowid
        assert failed is not None  # noqa: S101  (a count always has a row)
        assert row is not None  # noqa: S101  (an insert has a row)
        return OpenCall(row, digest(key, failed[0]))

    def answered(self, call: OpenCall, key: str, answer: ModelAnswer, charged_usd: float) -> None:
        """Keep the answer of a call under its digest, and what it cost in USD."""
        values = (
            answer.text,
            answer.finish_reason,
            answer.input_tokens,
            answer.output_tokens,
            answer.cost_usd,
            answer.mean_token_loss,
        )
        with self._writing():
            self._end(call, "answered", charged_usd)
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", (key, *values))

    def ended(self, call: OpenCall, state: CallState, charged_usd: float) -> None:
        """Record how a call ended that brought no answer."""
        with self._writing():
            self._end(call, state, charged_usd)

    def forget(self, call: OpenCall) -> None:
        """Take back a call that was not sent after all."""
        with self._writing():
            self._connection.execute("DELETE FROM calls WHERE id = ?", (call.row,))

    def spent(self, purpose: str) -> tuple[float, int]:
        """Return what all calls for a purpose cost at most, in USD, and how many were or may have been answered."""
        found = self._one(
            "SELECT total(charged_usd), count(*) FROM calls WHERE purpose = ? AND state IN "
            "('sent', 'answered', 'unknown')",
            purpose,
        )
        assert found is not None  # noqa: S101  (a count always has a row)
        return float(found[0]), int(found[1])

    def written(self, place: str) -> str | None:
        """Return the SHA-256 of the file that was last written to this place, or None if nothing was written there."""
        found = self._one("SELECT sha256 FROM written WHERE place = ?", place)
        return None if found is None else str(found[0])

    def set_written(self, place: str, sha256: str) -> None:
        """Record the SHA-256 of the file that is written to this place."""
        with self._writing():
            self._connection.execute("INSERT OR REPLACE INTO written VALUES (?, ?)", (place, sha256))

    def _checked(self, table: str, row: tuple[Any, ...], types: Sequence[tuple[type, ...]]) -> tuple[Any, ...]:
        """Return a row if its values have these types. SQLite keeps a text where a number is declared."""
        if not all(isinstance(value, allowed) for value, allowed in zip(row, types, strict=True)):
            raise self._edited(table)
        return row

    def _edited(self, table: str) -> StoreError:
        return StoreError(
            f"the store {self._path} cannot be used: its table {table} holds a value that this program did not write. "
            "Restore the file from a copy, or give another --store FILE."
        )

    def _end(self, call: OpenCall, state: CallState, charged_usd: float) -> None:
        self._connection.execute(
            "UPDATE calls SET state = ?, charged_usd = ? WHERE id = ?", (state, charged_usd, call.row)
        )

    def _one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from error
        return found

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._connection:
                yield
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> StoreError:
        return StoreError(
            f"the store {self._path} cannot be used any more: {error}. What it holds is kept: mend that, and run the "
            "same command again."
        )


def digest(*parts: object) -> str:
    """Return the SHA-256 in hex of plain JSON values, which is the same in every process and on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[CallStore]:
    """Open the store at this path for as long as the context lasts; make it if there is none.

    Only the owner can read a new file. Raises StoreError if another process has the store open, if the file is another
    kind of file, and if it cannot be read or written.
    """
    try:
        # SQLite makes files that everybody may read.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        connection = sqlite3.connect(path, timeout=0, isolation_level="IMMEDIATE")
    except (OSError, sqlite3.Error) as error:
        raise _unusable(path, error) from error
    with contextlib.closing(connection):
        try:
            _prepare(connection)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise StoreError(
                    f"the store {path} is open in another process; wait until that one ends, or give --store FILE."
                ) from error
            raise _unusable(path, error) from error
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from error
        yield CallStore(connection, path)


def _prepare(connection: sqlite3.Connection) -> None:
    """Take the file for this process alone, and make or check its tables."""
    # Before the first access, so that the lock is held until the connection is closed or the process ends.
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    # What is written survives the death of the process at once, and that of the machine after some seconds. To wait for
    # the disk with each call would take longer than many upstreams take to answer.
    connection.execute("PRAGMA synchronous = NORMAL")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version == 0 and tables == 0:
        connection.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
    elif version != FORMAT:
        raise sqlite3.DatabaseError(f"it has format {version}, and this program reads format {FORMAT}")
    with connection:
        # These were in flight when the process before was killed.
        connection.execute("UPDATE calls SET state = 'unknown' WHERE state = 'sent'")


def _unusable(path: Path, error: Exception) -> StoreError:
    fault = os_fault(error) if isinstance(error, OSError) else str(error)
    return StoreError(f"{path} cannot be used as the store of answers: {fault}. Give another --store FILE.")
