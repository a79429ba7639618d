"""Encode waiting prompts in batches, in one thread with a bounded queue, for encoders on an accelerator.

Encoders on a CPU take one prompt at a time (`encode_pool`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from probes.encoders.spec import BatchEncoder, Encoder, FloatArray
from router.deciding.encode_job import EncodedPrompt, EncodeJob, deadline_error
from router.deciding.encode_pool import PENDING_PER_THREAD, EncodePool
from router.deciding.fair_queue import FairQueue

log = logging.getLogger(__name__)


class BatchPool(EncodePool):
    """Encodes prompts in batches in one thread of its own. It is used like an `EncodePool`.

    A batch is taken from the prompts that wait when the thread is free; no prompt waits for others to come. When a
    batch is put together, a prompt is dropped before it is tokenized if its caller left or its deadline passed. If a
    batch fails, each half of it is tried again, so that a prompt at fault fails alone.

    Args:
        encoder: an encoder that nobody else uses, except through `encode`.
        max_pending: the number of prompts waiting or in work above which further ones are refused; None takes two
            batches of the longest prompts, so that one can wait while the other is in work.
    """

    def __init__(self, encoder: BatchEncoder, *, max_pending: int | None = None) -> None:
        two_batches = 2 * encoder.batch_tokens // encoder.spec.max_tokens
        super().__init__(encoder, threads=1, max_pending=max_pending or max(two_batches, PENDING_PER_THREAD))

    @property
    def batch_slots(self) -> int:
        """Return how many prompts of batches are let in at a time: half of what may wait, so that single ones can."""
        return max(1, self._max_pending // 2)

    @staticmethod
    def _run_thread(encoder: BatchEncoder, jobs: FairQueue) -> None:
        waiting: dict[int, _Prompt] = {}
        while jobs.wait(block=not waiting):
            # A prompt is tokenized once, however long it waits.
            waiting = {id(job): waiting.get(id(job)) or _Prompt(job) for job in jobs.in_turn()}
            _encode_one_batch(encoder, waiting, jobs)


def pool_for(encoder: Encoder, *, threads: int | None = None, max_pending: int | None = None) -> EncodePool:
    """Return the pool that fits the encoder: a `BatchPool` for a `BatchEncoder`, which takes no `threads`."""
    if isinstance(encoder, BatchEncoder):
        return BatchPool(encoder, max_pending=max_pending)
    return EncodePool(encoder, threads=threads, max_pending=max_pending)


@dataclass(slots=True)
class _Prompt:
    """A prompt that waits to be encoded, and its token ids.

    They are kept, so that it is tokenized once while other batches go.
    """

    job: EncodeJob
    tokens: Sequence[int] = ()


def _encode_one_batch(encoder: BatchEncoder, waiting: dict[int, _Prompt], jobs: FairQueue) -> None:
    """Encode one batch of the waiting prompts and finish its jobs. Remove them, and prompts that need no encoding."""
    started = time.perf_counter()
    ready = [prompt for prompt in waiting.values() if not prompt.job.cancelled and _is_ready(encoder, prompt, started)]
    batch, rest = _split_batch(ready, encoder.batch_tokens)
    left = {id(prompt.job) for prompt in rest}
    jobs.remove([waiting.pop(number).job for number in list(waiting) if number not in left])
    outcomes = _encode_or_fail(encoder, [prompt.tokens for prompt in batch])
    encode_s = time.perf_counter() - started
    for prompt, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, BaseException):
            prompt.job.finish(outcome)
        else:
            queue_s = started - prompt.job.submitted
            prompt.job.finish(EncodedPrompt(outcome, queue_s, encode_s, batch_size=len(batch)))


def _is_ready(encoder: BatchEncoder, prompt: _Prompt, now: float) -> bool:
    """Tokenize a prompt and return True; or finish its job with an error and return False."""
    if prompt.job.expired(now):
        prompt.job.finish(deadline_error())
        return False
    try:
        prompt.tokens = prompt.tokens or encoder.tokenize(prompt.job.text)
    except BaseException as error:
        prompt.job.finish(error)
        return False
    return True


def _split_batch(ready: Sequence[_Prompt], budget: int) -> tuple[list[_Prompt], list[_Prompt]]:
    """Return the next batch, and the prompts that are left. Both keep the order of `ready`, that of the turns.

    The first prompt is always in the batch, so that no prompt waits for ever. The prompts nearest to it in length join
    it, so that little is padding, as long as the number of prompts times the longest one's tokens is within the budget.
    """
    lengths = [len(prompt.tokens) for prompt in ready]
    chosen: set[int] = set()
    longest = 0
    for index in sorted(range(len(ready)), key=lambda index: abs(lengths[index] - lengths[0])):
        longest_with = max(longest, lengths[index])
        if not chosen or (len(chosen) + 1) * longest_with <= budget:
            chosen.add(index)
            longest = longest_with
    batch = [prompt for index, prompt in enumerate(ready) if index in chosen]
    return batch, [prompt for index, prompt in enumerate(ready) if index not in chosen]


def _encode_or_fail(encoder: BatchEncoder, prompts: Sequence[Sequence[int]]) -> list[FloatArray | BaseException]:
    """Return for each tokenized prompt its features of shape (d,), or the error that it raised."""
    if not prompts:
        return []
    try:
        # Strict, because one row too few would give each later prompt the features of another one.
        return [features for features, _ in zip(encoder.encode_batch(prompts), prompts, strict=True)]
    except BaseException as error:
        if len(prompts) == 1:
            return [error]
        log.warning("a batch of %d prompts failed (%s); trying its halves", len(prompts), type(error).__name__)
    # A batch may also fail because it needs too much memory. Its halves may fit.
    middle = len(prompts) // 2
    return _encode_or_fail(encoder, prompts[:middle]) + _encode_or_fail(encoder, prompts[middle:])
