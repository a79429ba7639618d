"""Bound what all doors of a process take in: a budget of bytes, and one thread for large requests (`Intake`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from router.errors import OverloadedError

Result = TypeVar("Result")

#: The largest number of bytes of all requests in flight together, without the first `FREE_BYTES` of each.
MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024

#: The bytes of each request that do not count, so that small requests still pass when large ones have used the budget.
FREE_BYTES = 64 * 1024

#: A request of at most this many bytes is decoded where it arrives. Handing it to a thread and waiting takes longer.
SMALL_BYTES = 32 * 1024

#: The largest number of large requests that wait for the thread, with the one in work.
MAX_WAITING = 64

#: Seconds after which a caller may try again if there is no room.
RETRY_S = 1.0


class Intake:
    """Enforces the bounds on all requests that one process takes in. Use it from the event loop of the process.

    One thread decodes the large requests, one after the other. More threads would not help: Python runs one thread at a
    time, and the event loop would have to wait for more of them.

    Args:
        max_bytes: the largest number of bytes of all requests in flight together.
        max_waiting: the number of large requests in work or waiting above which further ones are refused.

    Attributes:
        n_arriving: the number of gRPC requests that have begun and are not decoded yet.
    """

    def __init__(self, *, max_bytes: int = MAX_IN_FLIGHT_BYTES, max_waiting: int = MAX_WAITING) -> None:
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large-requests")
        self.n_arriving = 0
        self._held_bytes = 0
        self._waiting = 0

    @property
    def held_bytes(self) -> int:
        """Return how many bytes of the budget are in use."""
        return self._held_bytes

    def hold_bytes(self) -> HeldBytes:
        """Return an account of the bytes of one request, which starts at 0.

        Use it as a context that lasts until the request has been answered.
        """
        return HeldBytes(self)

    async def run_in_thread(self, job: Callable[..., Result], *arguments: object) -> Result:
        """Run a job in the thread for large requests, and return its result.

        Raises OverloadedError if too many jobs wait, and whatever the job raises.
        """
        if self._waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._waiting} large requests wait to be decoded, the most allowed; try again later.",
                retry_after_s=RETRY_S,
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job, *arguments)
        finally:
            self._waiting -= 1

    def take(self, n_bytes: int) -> None:
        """Take this many bytes out of the budget. Raise OverloadedError if fewer are left."""
        if self._held_bytes + n_bytes > self._max_bytes:
            raise OverloadedError(
                f"requests in flight hold {self._held_bytes:,} bytes, and all together may hold {self._max_bytes:,}; "
                f"try again later.",
                retry_after_s=RETRY_S,
            )
        self._held_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Give this many bytes back to the budget."""
        self._held_bytes -= n_bytes

    def close(self) -> None:
        """End the thread for large requests."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class HeldBytes:
    """Counts the bytes that one request takes out of the budget. Leaving its context gives them back."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._n_bytes = 0
        self._taken = 0

    def add(self, n_bytes: int) -> None:
        """Count further bytes of the request. Raise OverloadedError if the budget has no room for them."""
        self._n_bytes += n_bytes
        beyond = self._n_bytes - FREE_BYTES - self._taken
        if beyond > 0:
            self._intake.take(beyond)
            self._taken += beyond

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def give_back(self) -> None:
        """Give back to the budget what the request took out of it."""
        if self._taken:
            self._intake.give_back(self._taken)
            self._taken = 0


def forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error that the caller has been told, and of the errors that led to it.

    The frames in a traceback hold the request. Errors and frames refer to each other, so that a large request would
    stay in memory until the garbage collector finds it.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]
