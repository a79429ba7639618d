"""Limit how long a candidate may take: for a whole answer, and for the first content of a stream while it is alive."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator

from router.answering.reading.call_notes import CallNotes
from router.errors import UpstreamTimeoutError
from router.policies.candidates.candidate import Candidate

#: Longest wait for the first content of a stream, in seconds, however lively the upstream is.
MOST_THINKING_S = 3600.0


@contextlib.asynccontextmanager
async def time_limit(candidate: Candidate, seconds: float) -> AsyncIterator[None]:
    """Raise UpstreamTimeoutError if the body of the context takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise _silent(candidate, seconds) from error


@contextlib.asynccontextmanager
async def silence_limit(candidate: Candidate, seconds: float, notes: CallNotes, most_s: float) -> AsyncIterator[None]:
    """Raise UpstreamTimeoutError if the candidate sends nothing for `seconds`, or if the body takes more than `most_s`.

    Whatever is noted as a sign of life in `notes` counts, comments in a stream too: a model that thinks may send
    nothing else.
    """
    loop = asyncio.get_running_loop()
    ends_at = time.monotonic() + min(most_s, MOST_THINKING_S)

    def left_s() -> float:
        return min(notes.alive_at + seconds, ends_at) - time.monotonic()

    try:
        async with asyncio.timeout(None) as limit:

            def look() -> None:
                if (left := left_s()) > 0:
                    timers.append(loop.call_later(left, look))
                else:
                    limit.reschedule(loop.time())

            timers = deque([loop.call_later(left_s(), look)], maxlen=1)
            try:
                yield
            finally:
                timers[0].cancel()
    except TimeoutError as error:
        raise _silent(candidate, min(seconds, most_s)) from error


def _silent(candidate: Candidate, seconds: float) -> UpstreamTimeoutError:
    return UpstreamTimeoutError(
        f"candidate {candidate.name!r} was silent for {max(seconds, 0):.3g} s, which is as long as it may be."
    )
