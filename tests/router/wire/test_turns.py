"""Requests begin one in each pass of the event loop, and connections take turns."""

from __future__ import annotations

import asyncio

from router.wire.turns import Turns


async def test_a_connection_with_a_single_request_does_not_wait_for_a_thousand_of_another_one() -> None:
    turns, begun = Turns(), list[str]()

    async def request(connection: str, number: int) -> None:
        await turns.wait(connection)
        begun.append(f"{connection} {number}")

    greedy = [asyncio.ensure_future(request("greedy", number)) for number in range(1000)]
    await asyncio.sleep(0)
    single = asyncio.ensure_future(request("other", 0))
    await single
    assert len(begun) <= 5
    await asyncio.gather(*greedy)
    assert [one for one in begun if one.startswith("greedy")] == [f"greedy {number}" for number in range(1000)]


async def test_one_request_begins_in_each_pass_of_the_loop() -> None:
    turns, passes, begun_in = Turns(), 0, list[int]()

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async def request(number: int) -> None:
        await turns.wait(f"connection {number % 3}")
        begun_in.append(passes)

    counting = asyncio.ensure_future(count())
    await asyncio.gather(*(request(number) for number in range(30)))
    counting.cancel()
    assert len(set(begun_in)) == 30


async def test_nobody_waits_while_nobody_else_begins_and_who_left_keeps_nobody_waiting() -> None:
    turns = Turns()
    first = turns.wait("a")
    try:
        first.send(None)
    except StopIteration:
        pass
    else:
        raise AssertionError("the first request must not wait")
    left, stays = (asyncio.ensure_future(turns.wait(name)) for name in "bc")
    await asyncio.sleep(0)
    left.cancel()
    async with asyncio.timeout(60):
        await stays
    assert not turns._waiting
