"""Bound the bytes of all answers of upstreams that a process holds at once, so that they cannot fill its memory."""

from __future__ import annotations

import threading

from router.errors import UpstreamUnavailableError

#: The most bytes that all answers together may take, and the bytes of each answer that are not counted.
MAX_BYTES, FREE_BYTES = 256 * 1024 * 1024, 64 * 1024

#: Seconds after which an answer that found no room is asked for again.
RETRY_S = 1.0


class AnswerBudget:
    """Counts the bytes of the answers that are being read or sent, over all threads of the process."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._held_bytes = 0
        self._lock = threading.Lock()

    def change(self, n_bytes: int) -> bool:
        """Take this many bytes, or give them back if negative. Return False, and take nothing, if there is no room."""
        with self._lock:
            if n_bytes > 0 and self._held_bytes + n_bytes > self.max_bytes:
                return False
            self._held_bytes += n_bytes
            return True


#: The budget of this process.
BUDGET = AnswerBudget()


class HeldAnswer:
    """Holds the bytes of one answer in the budget, until it is released or nobody refers to it any more."""

    def __init__(self, budget: AnswerBudget | None = None) -> None:
        self._budget = budget or BUDGET
        self._taken = 0

    def hold(self, n_bytes: int) -> None:
        """Count the answer as this many bytes from now on.

        Raises UpstreamUnavailableError if all answers together take too many. This says nothing of the candidate.
        """
        wanted = max(0, n_bytes - FREE_BYTES)
        if not self._budget.change(wanted - self._taken):
            error = UpstreamUnavailableError(
                f"answers of upstreams take all of the {self._budget.max_bytes:,} bytes that they may take together.",
                retry_after_s=RETRY_S,
            )
            error.counts = False
            raise error
        self._taken = wanted

    def release(self) -> None:
        """Give the bytes back."""
        self.hold(0)

    def __del__(self) -> None:
        self.release()
