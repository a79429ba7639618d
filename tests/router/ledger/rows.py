"""Make rows and settings for tests of the ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from router.ledger.records import LedgerRow, event_row
from router.ledger.settings import LedgerSettings
from router.ledger.spool import Spool
from router.ledger.writer import LedgerDownError, LedgerWriter


def row(number: int = 0) -> LedgerRow:
    return event_row("test", {"number": number})


def numbers(rows: Sequence[LedgerRow]) -> list[int]:
    return [one.values["detail"]["number"] for one in rows if one.values["kind"] == "test"]


class FakeSink:
    """Keeps rows in memory by their ids, and fails as long as `is_down`."""

    def __init__(self) -> None:
        self.rows: dict[str, LedgerRow] = {}
        self.is_down = False
        self.refused: set[int] = set()
        self.n_tidied = 0
        self.is_closed = False

    def write(self, rows: Sequence[LedgerRow]) -> int:
        self._check()
        taken = [one for one in rows if one.values["detail"].get("number") not in self.refused]
        for one in taken:
            self.rows.setdefault(one.values["event_id"], one)
        return len(rows) - len(taken)

    def tidy(self) -> None:
        self._check()
        self.n_tidied += 1

    def close(self) -> None:
        self.is_closed = True

    def _check(self) -> None:
        if self.is_down:
            raise LedgerDownError("it is down")

    @property
    def numbers(self) -> list[int]:
        return numbers(list(self.rows.values()))


def writer_of(sink: FakeSink, folder: Path, *, queue_rows: int = 1000, spool_bytes: int = 10**6) -> LedgerWriter:
    return LedgerWriter(sink, Spool(folder / "spool", spool_bytes), queue_rows=queue_rows, flush_s=0.001)


def sqlite_ledger(folder: Path, **changes: object) -> LedgerSettings:
    return LedgerSettings(str(folder / "ledger.db"), flush_s=0.001, **changes)  # type: ignore[arg-type]


def wait_until(is_true: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a condition holds. It is an error if it does not hold in time."""
    ends = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.002)
