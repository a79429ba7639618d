"""Attempts, retries and rests of the dispatcher, with an upstream that does what a script says and a frozen clock."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from router import errors
from router.answering import attempt_log, dispatch
from router.answering.attempt_log import BACKOFF_S, MAX_WAIT_S, turn_length_s
from router.answering.completion import Completion, Usage
from router.answering.dispatch import Dispatcher
from router.attempts import AttemptOutcome
from router.errors import DispatchError, InvalidRequestError
from router.policies.loading import ServedPolicy
from router.policies.policy_file import PolicyFile, Prices
from router.policies.rules import Rules
from router.values import ArtifactRef, Reason, RouteQuery
from tests.router.answering.test_fallback import decision

A = AttemptOutcome
QUERY = RouteQuery(({"role": "user", "content": "why?"},))
PRICES = Prices(
    input_usd_per_million_tokens=1, output_usd_per_million_tokens=10, cached_input_usd_per_million_tokens=0.1
)


def said(text: Any = "forty-two", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}], **more}


def delta(finish_reason: str | None = None, index: int = 0, **parts: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": parts, "finish_reason": finish_reason}]}


class Script:
    """An upstream whose candidates do, one call after another, what is listed for them; then they answer."""

    def __init__(self, **steps: list[Any]) -> None:
        self.steps = steps
        self.asked: list[str] = []
        self.closed = 0

    async def load(self) -> None: ...

    async def aclose(self) -> None: ...

    def _next(self, name: str, usual: Any) -> Any:
        self.asked.append(name)
        left = self.steps.get(name, [])
        return left.pop(0) if left else usual

    async def complete(self, candidate: Any, query: RouteQuery) -> Mapping[str, Any]:
        step = self._next(candidate.name, said())
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await asyncio.sleep(30)
        return step  # type: ignore[no-any-return]

    async def stream(self, candidate: Any, query: RouteQuery) -> AsyncGenerator[Any, None]:
        try:
            for part in self._next(candidate.name, [delta(content="forty-"), delta("stop", content="two")]):
                if isinstance(part, BaseException):
                    raise part
                if part == "hang":
                    await asyncio.sleep(30)
                yield part
        finally:
            self.closed += 1


class World:
    """Candidates a, b, c and d of rising strength, `a` chosen, under one policy."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Script, **each: Any) -> None:
        self.script, self.now, self.slept = script, 1000.0, list[float]()
        monkeypatch.setattr(dispatch, "Upstream", lambda **_: script)
        sleep = asyncio.sleep

        async def note(seconds: float) -> None:
            if seconds < 30:
                self.slept.append(seconds)
                return await sleep(0)
            return await sleep(seconds)

        monkeypatch.setattr(dispatch.asyncio, "sleep", note)
        monkeypatch.setattr(attempt_log.random, "uniform", lambda low, high: high)
        candidates = [{"name": name, "model": f"openai/{name}", **each} for name in "abcd"]
        file = PolicyFile.model_validate(
            {
                "schema": "elle.policy/1",
                "name": "p",
                "candidates": candidates,
                "safe_default": "d",
                "rule": {"kind": "fixed", "candidate": "a"},
            }
        )
        served = ServedPolicy(Rules(file, (PRICES,) * 4, None), ArtifactRef("p", "1", ""))
        self.dispatcher = Dispatcher({"p": served}, clock=lambda: self.now)

    async def complete(self, chosen: str = "a", timeout_s: float | None = None, **query: Any) -> Completion:
        asked = RouteQuery(QUERY.messages, **query)
        decided = decision(chosen, (0.4, 0.3, 0.2, 0.1), Reason.GAIN_BELOW_THRESHOLD)
        return await self.dispatcher.complete(asked, decided, timeout_s=timeout_s)

    async def stream(self, timeout_s: float | None = None) -> list[Completion]:
        decided = decision("a", (0.4, 0.3, 0.2, 0.1))
        return [step async for step in self.dispatcher.stream(QUERY, decided, timeout_s=timeout_s)]


