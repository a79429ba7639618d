"""The hops in order, on a fake encoder: failures, overload, cancellation, and what a router refuses at start."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from probes.artifacts import store as artifact
from probes.encoders.spec import FloatArray
from probes.errors import EncoderMismatchError
from router.deciding.batch_pool import BatchPool
from router.deciding.encode_pool import ENCODER_NICENESS, EncodePool
from router.deciding.judgement_cache import CacheCounts
from router.deciding.pipeline import Router
from router.errors import (
    ConfigError,
    DeadlineError,
    InvalidRequestError,
    JudgementError,
    NoEligibleCandidateError,
    NotReadyError,
    OverloadedError,
    UnknownPolicyError,
)
from router.policies.loading import load_policies, load_policy, missing_keys
from router.values import Overrides, Reason, RouteQuery
from tests.fakes import FakeBatchEncoder, FakeEncoder, fake_probe, fake_spec, write_policy


def make_router(*paths: Path, encoder: FakeEncoder | None = None, **options: int) -> Router:
    encoder = encoder or FakeEncoder()
    return Router(load_policies(list(paths)), {encoder.spec.identity: encoder}, **options)


def prompt(text: str, **overrides: object) -> RouteQuery:
    return RouteQuery.from_prompt(text, overrides=Overrides(**overrides))  # type: ignore[arg-type]


class TestDeciding:
    def test_the_same_prompt_decides_alike_in_this_thread_and_in_the_pool(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path), cache_entries=0)
        here = router.decide(prompt("hello"))
        pooled = asyncio.run(router.adecide(prompt("hello")))
        assert (here.chosen, here.candidates, here.gain) == (pooled.chosen, pooled.candidates, pooled.gain)

    def test_candidates_are_matched_to_the_probe_by_name_and_not_by_place(self, tmp_path: Path) -> None:
        probe = fake_probe(("aaa", "bbb", "ccc"))
        candidates = [
            {"name": "first", "model": "openai/x", "probe_model": "ccc"},
            {"name": "second", "model": "openai/y", "probe_model": "aaa"},
        ]
        path = write_policy(tmp_path, probe, names=("first", "second"), candidates=candidates)
        decision = make_router(path).decide(prompt("hello"))
        expected = probe.predict(FakeEncoder().encode("hello")[None]).risk[0]
        assert [c.risk for c in decision.candidates] == [expected[2], expected[0]]

    def test_requests_choose_among_the_policies_by_name(self, tmp_path: Path) -> None:
        rule = {"kind": "fixed", "candidate": "small"}
        paths = write_policy(tmp_path, name="one"), write_policy(tmp_path, name="two", rule=rule)
        router = make_router(*paths)
        assert router.decide(prompt("x")).policy.name == "one"
        assert router.decide(prompt("x", policy="two")).reason is Reason.FIXED
        with pytest.raises(UnknownPolicyError, match="one of one, two, got 'three'"):
            router.decide(prompt("x", policy="three"))

    def test_what_is_refused_or_settled_before_any_score_costs_no_forward_pass(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder)
        before = len(encoder.encoded)
        with pytest.raises(InvalidRequestError):
            router.decide(prompt("x", pin="nobody"))
        with pytest.raises(NoEligibleCandidateError, match="small: among denied_candidates; large: among denied"):
            router.decide(prompt("x", denied_candidates=("small", "large")))
        pinned = router.decide(prompt("x", pin="small"))
        alone = asyncio.run(router.adecide(prompt("x", denied_candidates=("small",))))
        assert len(encoder.encoded) == before
        assert (pinned.reason, alone.reason) == (Reason.PINNED, Reason.ONLY_ELIGIBLE)
        assert {c.risk for c in (*pinned.candidates, *alone.candidates)} == {None}
        assert (pinned.difficulty, pinned.leverage, pinned.timings.encode_s) == (None, None, 0.0)

    def test_a_fixed_rule_with_a_probe_has_its_prompts_judged(self, tmp_path: Path) -> None:
        rule = {"kind": "fixed", "candidate": "small"}
        decision = make_router(write_policy(tmp_path, rule=rule)).decide(prompt("x"))
        assert decision.reason is Reason.FIXED
        assert None not in {c.risk for c in decision.candidates}


class TestFailing:
    @pytest.mark.parametrize("text", ["make the encoder raise", "make the features NaN"])
    def test_failing_open_answers_with_the_safe_default_and_logs_why(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        decision = make_router(write_policy(tmp_path)).decide(prompt(text))
        assert (decision.chosen, decision.reason) == ("large", Reason.FAILED_OPEN)
        assert decision.candidates[0].risk is None
        assert "could not judge" in caplog.text
        assert text not in caplog.records[-1].getMessage()

    def test_failing_closed_is_an_error(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path, failure_mode="error"))
        with pytest.raises(JudgementError, match="failure_mode `error`"):
            router.decide(prompt("make the encoder raise"))

    def test_one_failing_prompt_leaves_its_neighbours_alone(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path))

        async def all_at_once() -> list[Reason]:
            texts = ["a", "make the encoder raise", "b"]
            return [d.reason for d in await asyncio.gather(*(router.adecide(prompt(t)) for t in texts))]

        reasons = asyncio.run(all_at_once())
        assert reasons[1] is Reason.FAILED_OPEN
        assert Reason.FAILED_OPEN not in (reasons[0], reasons[2])


class TestEncodePool:
    async def test_a_full_queue_is_refused_at_once_with_a_hint(self) -> None:
        encoder = FakeEncoder()
        encoder.gate.clear()
        pool = EncodePool(encoder, threads=1, max_pending=2)
        waiting = [pool.begin(text) for text in "ab"]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await pool.begin("c")
        assert caught.value.retry_after_s > 0
        encoder.gate.set()
        await asyncio.gather(*waiting)
        assert (await pool.begin("c")).encode_s >= 0
        await pool.close()

    async def test_a_waiter_who_left_costs_no_forward_pass(self) -> None:
        encoder = FakeEncoder()
        encoder.gate.clear()
        pool = EncodePool(encoder, threads=1, max_pending=8)
        first = pool.begin("first")
        left = pool.begin("left")
        await asyncio.sleep(0.05)
        left.cancel()
        await asyncio.sleep(0)
        encoder.gate.set()
        await first
        await pool.close()
        assert encoder.encoded == ["first"]

    @pytest.mark.parametrize("batches", [False, True])
    async def test_a_closed_pool_refuses_instead_of_never_answering(self, batches: bool) -> None:
        pool = BatchPool(FakeBatchEncoder()) if batches else EncodePool(FakeEncoder(), threads=1)
        assert (await pool.begin("before")).encode_s >= 0
        closing = asyncio.create_task(pool.close())
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(NotReadyError, match="shutting down"):
                pool.begin("after")
            await closing
        await pool.close()
        assert pool.pending == 0

    @pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux only")
    async def test_the_encoder_steps_back_behind_who_accepts_and_refuses(self) -> None:
        nice: list[int] = []

        class Watching(FakeEncoder):
            def encode(self, text: str) -> FloatArray:
                nice.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
                return super().encode(text)

        before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        pool = EncodePool(Watching(), threads=1)
        await pool.begin("hello")
        await pool.close()
        assert nice[0] == min(before + ENCODER_NICENESS, 19)
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


class TestLoading:
    def test_a_probe_of_another_encoder_is_refused(self, tmp_path: Path) -> None:
        path = write_policy(tmp_path, fake_probe(spec=fake_spec("other")))
        (policy,) = load_policies([path])
        assert policy.encoder_spec is not None
        with pytest.raises(EncoderMismatchError, match="must come from the encoder this probe was fitted with"):
            Router([policy], {policy.encoder_spec.identity: FakeEncoder()})

    def test_a_candidate_the_probe_does_not_know_is_refused(self, tmp_path: Path) -> None:
        path = write_policy(tmp_path, fake_probe(("small", "other")))
        with pytest.raises(ConfigError, match=r"must be a model of its probe .*large"):
            load_policy(path)

    def test_two_policies_of_one_name_are_refused(self, tmp_path: Path) -> None:
        path = write_policy(tmp_path)
        with pytest.raises(ConfigError, match="'test' stands in 2"):
            load_policies([path, path])

    def test_a_missing_probe_names_policy_and_probe(self, tmp_path: Path) -> None:
        path = write_policy(tmp_path, probe="elsewhere")
        with pytest.raises(ConfigError, match=r"test\.yaml.*'elsewhere' cannot be used"):
            load_policy(path)

    def test_a_damaged_probe_is_refused(self, tmp_path: Path) -> None:
        path = write_policy(tmp_path)
        tensors = tmp_path / "probe" / artifact.TENSORS
        tensors.write_bytes(tensors.read_bytes()[:-100])
        with pytest.raises(ConfigError, match="cannot be used"):
            load_policy(path)

    def test_prices_can_come_from_litellms_own_table_without_importing_it(self, tmp_path: Path) -> None:
        candidates = [
            {"name": "small", "model": "openai/gpt-4o-mini", "prices": "litellm"},
            {"name": "large", "model": "gpt-4-turbo", "prices": "litellm"},
        ]
        small, large = load_policy(write_policy(tmp_path, candidates=candidates)).rules.prices
        assert small is not None
        assert large is not None
        assert 0 < small.input_usd_per_million_tokens < large.input_usd_per_million_tokens
        assert small.cached_input_usd_per_million_tokens is not None
        assert 0 < small.cached_input_usd_per_million_tokens < small.input_usd_per_million_tokens
        assert large.cached_input_usd_per_million_tokens is None

    def test_a_model_without_a_list_price_says_what_to_write(self, tmp_path: Path) -> None:
        candidates = [{"name": n, "model": f"openai/no-such-{n}", "prices": "litellm"} for n in ("small", "large")]
        with pytest.raises(ConfigError, match="state input_usd_per_million_tokens"):
            load_policy(write_policy(tmp_path, candidates=candidates))

    def test_keys_are_named_and_only_the_unset_ones_reported(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        candidates = [
            {"name": n, "model": f"openai/{n}", "api_key_env": f"TEST_KEY_{n.upper()}"} for n in ("small", "large")
        ]
        monkeypatch.setenv("TEST_KEY_SMALL", "secret")
        policy = load_policy(write_policy(tmp_path, candidates=candidates))
        assert missing_keys(policy) == ["TEST_KEY_LARGE"]
        assert "secret" not in policy.to_json()


def test_warming_up_runs_the_whole_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    encoder = FakeEncoder()
    with caplog.at_level(logging.ERROR):
        make_router(write_policy(tmp_path), encoder=encoder).warm_up()
    assert encoder.encoded[-1] == "warm up"
    assert not caplog.records


class TestDeadlines:
    async def test_a_prompt_whose_deadline_passed_in_the_queue_costs_no_forward_pass(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder, threads=1)
        encoder.gate.clear()
        first = asyncio.create_task(router.adecide(prompt("first")))
        late = asyncio.create_task(router.adecide(prompt("late"), timeout_s=0.05))
        await asyncio.sleep(0.1)
        encoder.gate.set()
        with pytest.raises(DeadlineError, match="waited for the encoder"):
            await late
        await first
        assert encoder.encoded == ["first"]
        await router.close()


class TestCache:
    def test_the_same_prompt_is_encoded_once_and_decided_alike(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder)
        first, second = (router.decide(prompt("again"), caller="alice") for _ in range(2))
        assert encoder.encoded == ["again"]
        assert (first.timings.cached, second.timings.cached) == (False, True)
        assert dataclasses.replace(second, decision_id=first.decision_id, timings=first.timings) == first
        assert router.cache_counts == CacheCounts(hits=1, misses=1, entries=1)

    def test_what_a_caller_asks_beyond_the_policy_holds_for_a_known_prompt_too(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path))
        router.decide(prompt("again"), caller="alice")
        assert router.decide(prompt("again", pin="small"), caller="alice").chosen == "small"
        assert router.decide(prompt("again", pin="large"), caller="alice").chosen == "large"

    def test_another_policy_judges_anew(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        paths = [write_policy(tmp_path, name=name) for name in ("one", "two")]
        router = make_router(*paths, encoder=encoder)
        for name in ("one", "two"):
            router.decide(prompt("again", policy=name), caller="alice")
        assert router.cache_counts.hits == 0

    def test_the_one_used_longest_ago_goes_first(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder, cache_entries=2)
        for text in ("a", "b", "a", "c", "a", "b"):
            router.decide(prompt(text), caller="alice")
        assert encoder.encoded == ["a", "b", "c", "b"]
        assert router.cache_counts.entries == 2

    def test_a_failure_is_not_remembered_and_none_are_kept_without_room(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder, cache_entries=0)
        for text in ("a", "a", "make the encoder raise", "make the encoder raise"):
            router.decide(prompt(text), caller="alice")
        assert len(encoder.encoded) == 4
        assert router.cache_counts.entries == 0

    def test_no_caller_learns_what_another_asked(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder)
        router.decide(prompt("secret"), caller="alice")
        for caller in ("bob", ""):
            assert not router.decide(prompt("secret"), caller=caller).timings.cached
        assert encoder.encoded == ["secret"] * 3
        assert router.decide(prompt("secret"), caller="alice").timings.cached

    def test_calls_without_a_credential_cannot_be_told_apart_and_nothing_is_kept_for_them(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder)
        assert not any(router.decide(prompt("again")).timings.cached for _ in range(2))
        assert router.cache_counts == CacheCounts(hits=0, misses=0, entries=0)
