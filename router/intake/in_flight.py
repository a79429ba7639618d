"""Count the requests in flight over every door of a process, and end them with an error when the process must end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from router.errors import ShuttingDownError


class InFlight:
    """Tracks the requests that are being worked on. It belongs to one event loop.

    Attributes:
        is_draining: whether the process will soon take no more requests; health checks report it.
    """

    def __init__(self) -> None:
        self.is_draining = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._cancelled: set[asyncio.Task[object]] = set()
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def track(self) -> Iterator[None]:
        """Count the current task as a request in flight while the context lasts.

        Raises ShuttingDownError once `cancel_all` was called, also out of what the task is waiting for at that moment.
        """
        task = _current_task()
        if self._is_closed:
            raise _shutting_down()
        self._tasks.add(task)
        self._idle.clear()
        try:
            yield
        except asyncio.CancelledError:
            # If the caller hung up at the same moment, a cancellation of its own is left, which must go on.
            if task in self._cancelled and task.uncancel() == 0:
                raise _shutting_down() from None
            raise
        finally:
            self._tasks.discard(task)
            self._cancelled.discard(task)
            if not self._tasks:
                self._idle.set()

    async def wait_until_idle(self, within_s: float) -> bool:
        """Wait until no request is in flight, for at most `within_s` seconds. Return whether none is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return not self._tasks

    def cancel_all(self) -> int:
        """End every request in flight with ShuttingDownError and refuse new ones. Return how many were ended."""
        self._is_closed = True
        self._cancelled = set(self._tasks)
        for task in self._cancelled:
            task.cancel()
        return len(self._cancelled)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request must be worked on in a task")
    return task


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the service is shutting down and cannot finish this request; send it again.")
