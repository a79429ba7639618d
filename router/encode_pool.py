"""A bounded queue in front of the encoder: worker threads, one prompt at a time, overload answered at once.

One prompt per forward pass: on a CPU padding batches costs two to four times, a batch of one per core is already at
the arithmetic limit, and a prompt's features then cannot depend on its neighbours.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from probes.encoder import Encoder, FloatArray
from router.errors import OverloadedError


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of one prompt and where the time went, in seconds."""

    features: FloatArray
    queue_s: float
    encode_s: float


class EncodePool:
    """Encodes prompts in worker threads.

    Args:
        encoder: thread-safe.
        workers: threads; None takes one per core.
        max_pending: prompts waiting or in work beyond which further ones are refused.
    """

    def __init__(self, encoder: Encoder, *, workers: int | None = None, max_pending: int = 256) -> None:
        self._encoder = encoder
        self._workers = workers or os.cpu_count() or 1
        self._max_pending = max_pending
        self._pending = 0
        self._recent_s = 0.02
        self._threads = ThreadPoolExecutor(self._workers, thread_name_prefix="encode")

    async def encode(self, text: str) -> Encoded:
        """Features of one prompt.

        A caller that is cancelled while waiting costs no forward pass: its place in the queue is given up.

        Raises OverloadedError at once if the queue is full, and whatever the encoder raises.
        """
        if self._pending >= self._max_pending:
            raise OverloadedError(
                f"{self._pending} prompts are waiting for the encoder, the most allowed; try again later.",
                retry_after_s=max(0.05, self._pending * self._recent_s / self._workers),
            )
        self._pending += 1
        entered = time.perf_counter()
        try:
            # Cancelling the awaiting task cancels the pool's future, which a worker then skips.
            features, started, ended = await asyncio.wrap_future(self._threads.submit(self._work, text))
        finally:
            self._pending -= 1
        self._recent_s += 0.05 * ((ended - started) - self._recent_s)
        return Encoded(features, queue_s=started - entered, encode_s=ended - started)

    def _work(self, text: str) -> tuple[FloatArray, float, float]:
        started = time.perf_counter()
        features = self._encoder.encode(text)
        return features, started, time.perf_counter()

    async def close(self) -> None:
        """Wait for the prompts in work; those still waiting are dropped."""
        shutdown = partial(self._threads.shutdown, wait=True, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, shutdown)
