"""Requests in work over every door of a serving process: counted, and cut short when the process must end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from router.errors import ShuttingDownError


class InWork:
    """The requests in work. Belongs to one event loop.

    Attributes:
        leaving: whether the process will take no more requests soon, which health checks then tell.
    """

    def __init__(self) -> None:
        self.leaving = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._cut: set[asyncio.Task[object]] = set()
        self._over = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Hold a request, for as long as the context lasts, in the task that works on it.

        Raises ShuttingDownError after `cut`, also out of whatever the task is waiting for then.
        """
        task = _this_task()
        if self._over:
            raise _shutting_down()
        self._tasks.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            # Ours, unless the caller left at the same moment.
            if task in self._cut and task.uncancel() == 0:
                raise _shutting_down() from None
            raise
        finally:
            self._tasks.discard(task)
            self._cut.discard(task)
            if not self._tasks:
                self._idle.set()

    async def finished(self, within_s: float) -> bool:
        """Wait until no request is in work, at most `within_s` seconds; whether none is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return not self._tasks

    def cut(self) -> int:
        """End every request in work with ShuttingDownError, and refuse those that still come; how many were cut."""
        self._over = True
        self._cut = set(self._tasks)
        for task in self._cut:
            task.cancel()
        return len(self._cut)


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request must be worked on in a task")
    return task


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the service is shutting down and cannot finish this request; send it again.")
