"""Write rows to the ledger in a thread of its own, in batches, so that no request waits for it (`LedgerWriter`).

A row is *acknowledged* when the database has committed it, or when the spool has forced it to the disk. An acknowledged
row is never lost and never doubled. Rows that are in memory when the process is killed are not acknowledged; there are
those of the last `flush_s` seconds, as long as database or spool take rows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Protocol

from router.ledger.records import LedgerRow, event_row
from router.ledger.spool import Spool, SpoolFullError

log = logging.getLogger(__name__)

#: Most rows of one commit.
_BATCH_ROWS = 500

#: Seconds until a database that failed is tried again. They double up to the second number.
_RETRY_S, _LONGEST_RETRY_S = 0.5, 10.0

#: Seconds between two looks into the spool while no rows come: another process may have ended and left its segments.
_LOOK_S = 10.0

#: Seconds between two lines of the log about trouble, and between two calls of `tidy`.
_ALARM_S, _TIDY_S = 30.0, 3600.0

_NOT_KEPT = "the ledger takes no rows now"


class LedgerDownError(Exception):
    """The database does not take rows now, and may take them later."""


class RowSink(Protocol):
    """Takes rows for good. `router.ledger.insertion.DatabaseSink` writes them to a database."""

    def write(self, rows: Sequence[LedgerRow]) -> int:
        """Commit rows, and ignore those that are there. Return how many of them no database could ever take.

        Raises LedgerDownError if nothing was committed and it may work later.
        """

    def tidy(self) -> None:
        """Delete what is older than it should be. Called now and then. Raises LedgerDownError."""

    def close(self) -> None:
        """Close the connections to the database."""


@dataclass(frozen=True, slots=True)
class LedgerCounts:
    """Counts what became of the rows since the process started.

    Attributes:
        written: rows that the database has committed.
        spooled: rows that were forced to the spool. When they are replayed they count as written too.
        replayed: rows of the spool that were given to the database.
        dropped: rows that are lost: there was no room for them in memory and on the disk, or no database could take
            them, or the disk spoiled them.
        waiting: rows that wait in memory.
        spool_bytes: bytes of the spool.
        lag_s: age in seconds of the oldest row that the database does not have yet; 0 if it has all of them.
        is_down: whether the database failed when it was last tried.
    """

    written: int = 0
    spooled: int = 0
    replayed: int = 0
    dropped: int = 0
    waiting: int = 0
    spool_bytes: int = 0
    lag_s: float = 0.0
    is_down: bool = False


@dataclass(slots=True)
class _Waiting:
    """Holds a row that waits, or how to make it, and who wants to know when it is acknowledged."""

    make: Callable[[], LedgerRow | None] | None
    done: Future[None] | None = None
    row: LedgerRow | None = None


class LedgerWriter:
    """Takes rows from any thread and writes them in one of its own. Close it to write what waits.

    Args:
        sink: where rows go for good.
        spool: where they go while the sink does not take them.
        queue_rows: the most rows that wait in memory.
        flush_s: the seconds for which rows are gathered for one commit.
    """

    def __init__(self, sink: RowSink, spool: Spool, *, queue_rows: int, flush_s: float) -> None:
        self._sink, self._spool = sink, spool
        self._queue_rows, self._flush_s = queue_rows, flush_s
        self._queue: deque[_Waiting] = deque()
        self._wake, self._urgent = threading.Event(), threading.Event()
        self._counting = threading.Lock()
        self._counts = LedgerCounts()
        self._waiting_since = 0.0
        self._n_reported = 0
        self._alarmed_at = float("-inf")
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self._tidied_at = float("-inf")
        self._is_closing = False
        # Rows that an earlier process spooled are replayed at once.
        self._wake.set()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> LedgerCounts:
        """Return what became of the rows so far."""
        queue_s = time.monotonic() - self._waiting_since if self._queue else 0.0
        lag_s = max(queue_s, self._spool.oldest_s)
        return replace(self._counts, waiting=len(self._queue), spool_bytes=self._spool.n_bytes, lag_s=lag_s)

    def put(self, make: Callable[[], LedgerRow]) -> None:
        """Take a row, which `make` makes in the writer's thread. If the queue is full, it is dropped and counted."""
        if len(self._queue) >= self._queue_rows or self._is_closing:
            self._count(dropped=1)
            return
        if not self._queue:
            self._waiting_since = time.monotonic()
        self._queue.append(_Waiting(make))
        if not self._wake.is_set():
            self._wake.set()

    def put_durably(self, row: LedgerRow) -> Future[None]:
        """Take a row that somebody waits for. The future has a result once the row is acknowledged.

        It has LedgerDownError if neither database nor spool takes the row, which is then not kept. If the future is
        cancelled in time, the row is not written either.
        """
        if len(self._queue) >= self._queue_rows:
            return _refused()
        return self._put_urgently(_Waiting(lambda: row, Future()))

    def flush(self) -> Future[None]:
        """Return a future that has a result when every row that was put before is acknowledged.

        It has LedgerDownError if neither database nor spool takes them.
        """
        return self._put_urgently(_Waiting(lambda: None, Future()))

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, to the database or else to the spool, and end the thread. Later rows are dropped.

        What cannot be written in `timeout_s` seconds is lost, counted and logged.
        """
        self._is_closing = True
        self._urgent.set()
        self._wake.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.error("%d rows of the ledger are lost, because they were not written in time", len(self._queue))

    def _put_urgently(self, waiting: _Waiting) -> Future[None]:
        if self._is_closing or waiting.done is None:
            return _refused()
        if not self._queue:
            self._waiting_since = time.monotonic()
        self._queue.append(waiting)
        self._urgent.set()
        self._wake.set()
        return waiting.done

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._wait()
            is_last = self._is_closing
            try:
                self._write_waiting()
                self._tidy()
            except Exception:
                # Without this thread every further row would be lost.
                log.exception("the ledger's writer failed")
                time.sleep(self._flush_s)
        if lost := sum(one.done is None for one in self._queue):
            self._count(dropped=lost)
            log.error("%d rows of the ledger are lost: neither the database nor the spool took them", lost)
        self._refuse_durable()
        self._spool.close()
        self._sink.close()

    def _wait(self) -> None:
        """Wait for a row, and then for others to come. The spool is looked at now and then without any."""
        if self._counts.is_down:
            self._wake.wait(max(0.0, self._retry_at - time.monotonic()) + self._flush_s)
        else:
            self._wake.wait(_LOOK_S)
        self._urgent.wait(self._flush_s)
        self._wake.clear()
        self._urgent.clear()

    def _write_waiting(self) -> None:
        if self._is_due and not self._spool.is_empty:
            self._try_sink(self._replay)
        if self._is_due and (dropped := self._counts.dropped) > self._n_reported:
            detail = {"rows": dropped - self._n_reported}
            if self._try_sink(lambda: self._write([event_row("rows_dropped", detail)])):
                self._n_reported = dropped
        # What comes meanwhile has its turn next time. Else each commit would be of the few rows that came during the
        # one before it, and a commit takes longer than a row.
        n_left = len(self._queue)
        while n_left:
            batch = [self._queue.popleft() for _ in range(min(_BATCH_ROWS, n_left))]
            n_left -= len(batch)
            if not self._keep(batch):
                self._queue.extendleft(reversed(batch))
                self._refuse_durable()
                for one in tuple(self._queue):
                    self._made(one)
                self._alarm("neither its database nor its spool takes rows; they wait in memory, and further ones drop")
                return

    def _keep(self, batch: Sequence[_Waiting]) -> bool:
        """Write rows to the database or else to the spool. Return False if neither takes them."""
        wanted = [one for one in batch if one.done is None or not one.done.cancelled()]
        rows = [row for one in wanted if (row := self._made(one)) is not None]
        is_written = not rows or (self._is_due and self._try_sink(lambda: self._write(rows)))
        if not is_written and not self._keep_in_spool(rows):
            return False
        for one in wanted:
            if one.done is not None and one.done.set_running_or_notify_cancel():
                one.done.set_result(None)
        return True

    def _made(self, waiting: _Waiting) -> LedgerRow | None:
        """Return a row, which is made the first time. What it is made of may hold a prompt, and is then forgotten."""
        make, waiting.make = waiting.make, None
        if make is not None:
            try:
                waiting.row = make()
            except Exception:
                log.exception("a row of the ledger could not be made")
                self._count(dropped=1)
        return waiting.row

    def _write(self, rows: Sequence[LedgerRow]) -> None:
        refused = self._sink.write(rows)
        self._count(written=len(rows) - refused, dropped=refused)

    def _replay(self) -> None:
        spoiled = self._spool.n_spoiled
        try:
            n_rows = self._spool.replay(self._write)
        except OSError as error:
            self._alarm(f"its spool cannot be read ({error.strerror})")
            return
        self._count(replayed=n_rows, dropped=self._spool.n_spoiled - spoiled)
        if n_rows:
            log.warning("%d rows of the ledger's spool were written to the database", n_rows)

    def _keep_in_spool(self, rows: Sequence[LedgerRow]) -> bool:
        try:
            self._spool.append(rows)
        except (SpoolFullError, OSError):
            return False
        self._count(spooled=len(rows))
        return True

    @property
    def _is_due(self) -> bool:
        return time.monotonic() >= self._retry_at

    def _try_sink(self, work: Callable[[], None]) -> bool:
        """Do something with the database. Return False, and leave it alone for a while, if it does not work now."""
        try:
            work()
        except Exception as error:
            if not isinstance(error, LedgerDownError):
                log.exception("the ledger's database failed in a way that nobody expected")
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            self._counts = replace(self._counts, is_down=True)
            self._alarm(f"its database takes no rows ({error}); they go to the spool")
            return False
        if self._counts.is_down:
            log.warning("the ledger's database takes rows again")
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self._counts = replace(self._counts, is_down=False)
        return True

    def _tidy(self) -> None:
        if time.monotonic() >= self._tidied_at + _TIDY_S and self._is_due:
            self._tidied_at = time.monotonic()
            self._try_sink(self._sink.tidy)

    def _refuse_durable(self) -> None:
        """Tell everybody who waits for a row that it is not kept, and forget these rows."""
        waiting = [self._queue.popleft() for _ in range(len(self._queue))]
        for one in waiting:
            if one.done is None:
                self._queue.append(one)
            elif one.done.set_running_or_notify_cancel():
                one.done.set_exception(LedgerDownError(_NOT_KEPT))

    def _count(self, *, written: int = 0, replayed: int = 0, spooled: int = 0, dropped: int = 0) -> None:
        with self._counting:
            old = self._counts
            self._counts = replace(
                old,
                written=old.written + written,
                replayed=old.replayed + replayed,
                spooled=old.spooled + spooled,
                dropped=old.dropped + dropped,
            )
        if dropped:
            self._alarm("rows were dropped")

    def _alarm(self, trouble: str) -> None:
        """Log a trouble, but not more often than every `_ALARM_S` seconds."""
        if time.monotonic() >= self._alarmed_at + _ALARM_S:
            self._alarmed_at = time.monotonic()
            log.error("the ledger is in trouble: %s. Rows dropped so far: %d", trouble, self._counts.dropped)


def _refused() -> Future[None]:
    done: Future[None] = Future()
    done.set_exception(LedgerDownError(_NOT_KEPT))
    return done
