"""Count the requests in flight over every door of a process, and end them with an error when the process must end."""

from __future__ import annotations

import asyncio
import contextlib

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

    def track(self) -> TrackedRequest:
        """Return a context that counts the current task as a request in flight while it lasts."""
        return TrackedRequest(self)

    def begin(self) -> asyncio.Task[object]:
        """Count the current task as a request in flight, and return it. Raises ShuttingDownError after `cancel_all`."""
        task = _current_task()
        if self._is_closed:
            raise _shutting_down()
        self._tasks.add(task)
        self._idle.clear()
        return task

    def end(self, task: asyncio.Task[object], error: BaseException | None) -> None:
        """Count a task as a request in flight no longer.

        error: the exception with which it ended. Raises ShuttingDownError if that is what `cancel_all` did to it.
        """
        was_cancelled = task in self._cancelled
        self._tasks.discard(task)
        self._cancelled.discard(task)
        if not self._tasks:
            self._idle.set()
        # If the caller hung up at the same moment, a cancellation of its own is left, which must go on.
        if was_cancelled and isinstance(error, asyncio.CancelledError) and task.uncancel() == 0:
            raise _shutting_down() from None

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


class TrackedRequest:
    """Counts the current task as a request in flight while the context lasts.

    It raises ShuttingDownError once `InFlight.cancel_all` was called, also out of what the task is waiting for at that
    moment. `contextlib` would make the same of a generator, in several times the time.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight

    def __enter__(self) -> None:
        self._task = self._in_flight.begin()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._in_flight.end(self._task, error)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a request must be worked on in a task")
    return task


def _shutting_down() -> ShuttingDownError:
    return ShuttingDownError("the service is shutting down and cannot finish this request; send it again.")
