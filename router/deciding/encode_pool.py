"""Encode prompts in threads, one prompt at a time each, out of a bounded queue. A full queue refuses at once.

On a CPU one prompt per forward pass is best: padding makes a batch two to four times slower, one prompt per core is
near the limit of the arithmetic, and the features of a prompt cannot depend on its neighbours (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

from probes.encoders.spec import Encoder, HelpedEncoder
from router.deciding.cores import usable_cores
from router.deciding.encode_job import EncodedPrompt, EncodeJob, deadline_error, failure_of
from router.deciding.fair_queue import NOBODY, FairQueue, Who
from router.errors import OverloadedError, ShuttingDownError

#: The number of prompts per thread that may wait or be in work. At about 5 ms per prompt the last one waits less than a
#: tenth of a second. A longer queue would answer nobody sooner, and would only make everybody late.
PENDING_PER_THREAD = 16

#: How much nicer the encoder's threads are than the process. They take Python's lock before and after each prompt. If
#: they were much nicer, a busy machine would stop them while they hold it, and with them the whole process: at 10
#: others waited up to 70 ms, at 3 not longer than at 0.
ENCODER_NICENESS = 3

#: What an event loop may encode itself (`EncodePool.is_quick`): prompts of about so many tokens at most, while the pool
#: has at most so many threads and a prompt takes at most so many seconds on average.
_QUICK_TOKENS, _QUICK_THREADS, _QUICK_S = 240, 2, 0.01

#: Characters of ASCII in a token. One of another script is a token by itself.
_ASCII_PER_TOKEN = 5

#: The weight of a new duration in the exponential moving average that retry hints are computed from.
_NEW_DURATION_WEIGHT = 0.05

#: Seconds per prompt that retry hints assume before any prompt has been encoded.
_FIRST_GUESS_S = 0.02


class EncodePool:
    """Encodes prompts in threads of its own.

    It is not an executor of the standard library: that hands a future from thread to loop in five steps instead of one,
    and a decision has one millisecond for everything except encoding.

    Args:
        encoder: a thread-safe encoder that releases Python's lock while it computes.
        threads: the number of threads; None takes one per usable core (`cores`). If there are more than one, a core
            that would be idle may help with a lone prompt.
        max_pending: the number of prompts waiting or in work above which further ones are refused; None takes
            `PENDING_PER_THREAD` for each thread.
    """

    def __init__(self, encoder: Encoder, *, threads: int | None = None, max_pending: int | None = None) -> None:
        n_threads = threads or usable_cores()
        if n_threads > 1 and isinstance(encoder, HelpedEncoder):
            encoder.use_idle_core()
        self._max_pending = max_pending or PENDING_PER_THREAD * n_threads
        self._encoder = encoder
        # Of another encoder than ours nobody knows how long it may take, however quick it was.
        self._has_quick_encoder = n_threads <= _QUICK_THREADS and isinstance(encoder, HelpedEncoder)
        self._jobs = FairQueue()
        self._pending = 0
        self._closed = False
        self._mean_encode_s = _FIRST_GUESS_S
        # The threads refer to the queue and not to the pool. So a pool that nobody uses any more is collected, or is
        # finalized at exit, and both end its threads.
        self._threads = [
            threading.Thread(target=self._run_thread, args=(encoder, self._jobs), name=f"encode-{number}", daemon=True)
            for number in range(n_threads)
        ]
        for thread in self._threads:
            thread.start()
        self._shut_down = weakref.finalize(self, _shut_down, self._jobs, self._threads)

    @property
    def pending(self) -> int:
        """Return the number of prompts that wait for the encoder or are being encoded."""
        return self._pending

    @property
    def batch_slots(self) -> int:
        """Return how many prompts of batches are let in at a time: one thread is left to single prompts.

        On two cores a batch is as fast with one prompt at a time, because the idle core helps with it.
        """
        return max(1, len(self._threads) - 1)

    def is_quick(self, text: str) -> bool:
        """Return whether the event loop, while no other request has begun, should encode this prompt itself.

        That saves two changes of threads. It must not take long, because the loop can do nothing else meanwhile. With
        more than two threads, another prompt that comes meanwhile would wait for this one although a core is free; with
        two, the idle core helps with this one.
        """
        return (
            not self._pending
            and not self._closed
            and self._has_quick_encoder
            and self._mean_encode_s <= _QUICK_S
            and _has_few_tokens(text)
        )

    def encode_here(self, text: str, *, deadline: float | None = None) -> EncodedPrompt:
        """Encode a prompt in the calling thread and return its features.

        It raises what the future that `submit` returns raises: DeadlineError, and whatever the encoder raises.
        """
        outcome = _encode(self._encoder, text, deadline, time.perf_counter())
        if isinstance(outcome, EncodedPrompt):
            self._note_duration(outcome)
            return outcome
        raise failure_of(outcome)

    def submit(self, text: str, *, deadline: float | None = None, who: Who = NOBODY) -> asyncio.Future[EncodedPrompt]:
        """Put a prompt in the queue, and return the future of its features in the running event loop.

        A prompt costs no forward pass if its future is cancelled, or its `deadline` passes, while it waits. The
        deadline is a time of `time.perf_counter`. Callers take turns by `who`. If the queue is full, the newest prompt
        of the caller who has most in it makes room for one who has fewer.

        Raises ShuttingDownError at once if the pool is closed, and OverloadedError if the queue is full. The future
        raises DeadlineError, OverloadedError if it made room for another caller, and whatever the encoder raises.
        """
        # Nobody takes a prompt from a queue that has ended.
        if self._closed:
            raise ShuttingDownError("the encoder's threads have ended, because the service is shutting down.")
        if self._pending >= self._max_pending:
            if (crowded_out := self._jobs.make_room_for(who)) is None:
                raise self._overloaded()
            crowded_out.finish(self._overloaded())
        loop = asyncio.get_running_loop()
        future: asyncio.Future[EncodedPrompt] = loop.create_future()
        future.add_done_callback(self._count_done)
        self._pending += 1
        self._jobs.put(EncodeJob(text, deadline, time.perf_counter(), loop, future), who)
        return future

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f"{self._max_pending} prompts are waiting for the encoder, the most allowed; try again later.",
            retry_after_s=max(0.05, self._pending * self._mean_encode_s / len(self._threads)),
        )

    def _count_done(self, future: asyncio.Future[EncodedPrompt]) -> None:
        # Callbacks of futures run in the event loop, where `submit` runs too, so the count needs no lock.
        self._pending -= 1
        if not future.cancelled() and future.exception() is None:
            self._note_duration(future.result())

    def _note_duration(self, encoded: EncodedPrompt) -> None:
        per_prompt_s = encoded.encode_s / encoded.batch_size
        self._mean_encode_s += _NEW_DURATION_WEIGHT * (per_prompt_s - self._mean_encode_s)

    @staticmethod
    def _run_thread(encoder: Any, jobs: FairQueue) -> None:
        """Encode the prompts of the queue, one after the other, until it ends.

        `BatchPool` overrides this.
        """
        _lower_priority()
        while (job := jobs.take()) is not None:
            if not job.cancelled:
                job.finish(_encode(encoder, job.text, job.deadline, job.submitted))
            # Without this the thread would keep the prompt until the next one comes.
            del job

    async def close(self) -> None:
        """Cancel the prompts that wait, and wait for those in work.

        `submit` refuses prompts from this call on. Closing a second time does nothing.
        """
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(None, self._shut_down)


def _encode(encoder: Encoder, text: str, deadline: float | None, submitted: float) -> EncodedPrompt | BaseException:
    started = time.perf_counter()
    if deadline is not None and started >= deadline:
        return deadline_error()
    try:
        features = encoder.encode(text)
    except BaseException as error:
        # Whatever it is goes to the future: a thread that ended of it would leave the other prompts waiting for ever.
        return error
    return EncodedPrompt(features, queue_s=started - submitted, encode_s=time.perf_counter() - started)


def _has_few_tokens(text: str) -> bool:
    """Return whether a text has about `_QUICK_TOKENS` tokens or fewer."""
    if len(text) > _ASCII_PER_TOKEN * _QUICK_TOKENS:
        return False
    n_ascii = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return n_ascii / _ASCII_PER_TOKEN + len(text) - n_ascii <= _QUICK_TOKENS


def _shut_down(jobs: FairQueue, threads: Sequence[threading.Thread]) -> None:
    for job in jobs.drain():
        job.cancel()
    for _ in threads:
        jobs.end()
    for thread in threads:
        # The garbage collector may run this in any thread, even in one of these. A thread cannot join itself.
        if thread is not threading.current_thread():
            thread.join()


def _lower_priority() -> None:
    # Encoding takes every core that it gets. The event loop accepts and refuses requests, and it must come first, or a
    # refusal would wait as long as an answer. On Linux each thread has a niceness of its own.
    if sys.platform == "linux":
        thread_id = threading.get_native_id()
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, thread_id, os.getpriority(os.PRIO_PROCESS, thread_id) + ENCODER_NICENESS)
