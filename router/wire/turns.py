"""Let requests begin one by one, each connection in its turn (`Turns`).

All requests of a process are worked on in one event loop, which takes their steps in the order of their arrival. So
each step of a request would wait for a step of all others that have begun, a thousand of one connection perhaps.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets one request begin in each pass of the event loop. Connections take turns. It belongs to one event loop."""

    def __init__(self) -> None:
        # In the order of their turns: whoever has had one goes to the end.
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._had_turn = False

    async def wait(self, connection: str) -> None:
        """Return when a request of this connection may begin; at once if none has begun in this pass of the loop."""
        if not self._had_turn:
            self._give_turn()
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(connection, deque()).append(turn)
        await turn

    def _give_turn(self) -> None:
        self._had_turn = True
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._had_turn = False
        while self._waiting:
            connection = next(iter(self._waiting))
            turns = self._waiting.pop(connection)
            turn = turns.popleft()
            if turns:
                self._waiting[connection] = turns
            # Whoever has left needs no turn.
            if not turn.done():
                turn.set_result(None)
                self._give_turn()
                return
