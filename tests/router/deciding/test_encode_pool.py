"""A pool encodes one prompt at a time, refuses what is too much, skips cancelled prompts, and closes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from probes.encoders.spec import FloatArray
from probes.errors import EncoderError
from router.deciding.batch_pool import BatchPool
from router.deciding.encode_pool import ENCODER_NICENESS, EncodePool
from router.errors import DeadlineError, NotReadyError, OverloadedError
from tests.fakes import FakeBatchEncoder, FakeEncoder, FakeHelpedEncoder


async def test_a_full_queue_refuses_at_once_with_a_hint() -> None:
    encoder = FakeEncoder()
    encoder.gate.clear()
    pool = EncodePool(encoder, threads=1, max_pending=2)
    waiting = [pool.submit(text) for text in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as caught:
        await pool.submit("c")
    assert caught.value.retry_after_s > 0
    encoder.gate.set()
    await asyncio.gather(*waiting)
    assert (await pool.submit("c")).encode_s >= 0
    await pool.close()


async def test_a_cancelled_prompt_costs_no_forward_pass() -> None:
    encoder = FakeEncoder()
    encoder.gate.clear()
    pool = EncodePool(encoder, threads=1, max_pending=8)
    first, left = pool.submit("first"), pool.submit("left")
    left.cancel()
    # The one thread takes prompts in their order: when it has encoded the last one, it has passed the one before.
    last = pool.submit("last")
    encoder.gate.set()
    await asyncio.gather(first, last)
    assert encoder.encoded == ["first", "last"]
    assert pool.pending == 0
    await pool.close()


@pytest.mark.parametrize("batches", [False, True])
async def test_a_closed_pool_refuses_at_once(batches: bool) -> None:
    pool = BatchPool(FakeBatchEncoder()) if batches else EncodePool(FakeEncoder(), threads=1)
    assert (await pool.submit("before")).encode_s >= 0
    closing = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    for _ in range(2):
        with pytest.raises(NotReadyError, match="shutting down"):
            pool.submit("after")
        await closing
    await pool.close()
    assert pool.pending == 0


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux only")
async def test_the_threads_of_the_encoder_have_a_lower_priority_than_the_event_loop() -> None:
    nice: list[int] = []

    class Watching(FakeEncoder):
        def encode(self, text: str) -> FloatArray:
            nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().encode(text)

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pool = EncodePool(Watching(), threads=1)
    await pool.submit("hello")
    await pool.close()
    assert nice[0] == min(before + ENCODER_NICENESS, 19)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


async def quick(pool: EncodePool) -> EncodePool:
    """Return the pool after as many prompts as it takes to see that they take no time."""
    for _ in range(30):
        await pool.submit("hello")
    return pool


async def test_a_loop_encodes_only_short_prompts_that_nobody_waits_beside() -> None:
    encoder = FakeHelpedEncoder()
    pool = EncodePool(encoder, threads=2)
    assert not pool.is_quick("hello"), "nobody knows yet how long a prompt takes"
    await quick(pool)
    assert pool.is_quick("a" * 1200)
    assert pool.is_quick("字" * 240)
    assert pool.is_quick("’" * 40 + "a" * 1000)
    assert not pool.is_quick("a" * 1201)
    assert not pool.is_quick("字" * 241)
    assert not pool.is_quick("’" * 41 + "a" * 1000)
    encoder.gate.clear()
    waiting = pool.submit("another")
    assert not pool.is_quick("hello")
    encoder.gate.set()
    await waiting
    assert pool.is_quick("hello")
    await pool.close()
    assert not pool.is_quick("hello")


@pytest.mark.parametrize(("encoder", "threads"), [(FakeHelpedEncoder(), 3), (FakeEncoder(), 2)])
async def test_a_loop_encodes_nothing_if_it_could_take_long_or_a_core_stood_idle(
    encoder: FakeEncoder, threads: int
) -> None:
    pool = await quick(EncodePool(encoder, threads=threads))
    assert not pool.is_quick("hello")
    await pool.close()


async def test_what_a_loop_encodes_itself_fails_as_in_a_thread() -> None:
    class Panic(BaseException):
        pass

    class Failing(FakeHelpedEncoder):
        def encode(self, text: str) -> FloatArray:
            if text == "panic":
                raise Panic
            if text == "error":
                raise EncoderError("no")
            return super().encode(text)

    pool = EncodePool(Failing(), threads=1)
    same = pool.encode_here("hello").features == (await pool.submit("hello")).features
    assert same.all()
    with pytest.raises(EncoderError, match="broke down on a prompt"):
        pool.encode_here("panic")
    with pytest.raises(EncoderError, match="no"):
        pool.encode_here("error")
    with pytest.raises(DeadlineError):
        pool.encode_here("late", deadline=0.0)
    await pool.close()
