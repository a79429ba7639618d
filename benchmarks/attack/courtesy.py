"""`step_back`: attackers leave the processors of this machine to the service and to the other caller.

An attacker has processors of its own. On a machine of few it would take those of the service and of the other caller,
and what was measured would be the attacker's own work.
"""

from __future__ import annotations

import contextlib
import os
import threading

#: How nice attackers are to the service and to the other caller.
NICENESS = 19


def step_back() -> None:
    """Let this thread, and those that it starts, run when the service and the other caller leave a processor free."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