def outcomes(attempts: Any) -> list[tuple[str, AttemptOutcome]]:
    return [(one.candidate, one.outcome) for one in attempts]


def busy(retry_after_s: float | None = None) -> DispatchError:
    return errors.UpstreamRateLimitedError("busy.", http_status=429, retry_after_s=retry_after_s)


def down() -> DispatchError:
    return errors.UpstreamUnavailableError("down.", http_status=503)


class TestRetries:
    async def test_each_wait_is_twice_the_one_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, Script(a=[down(), down(), down()]), retries=3)
        done = await world.complete()
        assert done.delivery is not None
        assert outcomes(done.delivery.attempts) == [*[("a", A.UNAVAILABLE)] * 3, ("a", A.ANSWERED)]
        assert [one.http_status for one in done.delivery.attempts] == [503, 503, 503, None]
        assert not done.delivery.fell_back
        assert world.slept == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S]

    async def test_so_many_and_no_more_before_the_next_candidate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, Script(a=[down()] * 9), retries=2)
        done = await world.complete()
        assert world.script.asked == ["a", "a", "a", "b"]
        assert done.delivery is not None
        assert (done.delivery.answered_by, done.delivery.answered_by_model) == ("b", "openai/b")
        assert done.delivery.fell_back

    async def test_a_provider_may_ask_for_a_wait_up_to_the_longest_and_is_left_alone_if_it_is_longer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, Script(a=[busy(MAX_WAIT_S + 0.01)]), retries=1)
        await world.complete()
        assert world.script.asked == ["a", "b"]
        assert world.slept == []

    async def test_a_candidate_told_to_rest_is_passed_over_until_its_rest_is_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, Script(a=[busy(7)]), retries=0)
        await world.complete()
        resting = await world.complete()
        assert resting.delivery is not None
        assert outcomes(resting.delivery.attempts) == [("a", A.COOLING_DOWN), ("b", A.ANSWERED)]
        assert resting.delivery.attempts[0].duration_s == 0.0
        world.now += 7
        done = await world.complete()
        assert done.delivery is not None
        assert done.delivery.answered_by == "a"

    async def test_a_refused_key_rests_its_candidate_at_once_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = errors.UpstreamDeniedError("the key was refused.", http_status=401)
        world = World(monkeypatch, Script(d=[denied]), retries=3, cooldown_s=30)
        with pytest.raises(errors.UpstreamDeniedError):
            await world.complete("d")
        with pytest.raises(errors.UpstreamDeniedError) as caught:
            await world.complete("d")
        assert caught.value.message == "candidate 'd' rests: the key was refused."
        assert caught.value.http_status == 401
        assert world.script.asked == ["d"]

    async def test_failures_in_a_row_rest_a_candidate_and_the_caller_hears_for_how_long(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, Script(d=[down(), down()]), retries=0, break_after=2, cooldown_s=30)
        for _ in range(2):
            with pytest.raises(errors.UpstreamUnavailableError):
                await world.complete("d")
        world.now += 10
        with pytest.raises(errors.UpstreamCoolingDownError) as caught:
            await world.complete("d")
        assert caught.value.retry_after_s == 20
        assert caught.value.message == "candidate 'd' is cooling down after failures."

    async def test_what_the_request_is_to_blame_for_rests_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refused = errors.UpstreamRejectedError("malformed.", http_status=400)
        refused.counts = False
        world = World(monkeypatch, Script(a=[refused] * 5), break_after=1)
        for _ in range(5):
            with pytest.raises(errors.UpstreamRejectedError) as caught:
                await world.complete()
            assert outcomes(caught.value.attempts) == [("a", A.REJECTED)]
        done = await world.complete()
        assert done.delivery is not None
        assert done.delivery.answered_by == "a"


