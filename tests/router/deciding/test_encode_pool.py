"""A pool encodes one prompt at a time, refuses what is too much, skips cancelled prompts, and closes."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from probes.encoders.spec import FloatArray
from router.deciding.batch_pool import BatchPool
from router.deciding.encode_pool import ENCODER_NICENESS, EncodePool
from router.errors import NotReadyError, OverloadedError
from tests.fakes import FakeBatchEncoder, FakeEncoder


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
