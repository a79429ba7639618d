"""When a serving process ends: the signals that ask it to, and the latest moment by which it is gone."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from types import FrameType

log = logging.getLogger(__name__)

#: Seconds that threads may take that are still looking up a name or importing when everything else is done.
LINGER_S = 0.5


class Ending:
    """What SIGTERM and SIGINT do to a process that serves. Made in the main thread, within its event loop.

    From the signal on the process lasts `drain_s` seconds at most, whatever keeps its loop or its threads busy; then it
    is left by force, with exit status 1. A second SIGINT leaves at once.

    Args:
        drain_s: that time, in seconds.
    """

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._began: float | None = None
        self._ends = threading.Event()
        self._hurried = False
        # Not the loop's own handlers, which wait for a loop that may be busy.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    @property
    def left_s(self) -> float:
        """Seconds left to this process; all of them while no signal has come."""
        return self._drain_s if self._began is None else max(0.0, self._began + self._drain_s - time.monotonic())

    async def asked(self) -> bool:
        """Wait for a signal; whether whoever sent it is a person at a terminal (SIGINT), who waits for nothing."""
        await self._asked.wait()
        return self._hurried

    def done(self) -> None:
        """Everything is closed, so the process may be left without waiting for its threads."""
        self._ends.set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._began is not None:
            if number == signal.SIGINT:
                os._exit(1)
            return
        self._began, self._hurried = time.monotonic(), number == signal.SIGINT
        threading.Thread(target=self._leave, name="ending", daemon=True).start()
        self._loop.call_soon_threadsafe(self._asked.set)

    def _leave(self) -> None:
        if self._ends.wait(self._drain_s):
            time.sleep(LINGER_S)
            os._exit(0)
        log.error("not everything came to its end within %g s; leaving it", self._drain_s)
        os._exit(1)


def ignore_hangup() -> None:
    """Let SIGHUP, which would end the process, do nothing but say so in the log.

    It is neither a reload, which does not exist yet, nor an end: a service outlives the terminal it was started from.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(
            signal.SIGHUP,
            lambda *_: log.warning(
                "SIGHUP does nothing: policies are read at start; restart the service to change them"
            ),
        )
