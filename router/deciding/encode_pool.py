"""A bounded queue in front of the encoder: worker threads, one prompt at a time, overload answered at once.

One prompt per forward pass: on a CPU padding batches costs two to four times, a batch of one per core is already near
the arithmetic limit, and a prompt's features then cannot depend on its neighbours (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from probes.encoders.spec import Encoder, FloatArray, HelpedEncoder
from probes.errors import EncoderError
from router.deciding.cores import usable_cores
from router.errors import DeadlineError, OverloadedError, ShuttingDownError

#: Prompts that may wait or be in work per thread. At some 5 ms a prompt those in the queue wait less than a tenth of a
#: second: a longer queue answers no one sooner, it only makes everyone late.
PENDING_PER_THREAD = 16

#: Niceness of the encoder's threads, on top of the process's.
ENCODER_NICENESS = 10

#: How much of a new duration goes into the running mean that retry hints are computed from.
_MEMORY = 0.05


@dataclass(frozen=True, slots=True)
class Encoded:
    """Features of one prompt and where the time went, in seconds.

    `encode_s` is that of the whole forward pass, which `n_together` prompts shared.
    """

    features: FloatArray
    queue_s: float
    encode_s: float
    n_together: int = 1


@dataclass(frozen=True, slots=True)
class _Job:
    """A prompt that waits, and who is to hear of it, in which loop."""

    text: str
    deadline: float | None
    entered: float
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Encoded]


class EncodePool:
    """Encodes prompts in threads of its own.

    Not an executor of the standard library: its futures are handed from thread to loop in five steps where one does,
    and a decision has a millisecond for everything but encoding.

    Args:
        encoder: thread-safe, and without Python's lock while it computes.
        threads: None takes one per core that may be used (`cores`). With more than one, a lone prompt may be
            helped by a core that would idle.
        max_pending: prompts waiting or in work beyond which further ones are refused; None takes
            `PENDING_PER_THREAD` for each thread.
    """

    def __init__(self, encoder: Encoder, *, threads: int | None = None, max_pending: int | None = None) -> None:
        n_threads = threads or usable_cores()
        if n_threads > 1 and isinstance(encoder, HelpedEncoder):
            encoder.use_idle_core()
        self._encoder = encoder
        self._max_pending = max_pending or PENDING_PER_THREAD * n_threads
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pending = 0
        self._closed = False
        self._recent_s = 0.02
        # They hold on to the queue, not to the pool: one that is forgotten, or alive at exit, ends its threads.
        self._threads = [
            threading.Thread(target=self._live, args=(encoder, self._jobs), name=f"encode-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()
        self._end = weakref.finalize(self, _end, self._jobs, self._threads)

    @property
    def pending(self) -> int:
        """Prompts waiting or in work."""
        return self._pending

    def begin(self, text: str, *, deadline: float | None = None) -> asyncio.Future[Encoded]:
        """Queue one prompt; its features come with the future, in the running loop.

        A future that is cancelled while its prompt waits costs no forward pass: its place in the queue is given up. Nor
        does one whose `deadline`, a time of `time.perf_counter`, passes while it waits.

        Raises at once ShuttingDownError if the pool is closed, and OverloadedError if the queue is full. The future
        raises DeadlineError, and whatever the encoder raises.
        """
        # A prompt behind the last word to the threads would wait for ever.
        if self._closed:
            raise ShuttingDownError("the encoder's threads have ended, because the service is shutting down.")
        if self._pending >= self._max_pending:
            raise OverloadedError(
                f"{self._pending} prompts are waiting for the encoder, the most allowed; try again later.",
                retry_after_s=max(0.05, self._pending * self._recent_s / len(self._threads)),
            )
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Encoded] = loop.create_future()
        answer.add_done_callback(self._done)
        self._pending += 1
        self._jobs.put(_Job(text, deadline, time.perf_counter(), loop, answer))
        return answer

    def _done(self, answer: asyncio.Future[Encoded]) -> None:
        self._pending -= 1
        if not answer.cancelled() and answer.exception() is None:
            encoded = answer.result()
            self._recent_s += _MEMORY * (encoded.encode_s / encoded.n_together - self._recent_s)

    @staticmethod
    def _live(encoder: Any, jobs: queue.SimpleQueue[_Job | None]) -> None:
        # What a thread runs; another kind of pool runs something else.
        _serve(encoder, jobs)

    async def close(self) -> None:
        """Wait for the prompts in work; those still waiting are dropped, and their futures cancelled.

        From the call on `begin` refuses. Closing again does nothing more.
        """
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._end)


def _serve(encoder: Encoder, jobs: queue.SimpleQueue[_Job | None]) -> None:
    """The life of one thread: until it finds None in the queue."""
    _step_back()
    while (job := jobs.get()) is not None:
        if not job.answer.cancelled():
            _send(job, _work(encoder, job))
        # Else this prompt would be kept until the next one comes.
        del job


def _work(encoder: Encoder, job: _Job) -> Encoded | Exception:
    started = time.perf_counter()
    if job.deadline is not None and started >= job.deadline:
        return _late()
    try:
        features = encoder.encode(job.text)
    except BaseException as error:
        return _failure(error)
    return Encoded(features, queue_s=started - job.entered, encode_s=time.perf_counter() - started)


def _late() -> DeadlineError:
    return DeadlineError("the caller's deadline passed while the prompt waited for the encoder.")


def _failure(error: BaseException) -> Exception:
    # A panic of Rust code is none of Python's usual errors, and must not end the thread.
    if isinstance(error, Exception):
        return error
    return EncoderError(f"the encoder broke down on a prompt: {type(error).__name__}.")


def _send(job: _Job, outcome: Encoded | Exception) -> None:
    # A loop that was closed has nobody waiting in it.
    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(_deliver, job.answer, outcome)


def _deliver(answer: asyncio.Future[Encoded], outcome: Encoded | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _drop(job: _Job) -> None:
    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(job.answer.cancel)


def _end(jobs: queue.SimpleQueue[_Job | None], threads: Sequence[threading.Thread]) -> None:
    with contextlib.suppress(queue.Empty):
        while (job := jobs.get_nowait()) is not None:
            _drop(job)
    for _ in threads:
        jobs.put(None)
    for thread in threads:
        # The collector may run this in any thread, one of these included.
        if thread is not threading.current_thread():
            thread.join()


def _step_back() -> None:
    # On Linux niceness is a thread's own. Encoding takes every core it gets; the loop that accepts and refuses requests
    # must come first, or refusals wait as long as answers.
    if sys.platform == "linux":
        own = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + ENCODER_NICENESS)