class TestGivingUp:
    async def test_the_last_failure_that_may_pass_is_told_with_the_shortest_wait_and_every_attempt(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = errors.UpstreamDeniedError("no.", http_status=401)
        script = Script(a=[busy(9)], b=[busy(5)], c=[down()], d=[denied])
        world = World(monkeypatch, script, retries=0)
        with pytest.raises(errors.UpstreamUnavailableError) as caught:
            await world.complete()
        assert caught.value.retry_after_s == 5
        assert outcomes(caught.value.attempts) == [
            ("a", A.RATE_LIMITED),
            ("b", A.RATE_LIMITED),
            ("c", A.UNAVAILABLE),
            ("d", A.DENIED),
        ]

    async def test_where_nothing_may_pass_the_last_failure_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        denied = [errors.UpstreamDeniedError(f"{name}.", http_status=401) for name in "abc"]
        missing = errors.UpstreamNotFoundError("d.", http_status=404)
        script = Script(a=[denied[0]], b=[denied[1]], c=[denied[2]], d=[missing])
        with pytest.raises(errors.UpstreamNotFoundError) as caught:
            await World(monkeypatch, script).complete()
        assert caught.value.retry_after_s is None
        assert len(caught.value.attempts) == 4

    async def test_fields_of_the_router_are_refused_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, Script())
        with pytest.raises(InvalidRequestError, match="must not hold model, stream: the router sets them") as caught:
            await world.complete(parameters={"stream": True, "model": "x", "top_p": 1})
        assert caught.value.field == "parameters"
        assert world.script.asked == []

    async def test_a_deadline_that_has_passed_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, Script())
        with pytest.raises(errors.UpstreamTimeoutError, match="deadline passed before any"):
            await world.complete(timeout_s=0)
        assert world.script.asked == []

    async def test_a_silent_candidate_is_left_for_the_next_one_without_a_retry(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, Script(a=["hang"]), timeout_s=0.05, retries=3)
        done = await world.complete()
        assert done.delivery is not None
        assert outcomes(done.delivery.attempts) == [("a", A.TIMED_OUT), ("b", A.ANSWERED)]
        assert done.delivery.attempts[0].duration_s >= 0.05

    @pytest.mark.parametrize(("left", "others", "share"), [(10, 3, 7), (10, 5, 5), (10, 8, 5), (10, 0, 10)])
    def test_the_others_keep_their_time_but_at_most_half(self, left: float, others: float, share: float) -> None:
        assert turn_length_s(left, others) == share
        assert turn_length_s(math.inf, others) == math.inf


class TestAnswers:
    async def test_text_is_that_of_the_first_choice_wherever_it_stands(self, monkeypatch: pytest.MonkeyPatch) -> None:
        second = {"index": 1, "message": {"content": "no"}}
        bodies: list[tuple[dict[str, Any], str]] = [
            (said(), "forty-two"),
            ({"choices": [second, said("yes")["choices"][0]]}, "yes"),
            ({"choices": [{"message": {"content": "no index"}}]}, "no index"),
            ({"choices": [second]}, ""),
            ({"choices": None}, ""),
            ({"choices": [{"index": 0, "message": None}]}, ""),
            (said([{"type": "text"}]), ""),
            (said(None), ""),
        ]
        for body, text in bodies:
            done = await World(monkeypatch, Script(a=[body])).complete()
            assert (done.text, done.body) == (text, body)

    @pytest.mark.parametrize(
        ("usage", "counted"),
        [
            ({"prompt_tokens": 100, "completion_tokens": 10}, Usage(100, 10, 200e-6)),
            (
                {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 40}},
                Usage(100, 0, 64e-6),
            ),
            (
                {"prompt_tokens": 100, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 400}},
                Usage(100, 0, 10e-6),
            ),
            ({"prompt_tokens": -1, "completion_tokens": True}, Usage(0, 0, 0.0)),
            ({"prompt_tokens": "7", "completion_tokens": 1.0}, Usage(0, 1, 10e-6)),
            ({"prompt_tokens": 2**53, "completion_tokens": 2**53 + 2}, Usage(2**53, 0, 2**53 * 1e-6)),
            ({"prompt_tokens": 5, "prompt_tokens_details": [1]}, Usage(5, 0, 5e-6)),
            ({}, None),
            (None, None),
            ([1], None),
        ],
    )
    async def test_tokens_are_counted_and_paid_as_the_provider_says_them(
        self, monkeypatch: pytest.MonkeyPatch, usage: Any, counted: Usage | None
    ) -> None:
        done = await World(monkeypatch, Script(a=[said(usage=usage)])).complete()
        if counted is None or done.usage is None:
            assert done.usage is counted
        else:
            assert (done.usage.input_tokens, done.usage.output_tokens) == (
                counted.input_tokens,
                counted.output_tokens,
            )
            assert done.usage.cost_usd == pytest.approx(counted.cost_usd)


