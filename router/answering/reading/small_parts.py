"""Hand on what upstreams send in small parts, whatever size the network brings it in (`in_small_parts`).

Splitting, counting or searching a part is one step each, during which neither the event loop nor another thread runs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable

from router.intake.loop_turns import Pace

#: The most bytes of a part. Splitting so many into lines of no letters takes less than a millisecond.
PART_BYTES = 16 * 1024

#: How much longer reading a part takes than its bytes, as `Pace` counts work. Chunks may have one byte each.
PART_WORK = 2048


async def in_small_parts(parts: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield a body in parts of at most `PART_BYTES`, and let others have their turn between them."""
    pace = Pace()
    async for part in parts:
        for at in range(0, len(part) or 1, PART_BYTES):
            small = part[at : at + PART_BYTES]
            yield small
            await pace.worked(len(small) + PART_WORK)
