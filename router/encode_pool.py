"""A bounded queue in front of the encoder: worker threads, one prompt at a time, overload answered at once.

One prompt per forward pass: on a CPU padding batches costs two to four times, a batch of one per core is already near
the arithmetic limit, and a prompt's features then cannot depend on its neighbours (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from probes.encoder import Encoder, FloatArray
from router.errors import DeadlineError, OverloadedError

#: Prompts that may wait or be in work per thread. At some 5 ms a prompt those in the queue wait a sixth of a second:
#: a longer queue answers no one sooner, it only makes everyone late.
PENDING_PER_THREAD = 32

#: Niceness of the encoder's threads, on top of the process's.
ENCODER_NICENESS = 10

#: How much of a new duration goes into the running mean that retry hints are computed from.
_MEMORY = 0.05


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of one prompt and where the time went, in seconds."""

    features: FloatArray
    queue_s: float
    encode_s: float


class EncodePool:
    """Encodes prompts in worker threads.

    Args:
        encoder: thread-safe, and without Python's lock while it computes.
        threads: None takes one per core.
        max_pending: prompts waiting or in work beyond which further ones are refused; None takes
            `PENDING_PER_THREAD` for each thread.
    """

    def __init__(self, encoder: Encoder, *, threads: int | None = None, max_pending: int | None = None) -> None:
        self._encoder = encoder
        self._n_threads = threads or os.cpu_count() or 1
        self._max_pending = max_pending or PENDING_PER_THREAD * self._n_threads
        self._pending = 0
        self._recent_s = 0.02
        self._threads = ThreadPoolExecutor(self._n_threads, thread_name_prefix="encode", initializer=_step_back)

    @property
    def pending(self) -> int:
        """Prompts waiting or in work."""
        return self._pending

    async def encode(self, text: str, *, deadline: float | None = None) -> Encoded:
        """Features of one prompt.

        A caller that is cancelled while waiting costs no forward pass: its place in the queue is given up. Nor does
        one whose `deadline`, a time of `time.perf_counter`, passes while it waits.

        Raises OverloadedError at once if the queue is full, DeadlineError, and whatever the encoder raises.
        """
        if self._pending >= self._max_pending:
            raise OverloadedError(
                f"{self._pending} prompts are waiting for the encoder, the most allowed; try again later.",
                retry_after_s=max(0.05, self._pending * self._recent_s / self._n_threads),
            )
        self._pending += 1
        entered = time.perf_counter()
        try:
            # Cancelling the awaiting task cancels the pool's future, which a worker then skips.
            work = self._threads.submit(self._work, text, deadline)
            features, started, ended = await asyncio.wrap_future(work)
        finally:
            self._pending -= 1
        self._recent_s += _MEMORY * ((ended - started) - self._recent_s)
        return Encoded(features, queue_s=started - entered, encode_s=ended - started)

    def _work(self, text: str, deadline: float | None) -> tuple[FloatArray, float, float]:
        started = time.perf_counter()
        if deadline is not None and started >= deadline:
            raise DeadlineError("the caller's deadline passed while the prompt waited for the encoder.")
        features = self._encoder.encode(text)
        return features, started, time.perf_counter()

    async def close(self) -> None:
        """Wait for the prompts in work; those still waiting are dropped."""
        shutdown = partial(self._threads.shutdown, wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, shutdown)


def _step_back() -> None:
    # On Linux niceness is a thread's own. Encoding takes every core it gets; the loop that accepts and refuses requests
    # must come first, or refusals wait as long as answers.
    if sys.platform == "linux":
        own = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + ENCODER_NICENESS)