class TestStreams:
    async def test_every_chunk_arrives_once_and_the_first_says_who_answers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = [delta(role="assistant"), delta(content="forty-"), delta("stop", content="two")]
        world = World(monkeypatch, Script(a=[list(parts)]))
        steps = await world.stream()
        assert [step.body for step in steps] == parts
        assert [step.text for step in steps] == ["", "forty-", "two"]
        assert [step.delivery is not None for step in steps] == [True, False, False]
        assert steps[0].delivery is not None
        assert outcomes(steps[0].delivery.attempts) == [("a", A.ANSWERED)]
        assert steps[0].delivery.attempts[0].streamed
        assert world.script.closed == 1

    async def test_until_the_first_content_another_candidate_may_take_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world = World(monkeypatch, Script(a=[[delta(role="assistant"), down()]]), retries=0)
        steps = await world.stream()
        assert "".join(step.text for step in steps) == "forty-two"
        assert steps[0].delivery is not None
        assert outcomes(steps[0].delivery.attempts) == [("a", A.UNAVAILABLE), ("b", A.ANSWERED)]
        assert world.script.closed == 2

    async def test_afterwards_nobody_may_and_the_caller_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(monkeypatch, Script(a=[[delta(content="forty-"), down()]]), retries=3)
        with pytest.raises(errors.UpstreamInterruptedError) as caught:
            await world.stream()
        assert caught.value.message == "candidate 'a' broke off after part of its answer had been sent."
        assert caught.value.http_status == 503
        assert [(one.outcome, one.streamed) for one in caught.value.attempts] == [(A.INTERRUPTED, True)]
        assert world.script.asked == ["a"]

    async def test_a_stream_that_stalls_is_interrupted_and_at_the_callers_deadline_it_is_late(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stalls = [delta(content="forty-"), "hang"]
        with pytest.raises(errors.UpstreamInterruptedError):
            await World(monkeypatch, Script(a=[list(stalls)]), timeout_s=0.05).stream()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            await World(monkeypatch, Script(a=[list(stalls)])).stream(timeout_s=0.2)
        assert [(one.outcome, one.streamed) for one in caught.value.attempts] == [(A.TIMED_OUT, True)]

    @pytest.mark.parametrize(
        "part", [delta("stop"), delta(content="x"), delta(tool_calls=[{}]), delta(index=1, content="x")]
    )
    async def test_content_is_all_that_is_more_than_a_role(self, monkeypatch: pytest.MonkeyPatch, part: Any) -> None:
        empty = [delta(role="assistant"), delta(content=""), {"choices": []}, {"choices": [{"delta": None}]}]
        world = World(monkeypatch, Script(a=[[*empty, down()], [*empty, part, down()]]), retries=1)
        with pytest.raises(errors.UpstreamInterruptedError):
            await world.stream()
        assert world.script.asked == ["a", "a"]  # nothing was sent of the first

    async def test_a_hundred_chunks_without_content_are_sent_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        silent = delta(role="assistant")
        world = World(monkeypatch, Script(a=[[silent] * 99 + [down()], [silent] * 100 + [down()]]), retries=1)
        with pytest.raises(errors.UpstreamInterruptedError):
            await world.stream()
        assert world.script.asked == ["a", "a"]
