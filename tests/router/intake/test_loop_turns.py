"""Long work goes on in turns: one piece of it at a time, however many do it, and more slowly while somebody decides."""

from __future__ import annotations

import asyncio
import threading

import pytest

from router.intake import loop_turns
from router.intake.loop_turns import PAUSE_S, TURN_WORK, TURNS, LoopTurns, Pace

N_STREAMS, N_PIECES = 20, 10


async def most_between_two_turns(work: asyncio.Future[object], done: list[int]) -> int:
    """Return how much of the work is done at most between two turns of somebody else in the loop."""
    most = seen = len(done)
    while not work.done():
        await asyncio.sleep(0)
        most, seen = max(most, len(done) - seen), len(done)
    return most


async def test_many_streams_do_one_piece_between_two_turns_of_others() -> None:
    done: list[int] = []

    async def read() -> None:
        pace = Pace()
        for _ in range(N_PIECES):
            await pace.worked(TURN_WORK)
            done.append(1)

    reading = asyncio.gather(*(read() for _ in range(N_STREAMS)))
    # One whose turn it is hands it to the next one, which may run in the same round.
    assert await most_between_two_turns(reading, done) <= 2
    assert len(done) == N_STREAMS * N_PIECES


async def test_little_work_needs_no_turn() -> None:
    done: list[int] = []

    async def read() -> None:
        pace = Pace()
        for _ in range(N_PIECES):
            await pace.worked(TURN_WORK // N_PIECES - 1)
            done.append(1)

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0)
    assert reading.done()
    assert len(done) == N_PIECES


async def test_turns_come_at_intervals_only_while_somebody_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    sleep = asyncio.sleep

    async def watched(delay: float) -> None:
        delays.append(delay)
        await sleep(delay)

    monkeypatch.setattr(loop_turns.asyncio, "sleep", watched)
    mine = LoopTurns()
    await mine.next()
    with mine.deciding, mine.deciding:
        await mine.next()
    with mine.deciding:
        assert mine.is_deciding
        await mine.next()
    assert not mine.is_deciding
    await mine.next()
    assert delays == [0, PAUSE_S, PAUSE_S, 0]


async def test_whoever_leaves_the_queue_holds_nobody_up() -> None:
    mine = LoopTurns()
    with mine.deciding:
        waiting = [asyncio.ensure_future(mine.next()) for _ in range(10)]
        await asyncio.sleep(0)
        for one in waiting[:9]:
            one.cancel()
        async with asyncio.timeout(60):
            await waiting[9]


def test_every_loop_has_turns_of_its_own() -> None:
    ended: list[int] = []

    async def work() -> None:
        await asyncio.gather(*(TURNS.next() for _ in range(100)))
        ended.append(1)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ended) == 4
