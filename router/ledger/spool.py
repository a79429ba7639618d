"""Keep rows on the disk while the database does not take them, and give them back in their order (`Spool`).

A spool is a folder of segments. Each line of a segment is a checksum and a row in JSON. A row is acknowledged when its
segment was forced to the disk. Several processes share a folder: each one locks the segment that it writes.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from probes.atomic_write import sync_directory, write_file
from router.ledger.records import LedgerRow, TableName
from router.times import is_time_id, made_at, new_id

log = logging.getLogger(__name__)

#: Bytes after which the next segment is begun.
_SEGMENT_BYTES = 4 * 1024 * 1024

#: Rows that are given back at a time.
_REPLAY_ROWS = 500

_SUFFIX = ".jsonl"

#: What a line holds in place of bytes, which JSON does not have.
_BYTES = "base64"


class SpoolFullError(Exception):
    """The spool holds as many bytes as it may."""


class Spool:
    """Keeps rows in a folder. It is used by one thread.

    Args:
        folder: where the segments lie; it is made when the first row is kept.
        max_bytes: the most bytes of all segments of the folder.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._path = folder
        #: Lines that could not be read again, because the disk had spoiled them.
        self.n_spoiled = 0

    def append(self, rows: Sequence[LedgerRow]) -> None:
        """Keep rows on the disk. When this returns they are there, and if it fails none of them is.

        Raises SpoolFullError if the bound would be exceeded, and OSError if the disk does not take them.
        """
        data = b"".join(_line(row) for row in rows)
        if self.n_bytes + len(data) > self._max_bytes:
            raise SpoolFullError
        file = self._open()
        start = os.fstat(file).st_size
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            os.fsync(file)
        except OSError:
            # A part of a line must not stand before lines that are written later.
            os.ftruncate(file, start)
            raise
        if start + len(data) >= _SEGMENT_BYTES:
            self.close()

    @property
    def n_bytes(self) -> int:
        """Return the bytes of all segments, those of other processes included."""
        total = 0
        for path in self._segments():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    @property
    def oldest_s(self) -> float:
        """Return the age of the oldest segment in seconds, or 0 if there is none."""
        ages = [time.time() - made_at(path.stem) for path in self._segments() if is_time_id(path.stem)]
        return max(0.0, *ages) if ages else 0.0

    @property
    def is_empty(self) -> bool:
        """Return whether no rows wait in the folder."""
        return not self._segments()

    def replay(self, write: Callable[[Sequence[LedgerRow]], None]) -> int:
        """Give every row to `write`, oldest first, and remove what was written. Return the number of rows.

        What `write` raises ends the replay; the rows from there on stay. Rows may be given again after that, so
        `write` must ignore those that it has. Segments that another process writes are left to that process.
        """
        self.close()
        n_rows = 0
        for path in self._segments():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if not _locked(file.fileno(), path):
                    continue
                rows, n_spoiled = _rows(file.read())
                for start in range(0, len(rows), _REPLAY_ROWS):
                    write(rows[start : start + _REPLAY_ROWS])
                n_rows += len(rows)
                if n_spoiled:
                    self.n_spoiled += n_spoiled
                    kept = path.rename(path.with_suffix(".spoiled"))
                    log.error("%d rows of the ledger's spool cannot be read; their segment is %s", n_spoiled, kept)
                else:
                    path.unlink()
        return n_rows

    def waiting(self) -> Iterator[LedgerRow]:
        """Yield every row that can be read, also those that other processes write."""
        for path in (*self._segments(), *self._spoiled()):
            with contextlib.suppress(FileNotFoundError):
                yield from _rows(path.read_bytes())[0]

    def remove(self, must_go: Callable[[LedgerRow], bool]) -> tuple[int, int]:
        """Remove rows for ever. Return how many, and the number of segments that another process writes now.

        Those segments are left as they are. A line that cannot be read is kept, because nobody knows what it holds.
        """
        n_rows = n_busy = 0
        for path in (*self._segments(), *self._spoiled()):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if not _locked(file.fileno(), path):
                    n_busy += 1
                    continue
                lines = file.read().split(b"\n")[:-1]
                kept = [line for line in lines if (row := _row(line)) is None or not must_go(row)]
                if len(kept) < len(lines):
                    n_rows += len(lines) - len(kept)
                    write_file(path, b"".join(line + b"\n" for line in kept), mode=0o600)
        return n_rows, n_busy

    def close(self) -> None:
        """End the segment that is being written."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _spoiled(self) -> list[Path]:
        return sorted(self._folder.glob("*.spoiled"))

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{_SUFFIX}"))

    def _open(self) -> int:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._folder / f"{new_id()}{_SUFFIX}"
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The name of a new file is on the disk only when its folder is.
                sync_directory(self._folder)
            except OSError:
                os.close(file)
                path.unlink()
                raise
            self._file = file
        return self._file


def _rows(data: bytes) -> tuple[list[LedgerRow], int]:
    """Return the rows of a segment, and how many of its lines have a wrong checksum."""
    # What follows the last line end was never acknowledged: the process ended while it wrote.
    lines = data.split(b"\n")[:-1]
    rows = [row for line in lines if (row := _row(line)) is not None]
    return rows, len(lines) - len(rows)


def _locked(file: int, path: Path) -> bool:
    """Take a segment for this process. Return False if another one has it, or has replaced the file meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.stat().st_ino == os.fstat(file).st_ino


def _line(row: LedgerRow) -> bytes:
    text = json.dumps([row.table, dict(row.values)], default=_from_bytes, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _row(line: bytes) -> LedgerRow | None:
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    table, values = json.loads(text, object_hook=_to_bytes)
    return LedgerRow(cast(TableName, table), values) if table in get_args(TableName) else None


def _from_bytes(value: Any) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a row holds {type(value).__name__}, which the spool cannot keep")
    return {_BYTES: base64.b64encode(value).decode()}


def _to_bytes(value: dict[str, Any]) -> Any:
    return base64.b64decode(value[_BYTES]) if value.keys() == {_BYTES} else value
