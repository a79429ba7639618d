"""Let long work in an event loop go on in turns, so that requests that are being decided wait for little of it.

Reading a stream that comes faster than it is read never waits for anything, and would leave nobody else a turn. Such
work asks for a turn whenever it has done a little (`Pace`). Turns are given to one at a time, so that a hundred streams
take no more of the loop than one, and while somebody decides there is one every `PAUSE_S` seconds.
"""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

#: Seconds between two turns while requests are being decided. What is done in a turn takes about as long.
PAUSE_S = 0.001

#: How much work is done in one turn. A byte that is read counts one, and other work as much as it takes longer.
TURN_WORK = 256 * 1024


class _Deciding:
    """Counts, as a context, who waits for a decision. Every request enters it, and a generator would take longer."""

    def __init__(self) -> None:
        self.n_waiting = 0

    def __enter__(self) -> None:
        self.n_waiting += 1

    def __exit__(self, *failure: object) -> None:
        self.n_waiting -= 1


class LoopTurns:
    """Gives turns to the long work of a process, in each of its event loops to one after the other.

    Attributes:
        deciding: the context in which somebody waits for a decision, and long work pauses. It may be entered again.
    """

    def __init__(self) -> None:
        self.deciding = _Deciding()
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    @property
    def is_deciding(self) -> bool:
        """Return whether somebody waits for a decision."""
        return self.deciding.n_waiting > 0

    async def next(self) -> None:
        """Wait for the next turn, until which everybody else in the loop has had theirs."""
        async with self._gates.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            await asyncio.sleep(PAUSE_S if self.is_deciding else 0)


#: The turns of this process.
TURNS = LoopTurns()


class Pace:
    """Keeps one piece of long work at a pace: it asks for a turn after every `TURN_WORK` of work."""

    def __init__(self) -> None:
        self._done = 0

    async def worked(self, work: int) -> None:
        """Count what was done, and wait for a turn if it was enough for one."""
        self._done += work
        if self._done >= TURN_WORK:
            self._done = 0
            await TURNS.next()
