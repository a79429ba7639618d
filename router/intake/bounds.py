"""What all doors share to stay within bounds: a budget of bytes in flight, and one thread for large requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from router.errors import OverloadedError

Result = TypeVar("Result")

#: Bytes of all requests in flight together, without the first `FREE_BYTES` of each.
MAX_IN_FLIGHT_BYTES = 256 * 1024 * 1024

#: Bytes of each request that are not counted, so that small requests pass while large ones fill the budget.
FREE_BYTES = 64 * 1024

#: Shorter requests are decoded where they arrive: that takes less than handing them to a thread and waiting for it.
SMALL_BYTES = 32 * 1024

#: Large requests that may wait for the thread.
MAX_WAITING = 64

#: When to try again, in seconds, where there is no room.
RETRY_S = 1.0


class Intake:
    """The bounds of one process. Used from its event loop.

    Large requests are decoded by one thread, one after the other: Python runs one thread at a time, so that each
    further one would only make the event loop wait for more of them.

    Args:
        max_bytes: of all requests in flight together.
        max_waiting: large requests that may wait for the thread, beyond which further ones are refused.
    """

    def __init__(self, *, max_bytes: int = MAX_IN_FLIGHT_BYTES, max_waiting: int = MAX_WAITING) -> None:
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="large-requests")
        self.held_bytes = 0
        self._waiting = 0

    def request(self) -> HeldBytes:
        """The account of one request, to be closed when it has been answered."""
        return HeldBytes(self)

    async def work(self, job: Callable[..., Result], *arguments: object) -> Result:
        """Do a job in the thread for large requests. Raises OverloadedError if too many wait, and what the job does."""
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

    def hold(self, n_bytes: int) -> None:
        """Count further bytes. Raises OverloadedError where there is no room for them."""
        if self.held_bytes + n_bytes > self._max_bytes:
            raise OverloadedError(
                f"requests in flight hold {self.held_bytes:,} bytes, and all together may hold {self._max_bytes:,}; "
                f"try again later.",
                retry_after_s=RETRY_S,
            )
        self.held_bytes += n_bytes

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class HeldBytes:
    """What one request holds of the budget; leaving the context gives it back."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._n_bytes = 0
        self._counted = 0

    def add(self, n_bytes: int) -> None:
        """Further bytes of the request have come. Raises OverloadedError where there is no room for them."""
        self._n_bytes += n_bytes
        beyond = self._n_bytes - FREE_BYTES - self._counted
        if beyond > 0:
            self._intake.hold(beyond)
            self._counted += beyond

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._intake.held_bytes -= self._counted
        self._counted = 0


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames of an error that was told hold: the request, above all.

    Errors and frames refer to each other, so that a large request would be kept until the collector finds it.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]
