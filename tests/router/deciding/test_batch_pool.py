"""Waiting prompts are encoded in batches within a budget of tokens, and neighbours do not change a decision."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from probes.artifacts import store as artifact
from probes.encoders.files import find_encoder
from probes.encoders.spec import MINILM_L6_FLOAT32, FloatArray
from probes.encoders.torch_runtime import TorchBatchEncoder
from probes.errors import DataError, EncoderError
from router.deciding.batch_pool import BatchPool, pool_for
from router.deciding.encode_job import EncodedPrompt
from router.deciding.encode_pool import EncodePool
from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.errors import DeadlineError, OverloadedError
from router.policies.loading import DEFAULTS, load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeBatchEncoder, FakeEncoder, write_policy
from tests.prompts import CHATS


async def until_batch(encoder: FakeBatchEncoder, number: int) -> None:
    """Wait until this number of batches has reached the encoder."""
    while len(encoder.batches) < number:  # noqa: ASYNC110 (what is waited for happens in a thread)
        await asyncio.sleep(0.001)


async def busy(encoder: FakeBatchEncoder, **options: int) -> tuple[BatchPool, asyncio.Future[EncodedPrompt]]:
    """Return a pool, and its first prompt, which keeps the thread busy until the gate of the encoder opens."""
    encoder.gate.clear()
    pool = BatchPool(encoder, **options)
    first = pool.submit("first")
    await until_batch(encoder, 1)
    return pool, first


class TestAssembly:
    async def test_a_single_prompt_is_encoded_at_once(self) -> None:
        encoder = FakeBatchEncoder()
        pool = BatchPool(encoder)
        encoded = await pool.submit("alone")
        await pool.close()
        assert encoder.batches == [["alone"]]
        assert (encoded.features == FakeEncoder().encode("alone")).all()

    async def test_waiting_prompts_that_fit_are_encoded_together_and_each_gets_its_own_features(self) -> None:
        encoder = FakeBatchEncoder()
        pool, first = await busy(encoder)
        others = {text: pool.submit(text) for text in ("a", "bbb", "cccccc")}
        encoder.gate.set()
        await first
        for text, answer in others.items():
            assert ((await answer).features == FakeEncoder().encode(text)).all()
            assert (await answer).batch_size == 3
        await pool.close()
        assert encoder.batches == [["first"], ["a", "bbb", "cccccc"]]
        assert pool.pending == 0

    async def test_the_number_of_prompts_times_the_longest_one_stays_within_the_budget(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=64)
        pool, first = await busy(encoder, max_pending=100)
        lengths = np.random.default_rng(0).permutation(np.arange(1, 61))
        answers = [pool.submit("x" * int(length)) for length in lengths]
        encoder.gate.set()
        await asyncio.gather(first, *answers)
        await pool.close()
        encoded = [text for batch in encoder.batches[1:] for text in batch]
        assert sorted(map(len, encoded)) == list(range(1, 61))
        assert all(len(batch) * max(map(len, batch)) <= 64 for batch in encoder.batches)
        # All in pairs would be 30; what is far shorter goes in larger company.
        assert max(map(len, encoder.batches)) >= 5

    async def test_a_prompt_longer_than_the_budget_is_encoded_alone(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=8)
        pool, first = await busy(encoder)
        answers = [pool.submit(text) for text in ("x" * 20, "y")]
        encoder.gate.set()
        await asyncio.gather(first, *answers)
        await pool.close()
        assert encoder.batches[1:] == [["x" * 20], ["y"]]

    async def test_the_oldest_prompt_is_encoded_first_with_those_of_its_length_and_each_is_tokenized_once(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=20)
        pool, first = await busy(encoder)
        texts = ["long" * 2, "a", "text" * 2, "b"]
        answers = [pool.submit(text) for text in texts]
        encoder.gate.set()
        await asyncio.gather(first, *answers)
        await pool.close()
        assert encoder.batches[1:] == [["longlong", "texttext"], ["a", "b"]]
        assert encoder.tokenized == ["first", *texts]


class TestLeaving:
    async def test_cancelled_and_expired_prompts_are_neither_tokenized_nor_encoded(self) -> None:
        encoder = FakeBatchEncoder()
        pool, first = await busy(encoder)
        left, stays = pool.submit("left"), pool.submit("stays", deadline=time.perf_counter() + 3600)
        late = pool.submit("late", deadline=time.perf_counter())
        left.cancel()
        encoder.gate.set()
        with pytest.raises(DeadlineError, match="waited for the encoder"):
            await late
        await asyncio.gather(first, stays)
        await pool.close()
        assert encoder.batches == [["first"], ["stays"]]
        assert encoder.tokenized == ["first", "stays"]
        assert pool.pending == 0

    async def test_a_prompt_that_is_cancelled_while_another_batch_is_in_work_is_not_encoded(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=8, stepwise=True)
        pool, _ = await busy(encoder)
        one, left = pool.submit("x" * 8), pool.submit("y" * 8)
        encoder.gate.set()
        await until_batch(encoder, 2)
        left.cancel()
        # Closing drops prompts too, so the pool stays open until a later prompt has reached the encoder.
        last = pool.submit("z" * 8)
        encoder.gate.set()
        await one
        await until_batch(encoder, 3)
        encoder.gate.set()
        await asyncio.wait([last], timeout=30)
        await pool.close()
        assert encoder.batches == [["first"], ["x" * 8], ["z" * 8]]

    async def test_closing_finishes_the_batch_in_work_and_cancels_the_prompts_that_wait(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=8, stepwise=True)
        pool, _ = await busy(encoder)
        in_work, assembled = pool.submit("x" * 8), pool.submit("y" * 8)
        encoder.gate.set()
        await until_batch(encoder, 2)
        queued = pool.submit("z")
        closing = asyncio.create_task(pool.close())
        await asyncio.wait([queued])
        await asyncio.sleep(0.05)
        encoder.gate.set()
        await closing
        assert (await in_work).batch_size == 1
        await asyncio.wait([assembled])
        assert assembled.cancelled()
        assert queued.cancelled()
        assert encoder.batches == [["first"], ["x" * 8]]

    async def test_the_thread_of_a_pool_that_nobody_uses_any_more_ends(self) -> None:
        before = set(threading.enumerate())
        pool = BatchPool(FakeBatchEncoder())
        await pool.submit("x")
        (thread,) = set(threading.enumerate()) - before
        del pool
        gc.collect()
        assert not thread.is_alive()


class TestOverload:
    async def test_a_full_queue_refuses_at_once_with_a_hint_from_the_time_per_prompt(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = 0.0

        class Slow(FakeBatchEncoder):
            def encode_batch(self, prompts: Sequence[Sequence[int]]) -> FloatArray:
                nonlocal now
                features = super().encode_batch(prompts)
                now += 8.0
                return features

        monkeypatch.setattr("router.deciding.batch_pool.time", SimpleNamespace(perf_counter=lambda: now))
        encoder = Slow()
        pool, first = await busy(encoder, max_pending=5)
        together = [pool.submit(text) for text in "abcd"]
        with pytest.raises(OverloadedError) as caught:
            pool.submit("e")
        # 20 ms a prompt are assumed before there is anything to go by.
        assert caught.value.retry_after_s == pytest.approx(5 * 0.02)
        encoder.gate.set()
        assert (await first).encode_s == 8.0
        assert [encoded.encode_s for encoded in await asyncio.gather(*together)] == [8.0] * 4
        encoder.gate.clear()
        again = [pool.submit(text) for text in "fghij"]
        with pytest.raises(OverloadedError) as caught:
            pool.submit("k")
        mean_s = 0.02
        for per_prompt_s in (8.0, 2.0, 2.0, 2.0, 2.0):
            mean_s += 0.05 * (per_prompt_s - mean_s)
        assert caught.value.retry_after_s == pytest.approx(5 * mean_s)
        encoder.gate.set()
        await asyncio.gather(*again)
        await pool.close()

    async def test_two_batches_of_the_longest_prompts_may_wait_by_default(self) -> None:
        encoder = FakeBatchEncoder(batch_tokens=160)
        pool, first = await busy(encoder)
        assert encoder.spec.max_tokens == 16
        others = [pool.submit(f"{number}") for number in range(19)]
        with pytest.raises(OverloadedError, match="20 prompts are waiting"):
            pool.submit("one too many")
        encoder.gate.set()
        await asyncio.gather(first, *others)
        await pool.close()


class TestFailing:
    async def test_a_prompt_at_fault_fails_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        encoder = FakeBatchEncoder(batch_tokens=1000)
        pool, first = await busy(encoder)
        texts = ["a", "make tokenising fail", "b", "make the encoder raise", "c", "d"]
        answers = [pool.submit(text) for text in texts]
        encoder.gate.set()
        with caplog.at_level(logging.WARNING):
            _, *results = await asyncio.gather(first, *answers, return_exceptions=True)
        await pool.close()
        assert [type(result) for result in results] == [
            EncodedPrompt,
            DataError,
            EncodedPrompt,
            RuntimeError,
            EncodedPrompt,
            EncodedPrompt,
        ]
        assert encoder.batches[1] == [text for text in texts if "tokenising" not in text]
        assert "a batch of 5 prompts failed (RuntimeError)" in caplog.text
        assert "make the encoder raise" not in caplog.text

    async def test_an_error_that_is_no_exception_fails_its_prompt_and_the_thread_goes_on(self) -> None:
        class Panic(BaseException):
            pass

        class Panicking(FakeBatchEncoder):
            def tokenize(self, text: str) -> list[int]:
                if text == "panic":
                    raise Panic
                return super().tokenize(text)

        pool = BatchPool(Panicking())
        with pytest.raises(EncoderError, match="broke down on a prompt; see the service's log"):
            await pool.submit("panic")
        assert (await pool.submit("fine")).batch_size == 1
        await pool.close()


async def test_the_kind_of_encoder_decides_the_kind_of_pool() -> None:
    one_by_one, batches = pool_for(FakeEncoder(), threads=1), pool_for(FakeBatchEncoder(), threads=7)
    assert type(one_by_one) is EncodePool
    assert type(batches) is BatchPool
    await one_by_one.close()
    await batches.close()


@pytest.fixture(scope="module")
def encoder(_real_encoder: None) -> TorchBatchEncoder:
    """Return an encoder that works in batches on the CPU, with the same arithmetic as on a GPU."""
    return TorchBatchEncoder(MINILM_L6_FLOAT32, find_encoder(MINILM_L6_FLOAT32))


@pytest.fixture
def router(tmp_path: Path, encoder: TorchBatchEncoder) -> Router:
    # The shipped probe, told that its features are float32: near enough to make decisions of every kind.
    probe = dataclasses.replace(
        artifact.load(DEFAULTS / "tiers"),
        encoder=encoder.spec.to_dict(),
        encoder_identity=encoder.spec.identity,
    )
    rule = {"kind": "gain", "thresholds": [0.2]}
    path = write_policy(
        tmp_path, probe, names=(probe.models[0], probe.models[-1]), rule=rule, abstain_above_leverage=None
    )
    return Router(load_policies([path]), {encoder.spec.identity: encoder}, RouterSettings(cache_entries=0))


def mixed_queries() -> list[RouteQuery]:
    """Return 40 prompts of 3 to 256 tokens, made of the words of CHATS."""
    words = " ".join(str(chat[-1]["content"]) for chat in CHATS.values()).split()
    starts, sizes = np.random.default_rng(0).integers(0, len(words), 40), np.geomspace(1, 300, 40)
    return [
        RouteQuery.from_prompt(" ".join(np.resize(words[start:] + words[:start], round(size))))
        for start, size in zip(starts, sizes, strict=True)
    ]


class TestRealEncoder:
    async def test_forty_prompts_decide_in_batches_as_one_by_one(
        self, router: Router, encoder: TorchBatchEncoder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        queries = mixed_queries()
        # Within rounding of the threshold a decision might differ: it lies in the widest gap between the middle gains.
        gains = np.sort([router.decide(query).gain for query in queries])[10:30]
        widest = int(np.diff(gains).argmax())
        assert gains[widest + 1] - gains[widest] > 1e-3
        threshold = Overrides(min_gain=float(gains[widest : widest + 2].mean()))
        queries = [dataclasses.replace(query, overrides=threshold) for query in queries]
        alone = [router.decide(query) for query in queries]
        passes = []
        encode = encoder.encode_batch

        def watched(prompts: Sequence[Sequence[int]]) -> FloatArray:
            passes.append([len(tokens) for tokens in prompts])
            return encode(prompts)

        monkeypatch.setattr(encoder, "encode_batch", watched)
        together = await asyncio.gather(*map(router.adecide, queries))
        await router.close()
        lengths = [length for batch in passes for length in batch]
        assert (len(lengths), min(lengths), max(lengths)) == (40, 3, 256)
        assert max(map(len, passes)) > 10
        assert len({decision.chosen for decision in alone}) == 2
        for one, other in zip(alone, together, strict=True):
            assert (other.chosen, other.reason) == (one.chosen, one.reason)
            assert [c.raw for c in other.candidates] == pytest.approx([c.raw for c in one.candidates], abs=1e-4)
            assert [c.risk for c in other.candidates] == pytest.approx([c.risk for c in one.candidates], abs=1e-4)

    async def test_a_text_that_is_not_unicode_fails_alone(self, encoder: TorchBatchEncoder) -> None:
        pool = BatchPool(encoder)
        texts = ["What is 2 + 2?", "broken \ud800", "Name a prime number."]
        first, broken, last = await asyncio.gather(*map(pool.submit, texts), return_exceptions=True)
        await pool.close()
        assert isinstance(broken, DataError)
        for text, encoded in ((texts[0], first), (texts[2], last)):
            np.testing.assert_allclose(encoded.features, encoder.encode(text), rtol=0, atol=1e-5)
