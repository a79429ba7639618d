"""End a serving process on SIGTERM or SIGINT, and make sure that it is gone in time."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
from types import FrameType

log = logging.getLogger(__name__)

#: Seconds that threads which look up a name or import a module get when everything else is done.
THREAD_GRACE_S = 0.5


class Shutdown:
    """Handles SIGTERM and SIGINT in a serving process. It must be made in the main thread, inside the event loop.

    After the first signal the process lasts `drain_s` seconds at most. If its event loop or its threads are still busy
    then, it exits by force with status 1. A second SIGINT makes it exit at once.

    Args:
        drain_s: seconds from the first signal to the latest end of the process.
    """

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._requested = asyncio.Event()
        self._requested_at: float | None = None
        self._complete = threading.Event()
        self._is_interactive = False
        # The event loop has signal handlers of its own, but they would wait for a loop that hangs.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @property
    def remaining_s(self) -> float:
        """The seconds that are left until the process must have ended, or all of `drain_s` before the first signal."""
        if self._requested_at is None:
            return self._drain_s
        return max(0.0, self._requested_at + self._drain_s - time.monotonic())

    async def wait_for_signal(self) -> bool:
        """Wait for SIGTERM or SIGINT. Return whether the ports are to be closed without delay.

        That is so after SIGINT, because a person at a terminal sends it, and if the parent of this process is dead:
        no load balancer waits for it then, but the service that is started next waits for the ports.
        """
        await self._requested.wait()
        parent = multiprocessing.parent_process()
        return self._is_interactive or (parent is not None and not parent.is_alive())

    def complete(self) -> None:
        """Declare that everything is closed, so that the process may exit without waiting for its threads."""
        self._complete.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._requested_at is not None:
            if number == signal.SIGINT:
                os._exit(1)
            return
        self._requested_at, self._is_interactive = time.monotonic(), number == signal.SIGINT
        threading.Thread(target=self._exit_in_time, name="shutdown", daemon=True).start()
        self._loop.call_soon_threadsafe(self._requested.set)

    def _exit_in_time(self) -> None:
        if self._complete.wait(self._drain_s):
            time.sleep(THREAD_GRACE_S)
            os._exit(0)
        log.error("not everything ended within %g s; exiting by force", self._drain_s)
        os._exit(1)
