"""A bounded queue in front of an encoder that wants batches: one thread encodes what waits, up to a budget of tokens.

For encoders on an accelerator. Those on a CPU take one prompt at a time (`encode_pool`).
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass

from probes.encoders.spec import BatchEncoder, Encoder, FloatArray
from router.deciding.encode_pool import (
    PENDING_PER_THREAD,
    Encoded,
    EncodePool,
    _drop,
    _failure,
    _Job,
    _late,
    _send,
)

log = logging.getLogger(__name__)


class BatchPool(EncodePool):
    """Encodes prompts in batches, in one thread of its own; the face and the admission of `EncodePool`.

    A batch is what waits when the thread is free: nobody is kept waiting for others to come. Whoever left, or whose
    deadline passed, is dropped when it is put together, before tokenising. Of a batch that fails, each half is tried
    again, so that a prompt at fault fails alone.

    Args:
        encoder: used by this thread alone, except through `encode`.
        max_pending: prompts waiting or in work beyond which further ones are refused; None takes two batches of the
            longest prompts, one in work and one waiting.
    """

    def __init__(self, encoder: BatchEncoder, *, max_pending: int | None = None) -> None:
        two_batches = 2 * encoder.batch_tokens // encoder.spec.max_tokens
        super().__init__(encoder, threads=1, max_pending=max_pending or max(two_batches, PENDING_PER_THREAD))

    @staticmethod
    def _live(encoder: BatchEncoder, jobs: queue.SimpleQueue[_Job | None]) -> None:
        waiting: list[_Prompt] = []
        while _collect(jobs, waiting):
            waiting = _encode_some(encoder, waiting)
        for prompt in waiting:
            _drop(prompt.job)


def pool_for(encoder: Encoder, *, threads: int | None = None, max_pending: int | None = None) -> EncodePool:
    """The pool that fits the encoder's hardware; `threads` is of no use where there are batches."""
    if isinstance(encoder, BatchEncoder):
        return BatchPool(encoder, max_pending=max_pending)
    return EncodePool(encoder, threads=threads, max_pending=max_pending)


@dataclass(slots=True)
class _Prompt:
    """A prompt that waits, and its token ids once it has been tokenised: only once, however many batches go before."""

    job: _Job
    tokens: Sequence[int] = ()


def _collect(jobs: queue.SimpleQueue[_Job | None], waiting: list[_Prompt]) -> bool:
    """Move what is queued to `waiting`, and wait for something only if both are empty. False if the pool ends."""
    with contextlib.suppress(queue.Empty):
        while True:
            job = jobs.get(block=not waiting)
            if job is None:
                return False
            waiting.append(_Prompt(job))
    return True


def _encode_some(encoder: BatchEncoder, waiting: Sequence[_Prompt]) -> list[_Prompt]:
    """Encode one batch of those who wait, in order of arrival, and tell them; who waits on."""
    started = time.perf_counter()
    ready = []
    for prompt in waiting:
        if prompt.job.answer.cancelled():
            continue
        late = prompt.job.deadline is not None and started >= prompt.job.deadline
        if failure := _late() if late else _tokenize(encoder, prompt):
            _send(prompt.job, failure)
        else:
            ready.append(prompt)
    batch, rest = _assemble(ready, encoder.batch_tokens)
    outcomes = _outcomes(encoder, [prompt.tokens for prompt in batch])
    encode_s = time.perf_counter() - started
    for prompt, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, Exception):
            _send(prompt.job, outcome)
        else:
            _send(prompt.job, Encoded(outcome, started - prompt.job.entered, encode_s, n_together=len(batch)))
    return rest


def _tokenize(encoder: BatchEncoder, prompt: _Prompt) -> Exception | None:
    try:
        prompt.tokens = prompt.tokens or encoder.tokenize(prompt.job.text)
    except BaseException as error:
        return _failure(error)
    return None


def _assemble(ready: Sequence[_Prompt], budget: int) -> tuple[list[_Prompt], list[_Prompt]]:
    """The next batch and the rest, of prompts in order of arrival; both keep it.

    The first always goes, so that nobody waits forever; then those nearest to it in length, so that little is padding,
    while prompts times the longest one's tokens are within the budget.
    """
    lengths = [len(prompt.tokens) for prompt in ready]
    chosen: set[int] = set()
    longest = 0
    for index in sorted(range(len(ready)), key=lambda index: abs(lengths[index] - lengths[0])):
        grown = max(longest, lengths[index])
        if not chosen or (len(chosen) + 1) * grown <= budget:
            chosen.add(index)
            longest = grown
    batch = [prompt for index, prompt in enumerate(ready) if index in chosen]
    return batch, [prompt for index, prompt in enumerate(ready) if index not in chosen]


def _outcomes(encoder: BatchEncoder, prompts: Sequence[Sequence[int]]) -> list[FloatArray | Exception]:
    """For each tokenized prompt its features (d,), or why there are none."""
    if not prompts:
        return []
    try:
        return [features for features, _ in zip(encoder.encode_batch(prompts), prompts, strict=True)]
    except BaseException as error:
        if len(prompts) == 1:
            return [_failure(error)]
        log.warning("a batch of %d prompts failed (%s); trying its halves", len(prompts), type(error).__name__)
    # Halves, and not one by one, also because less may fit the memory that all of it did not.
    middle = len(prompts) // 2
    return _outcomes(encoder, prompts[:middle]) + _outcomes(encoder, prompts[middle:])
