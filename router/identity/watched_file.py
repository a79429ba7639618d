"""Read files again when they change, and keep what they held last while they cannot be read (`WatchedFiles`)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from probes.errors import ProbesError
from router.errors import RouterError
from router.file_marks import mark_of

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two looks at the files. A change is in force after at most twice this time.
LOOK_S = 1.0


class WatchedFiles(Generic[T]):
    """Holds a value that is made of one or more files, and is made anew when they change.

    Args:
        what: what the files are, for the log, such as "tokens".
        paths: the files.
        load: reads the files and returns the value; raises RouterError or ProbesError, whose message quotes no secret.

    Attributes:
        value: what the files held when they could be read last.
        failures: how many changes could not be taken over.

    Raises what `load` raises, when it is made.
    """

    def __init__(self, what: str, paths: Sequence[Path], load: Callable[[], T]) -> None:
        self._what = what
        self._paths = paths
        self._load = load
        self._seen = self._marks()
        self._suspect: tuple[Any, ...] | None = None
        self.value = load()
        self.failures = 0

    def refresh(self) -> bool:
        """Read the files if they have changed, and return whether the value is new.

        A change that cannot be read counts as a failure when it is seen for the second time, because two files may be
        replaced one after the other. The old value stays.
        """
        marks = self._marks()
        if marks == self._seen:
            return False
        try:
            value = self._load()
        except (RouterError, ProbesError) as error:
            if marks == self._suspect:
                self._seen = marks
                self.failures += 1
                # The message says what is wrong; where it was noticed helps nobody.
                log.error("the %s changed but cannot be used; the old ones stay in force: %s", self._what, error)  # noqa: TRY400
            self._suspect = marks
            return False
        self._seen, self._suspect, self.value = marks, None, value
        log.warning("the %s changed, and the new ones are in force", self._what)
        return True

    def _marks(self) -> tuple[Any, ...]:
        return tuple(map(mark_of, self._paths))


class Refreshable(Protocol):
    """Something that is read again from time to time."""

    @property
    def failures(self) -> int:
        """How many changes could not be taken over."""

    def refresh(self) -> bool:
        """Read it again if that is due, and return whether it has changed."""


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
        try:
            await asyncio.to_thread(watched.refresh)
        except Exception:
            # Whatever there is to read, the service goes on with what it knows.
            log.exception("what changed could not be read; the old state stays in force")
        await asyncio.sleep(every_s)
