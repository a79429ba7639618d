"""Callers take turns at the encoder, and whoever has most in a full queue makes room for the others."""

from __future__ import annotations

import asyncio
import random

import pytest

from router.deciding.batch_pool import BatchPool
from router.deciding.encode_job import EncodeJob
from router.deciding.encode_pool import EncodePool
from router.deciding.fair_queue import NOBODY, FairQueue, Who, who
from router.errors import OverloadedError
from tests.fakes import FakeBatchEncoder, FakeEncoder

GREEDY, OTHER = who("ipv4:10.0.0.1:5000", "a"), who("ipv4:10.0.0.2:5000", "b")


def job(text: str) -> EncodeJob:
    loop = asyncio.get_running_loop()
    return EncodeJob(text, None, 0.0, loop, loop.create_future())


def filled(*texts_of: tuple[Who, str]) -> FairQueue:
    waiting = FairQueue()
    for whose, texts in texts_of:
        for text in texts:
            waiting.put(job(text), whose)
    return waiting


def taken(waiting: FairQueue) -> str:
    waiting.end()
    found = ""
    while (one := waiting.take()) is not None:
        found += one.text
    return found


async def test_callers_take_turns_each_in_the_order_of_arrival() -> None:
    waiting = filled((GREEDY, "abcd"), (OTHER, "xy"))
    assert "".join(one.text for one in waiting.in_turn()) == "axbycd"
    assert taken(waiting) == "axbycd"


async def test_hosts_take_turns_then_connections_then_credentials() -> None:
    same_host = ("ipv4:10.0.0.1:1", "ipv4:10.0.0.1:2")
    waiting = filled(
        (who(same_host[0], "k1"), "ab"),
        (who(same_host[0], "k2"), "cd"),
        (who(same_host[1], ""), "ef"),
        (who("ipv4:10.0.0.9:1", ""), "xyz"),
    )
    assert taken(waiting) == "axeycz" + "fbd"


async def test_who_had_a_turn_is_behind_those_who_had_none_also_after_a_batch() -> None:
    waiting = filled((GREEDY, "ab"), (OTHER, "xy"))
    first, *_ = waiting.in_turn()
    waiting.remove([first])
    waiting.remove([first])
    assert taken(waiting) == "xby"


async def test_the_newest_of_who_has_most_makes_room_for_others_only() -> None:
    waiting = filled((GREEDY, "abc"), (OTHER, "x"))
    assert waiting.make_room_for(GREEDY) is None
    crowded_out = waiting.make_room_for(OTHER)
    assert crowded_out is not None
    assert crowded_out.text == "c"
    # Two against one: with one more the other would have as many.
    assert waiting.make_room_for(OTHER) is None
    assert taken(waiting) == "axb"


async def test_within_a_connection_credentials_make_room_and_made_up_ones_gain_nothing_elsewhere() -> None:
    made_up = [(who("ipv4:10.0.0.1:1", f"k{number}"), "a") for number in range(5)]
    waiting = filled(*made_up, (OTHER, "x"))
    assert waiting.make_room_for(who("ipv4:10.0.0.1:1", "new")) is None
    newcomer = waiting.make_room_for(who("ipv4:10.0.0.3:1", ""))
    assert newcomer is not None
    assert newcomer.text == "a"
    waiting = filled((who("ipv4:10.0.0.1:1", "k1"), "abc"), (who("ipv4:10.0.0.1:1", "k2"), ""))
    crowded_out = waiting.make_room_for(who("ipv4:10.0.0.1:1", "k2"))
    assert crowded_out is not None
    assert crowded_out.text == "c"


async def test_prompts_whose_callers_left_are_nobodys() -> None:
    waiting = filled((GREEDY, "abc"))
    for one in waiting.in_turn():
        one.future.cancel()
    assert waiting.make_room_for(OTHER) is None
    assert waiting.in_turn() == []


async def test_whatever_is_put_in_comes_out_once() -> None:
    chance = random.Random(0)
    waiting, put = FairQueue(), []
    for number in range(300):
        one = job(f"{number} ")
        put.append(one.text)
        waiting.put(one, tuple(chance.choice("ab") for _ in NOBODY))
    half = waiting.in_turn()[::2]
    waiting.remove(half)
    assert sorted([one.text for one in half] + [f"{one} " for one in taken(waiting).split()]) == sorted(put)


@pytest.mark.parametrize("batches", [False, True])
async def test_a_single_prompt_is_neither_refused_nor_behind_those_of_a_greedy_caller(batches: bool) -> None:
    encoder = FakeBatchEncoder(batch_tokens=16) if batches else FakeEncoder()
    encoder.gate.clear()
    pool = (
        BatchPool(encoder, max_pending=8)
        if isinstance(encoder, FakeBatchEncoder)
        else EncodePool(encoder, threads=1, max_pending=8)
    )
    first = pool.submit("greedy 0", who=GREEDY)
    await asyncio.sleep(0.05)
    greedy = [pool.submit(f"greedy {number}", who=GREEDY) for number in range(1, 8)]
    with pytest.raises(OverloadedError):
        pool.submit("greedy 8", who=GREEDY)
    others = [pool.submit(f"other {number}", who=who(f"ipv4:10.0.1.{number}:1", "")) for number in range(3)]
    encoder.gate.set()
    await asyncio.gather(first, *others)
    answers = await asyncio.gather(*greedy, return_exceptions=True)
    assert [isinstance(one, OverloadedError) for one in answers] == [False] * 4 + [True] * 3
    assert sorted(encoder.encoded[1:6])[-3:] == ["other 0", "other 1", "other 2"]
    assert pool.pending == 0
    await pool.close()
