"""Keep the garbage collector from stopping every request while something large is decoded (`rare_full_passes`).

Python's collector has three generations. A pass over the two young ones takes less than a millisecond. A full pass
looks at every object that is not frozen, and no other thread runs meanwhile. By default there is one whenever the
number of old objects has grown by a quarter. After `gc.freeze` there are few, so that a single large request set off a
dozen full passes while its tree grew, of 10 to 50 ms each (measured by `benchmarks.attack`). Here full passes depend on
the clock instead of on what a caller sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

#: Seconds between two full passes. A pass of 100 ms every 30 s makes 1 of 300 requests wait.
FULL_PASS_S = 30.0

#: The number of passes over the young generations without which there is nothing to look for, as by default.
_WORTH_A_PASS = 10

#: A number of passes that is never reached.
_NEVER = 2**31 - 1


@contextlib.asynccontextmanager
async def rare_full_passes(every_s: float = FULL_PASS_S) -> AsyncIterator[None]:
    """Let full passes of the collector happen every `every_s` seconds and at no other time, while the context lasts.

    Most garbage never waits for it: objects without a cycle are freed at once, and young cycles by the young passes.
    """
    before = gc.get_threshold()
    gc.set_threshold(before[0], before[1], _NEVER)
    passes = asyncio.create_task(_collect_now_and_then(every_s))
    try:
        yield
    finally:
        passes.cancel()
        gc.set_threshold(*before)


async def _collect_now_and_then(every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        if gc.get_count()[2] >= _WORTH_A_PASS:
            gc.collect()
