"""A whole router on a fake encoder decides, fails as its policy says, keeps deadlines, and caches judgements."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from probes.errors import EncoderMismatchError
from router.deciding.judgement_cache import CacheCounts
from router.deciding.pipeline import Router
from router.deciding.settings import RouterSettings
from router.decision import Reason
from router.errors import (
    DeadlineError,
    InvalidRequestError,
    JudgementError,
    NoEligibleCandidateError,
    UnknownPolicyError,
)
from router.intake.loop_turns import TURNS
from router.policies.loading import load_policies
from router.values import Overrides, RouteQuery
from tests.fakes import FakeEncoder, FakeHelpedEncoder, fake_probe, fake_spec, write_policy


def make_router(*paths: Path, encoder: FakeEncoder | None = None, **options: int) -> Router:
    encoder = encoder or FakeEncoder()
    return Router(load_policies(list(paths)), {encoder.spec.identity: encoder}, RouterSettings(**options))


def prompt(text: str, **overrides: object) -> RouteQuery:
    return RouteQuery.from_prompt(text, overrides=Overrides(**overrides))  # type: ignore[arg-type]


class TestDeciding:
    def test_a_prompt_is_decided_alike_in_this_thread_and_in_the_pool(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path), cache_entries=0)
        here = router.decide(prompt("hello"))
        pooled = asyncio.run(router.adecide(prompt("hello")))
        assert (here.chosen, here.candidates, here.gain) == (pooled.chosen, pooled.candidates, pooled.gain)

    def test_the_loop_encodes_a_prompt_itself_if_nobody_else_is_there(self, tmp_path: Path) -> None:
        encoder = FakeHelpedEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder, cache_entries=0, threads=2)
        here = threading.current_thread().name

        async def thread_of(**how: bool) -> str:
            await router.adecide(prompt("hello"), **how)
            return encoder.threads[-1]

        async def run() -> None:
            # Until it is known how long prompts take, the pool takes them.
            assert await thread_of() != here
            for _ in range(30):
                await thread_of()
            assert await thread_of() == here
            assert await thread_of(in_batch=True) != here
            with TURNS.deciding:
                assert await thread_of() != here
            router.intake.n_arriving += 1
            assert await thread_of() != here
            router.intake.n_arriving -= 1
            assert await thread_of() == here

        asyncio.run(run())

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
        with pytest.raises(UnknownPolicyError, match="policy 'one' has no profile 'chep'; it has none at all"):
            router.policy("one:chep")
        with pytest.raises(UnknownPolicyError, match=r"got 'tow'. Did you mean two\?"):
            router.policy("tow")
        with pytest.raises(UnknownPolicyError, match="one of one, two, got 'three'"):
            router.decide(prompt("x", policy="three"))

    def test_a_request_that_is_refused_or_needs_no_scores_costs_no_forward_pass(self, tmp_path: Path) -> None:
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


def test_a_probe_of_another_encoder_is_refused(tmp_path: Path) -> None:
    path = write_policy(tmp_path, fake_probe(spec=fake_spec("other")))
    (policy,) = load_policies([path])
    assert policy.encoder_spec is not None
    with pytest.raises(EncoderMismatchError, match="must come from the encoder this probe was fitted with"):
        Router([policy], {policy.encoder_spec.identity: FakeEncoder()})


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

    def test_overrides_hold_for_a_cached_judgement_too(self, tmp_path: Path) -> None:
        router = make_router(write_policy(tmp_path))
        router.decide(prompt("again"), caller="alice")
        assert router.decide(prompt("again", pin="small"), caller="alice").chosen == "small"
        assert router.decide(prompt("again", pin="large"), caller="alice").chosen == "large"

    def test_another_policy_does_not_find_the_judgement(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        paths = [write_policy(tmp_path, name=name) for name in ("one", "two")]
        router = make_router(*paths, encoder=encoder)
        for name in ("one", "two"):
            router.decide(prompt("again", policy=name), caller="alice")
        assert router.cache_counts.hits == 0

    def test_the_least_recently_used_judgement_is_dropped_first(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder, cache_entries=2)
        for text in ("a", "b", "a", "c", "a", "b"):
            router.decide(prompt(text), caller="alice")
        assert encoder.encoded == ["a", "b", "c", "b"]
        assert router.cache_counts.entries == 2

    def test_a_failure_is_not_cached_and_a_cache_of_size_0_keeps_nothing(self, tmp_path: Path) -> None:
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

    def test_nothing_is_cached_for_calls_without_a_credential(self, tmp_path: Path) -> None:
        encoder = FakeEncoder()
        router = make_router(write_policy(tmp_path), encoder=encoder)
        assert not any(router.decide(prompt("again")).timings.cached for _ in range(2))
        assert router.cache_counts == CacheCounts(hits=0, misses=0, entries=0)


def test_ids_of_decisions_are_32_hexadecimal_digits_and_differ_in_forked_processes_too() -> None:
    program = (
        "import os, sys; from router.times import new_id\n"
        "read, write = os.pipe()\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0:\n"
        "        os.write(write, (new_id() + '\\n').encode()); os._exit(0)\n"
        "    os.wait()\n"
        "print(os.read(read, 200).decode(), end='')\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    ids = printed.split()
    assert {len(one) for one in ids} == {32}
    # The time is in the first half. The second half is drawn, and a fork must not draw what its sibling drew.
    assert len({one[16:] for one in ids}) == 3
