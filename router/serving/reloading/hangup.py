"""Turn SIGHUP into a wish to reload, so that it never ends the process (`on_hangup`)."""

from __future__ import annotations

import signal
from collections.abc import Callable


def on_hangup(notice: Callable[[], object]) -> None:
    """Call `notice` on each SIGHUP from now on. It is called between two steps of the main thread, and must be quick.

    A terminal that closes sends SIGHUP too. A service should outlive it, and a reload does no harm.
    """
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: notice())
