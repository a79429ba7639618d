"""Read files again when they change, keep the last good state, and try a bad state again (`WatchedFiles`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from probes.bounded.text import os_fault
from probes.errors import ProbesError
from router.errors import RouterError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks at what is watched. A change is in force after at most twice this time.
LOOK_S = 1.0

#: Most seconds until a state that could not be used is tried again.
MOST_RETRY_S = 30.0

#: What tells one state of a file from another; None for a file that cannot be found.
FileMark = tuple[int, int, int] | None


def mark_of(path: Path) -> FileMark:
    """Return what changes when a file changes: its time, size and inode. Return None if there is no file.

    A file that is replaced by another, as Kubernetes does by a link, has another inode.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Attempts:
    """Says when a state is to be read: after each change, and after a failure again and again, ever more rarely.

    A failure is tried again although nothing has changed, because its cause may lie elsewhere: a right of a folder, a
    mount or a database that is away for a moment.

    Args:
        read: the mark of the state that was read already, whatever tells it from another; None if none was.
        settles: whether a change must look the same twice before it is read, because it is made in several steps.
        first_s: seconds until a failure is tried again; they double up to MOST_RETRY_S.
        clock: returns the time in seconds, and never goes backwards.
    """

    def __init__(
        self,
        read: object = None,
        *,
        settles: bool,
        first_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = self._seen = read
        self._settles, self._first_s, self._clock = settles, first_s, clock
        self._wait_s, self._again_at = first_s, math.inf

    def are_due(self, mark: object) -> bool:
        """Return whether a state with this mark is to be read now."""
        is_settled = mark == self._seen or not self._settles
        self._seen = mark
        return is_settled and (mark != self._read or self._clock() >= self._again_at)

    def note(self, mark: object, *, failed: bool) -> None:
        """Note that the state with this mark was read, and whether it could be used."""
        self._wait_s = min(2 * self._wait_s, MOST_RETRY_S) if mark == self._read else self._first_s
        self._read = mark
        self._again_at = self._clock() + self._wait_s if failed else math.inf


class WatchedValue(Generic[T]):
    """Holds a value that is read again now and then, and goes on with the last good one while it cannot be read.

    Args:
        kind: what it is, for the metrics, such as "tokens".
        place: where it is, for the log. It holds no secret.
        value: what it is at first.

    Attributes:
        place: as given.
        value: the last good value.
        failures: how often it could not be read.
        error: why it could not be read when that was last tried; empty if it could.
    """

    def __init__(self, kind: str, place: str, value: T) -> None:
        self.kind, self.value = kind, value
        self.failures, self.error = 0, ""
        self.place = place

    def take(self, load: Callable[[], T]) -> bool:
        """Read the value by `load`, and return whether that worked. An error is logged once, however often it occurs.

        load: raises RouterError or ProbesError, whose message quotes no secret.
        """
        try:
            self.value = load()
        except (RouterError, ProbesError) as error:
            self._note_failure(str(error))
            return False
        except OSError as error:
            self._note_failure(f"{os_fault(error)}.")
            return False
        except Exception as error:
            # Whatever there is to read, the service goes on with what it knows.
            self._note_failure(f"{type(error).__name__}, which is a defect of ELLE Router", error)
            return False
        if self.error:
            log.warning("the %s in %s can be used again", self.kind, self.place)
        self.error = ""
        return True

    def _note_failure(self, why: str, defect: Exception | None = None) -> None:
        self.failures += 1
        if why != self.error:
            message = "the %s in %s cannot be used, and the last good state stays: %s"
            log.error(message, self.kind, self.place, why, exc_info=defect)
        self.error = why


class WatchedFiles(WatchedValue[T]):
    """Holds a value that is made of one or more files, and is made anew when they change.

    Several files are read once they look the same twice, because they may be replaced one after the other.

    Args:
        kind: what the files are, for the log and the metrics, such as "tokens".
        paths: the files.
        load: reads the files and returns the value; raises RouterError or ProbesError, whose message quotes no secret.
        otherwise: returns the value if the files cannot be used at first; without it, what `load` raises is raised.
        clock: returns the time in seconds, and never goes backwards.
    """

    def __init__(
        self,
        kind: str,
        paths: Sequence[Path],
        load: Callable[[], T],
        *,
        otherwise: Callable[[], T] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._load = paths, load
        marks = self._marks()
        self._attempts = Attempts(marks, settles=len(paths) > 1, clock=clock)
        super().__init__(kind, ", ".join(map(str, paths)), load() if otherwise is None else otherwise())
        if otherwise is not None:
            self._attempts.note(marks, failed=not self.take(load))

    def refresh(self) -> bool:
        """Read the files if that is due, and return whether the value is new."""
        marks = self._marks()
        if not self._attempts.are_due(marks):
            return False
        is_read = self.take(self._load)
        self._attempts.note(marks, failed=not is_read)
        if is_read:
            log.warning("the %s in %s changed, and the new state is in force%s", self.kind, self.place, self.told())
        return is_read

    def told(self) -> str:
        """Return what the log tells of a new value, with what leads over to it. It is empty unless a subclass knows."""
        return ""

    def _marks(self) -> tuple[Any, ...]:
        return tuple(map(mark_of, self._paths))


class Refreshable(Protocol):
    """Something that is read again from time to time. Its attributes are those of `WatchedValue`."""

    kind: str
    failures: int
    error: str

    def refresh(self) -> bool:
        """Read it again if that is due, and return whether it has changed. It raises nothing."""


@contextlib.asynccontextmanager
async def kept_fresh(watched: Sequence[Refreshable]) -> AsyncIterator[None]:
    """Take over changes while the context lasts. None of what is watched waits for another."""
    tasks = [asyncio.create_task(keep_fresh(one)) for one in watched]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def keep_fresh(watched: Refreshable, every_s: float = LOOK_S) -> None:
    """Look for a change for ever. Reading happens in another thread, so requests do not wait for a slow disk."""
    while True:
        await asyncio.to_thread(watched.refresh)
        await asyncio.sleep(every_s)
