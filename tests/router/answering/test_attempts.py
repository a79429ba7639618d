"""Tests of attempts and retries of the dispatcher, and of when it gives a candidate up."""

from __future__ import annotations

import math

import pytest

from router import errors
from router.answering.attempt_log import BACKOFF_S, MAX_WAIT_S, turn_length_s
from router.errors import InvalidRequestError
from tests.router.answering.scripted_upstream import A, Script, Stack, busy, down, outcomes


class TestRetries:
    async def test_each_wait_is_twice_the_one_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stack = Stack(monkeypatch, Script(a=[down(), down(), down()]), retries=3)
        done = await stack.complete()
        assert done.delivery is not None
        assert outcomes(done.delivery.attempts) == [*[("a", A.UNAVAILABLE)] * 3, ("a", A.ANSWERED)]
        assert [one.http_status for one in done.delivery.attempts] == [503, 503, 503, None]
        assert not done.delivery.fell_back
        assert stack.slept == [BACKOFF_S, 2 * BACKOFF_S, 4 * BACKOFF_S]

    async def test_so_many_and_no_more_before_the_next_candidate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stack = Stack(monkeypatch, Script(a=[down()] * 9), retries=2)
        done = await stack.complete()
        assert stack.script.asked == ["a", "a", "a", "b"]
        assert done.delivery is not None
        assert (done.delivery.answered_by, done.delivery.answered_by_model) == ("b", "openai/b")
        assert done.delivery.fell_back

    async def test_a_provider_may_ask_for_a_wait_up_to_the_longest_and_is_left_alone_if_it_is_longer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack = Stack(monkeypatch, Script(a=[busy(MAX_WAIT_S + 0.01)]), retries=1)
        await stack.complete()
        assert stack.script.asked == ["a", "b"]
        assert stack.slept == []

    async def test_a_candidate_told_to_rest_is_passed_over_until_its_rest_is_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack = Stack(monkeypatch, Script(a=[busy(7)]), retries=0)
        await stack.complete()
        resting = await stack.complete()
        assert resting.delivery is not None
        assert outcomes(resting.delivery.attempts) == [("a", A.COOLING_DOWN), ("b", A.ANSWERED)]
        assert resting.delivery.attempts[0].duration_s == 0.0
        stack.now += 7
        done = await stack.complete()
        assert done.delivery is not None
        assert done.delivery.answered_by == "a"

    async def test_a_refused_key_rests_its_candidate_at_once_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = errors.UpstreamDeniedError("the key was refused.", http_status=401)
        stack = Stack(monkeypatch, Script(d=[denied]), retries=3, cooldown_s=30)
        with pytest.raises(errors.UpstreamDeniedError):
            await stack.complete("d")
        with pytest.raises(errors.UpstreamDeniedError) as caught:
            await stack.complete("d")
        assert caught.value.message == "candidate 'd' rests: the key was refused."
        assert caught.value.http_status == 401
        assert stack.script.asked == ["d"]

    async def test_failures_in_a_row_rest_a_candidate_and_the_caller_hears_for_how_long(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack = Stack(monkeypatch, Script(d=[down(), down()]), retries=0, break_after=2, cooldown_s=30)
        for _ in range(2):
            with pytest.raises(errors.UpstreamUnavailableError):
                await stack.complete("d")
        stack.now += 10
        with pytest.raises(errors.UpstreamCoolingDownError) as caught:
            await stack.complete("d")
        assert caught.value.retry_after_s == 20
        assert caught.value.message == "candidate 'd' is cooling down after failures."

    async def test_what_the_request_is_to_blame_for_rests_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refused = errors.UpstreamRejectedError("malformed.", http_status=400)
        refused.counts = False
        stack = Stack(monkeypatch, Script(a=[refused] * 5), break_after=1)
        for _ in range(5):
            with pytest.raises(errors.UpstreamRejectedError) as caught:
                await stack.complete()
            assert outcomes(caught.value.attempts) == [("a", A.REJECTED)]
        done = await stack.complete()
        assert done.delivery is not None
        assert done.delivery.answered_by == "a"


class TestGivingUp:
    async def test_the_last_failure_that_may_pass_is_told_with_the_shortest_wait_and_every_attempt(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        denied = errors.UpstreamDeniedError("no.", http_status=401)
        script = Script(a=[busy(9)], b=[busy(5)], c=[down()], d=[denied])
        stack = Stack(monkeypatch, script, retries=0)
        with pytest.raises(errors.UpstreamUnavailableError) as caught:
            await stack.complete()
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
            await Stack(monkeypatch, script).complete()
        assert caught.value.retry_after_s is None
        assert len(caught.value.attempts) == 4

    async def test_fields_of_the_router_are_refused_by_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stack = Stack(monkeypatch, Script())
        with pytest.raises(InvalidRequestError, match="must not hold model, stream: the router sets them") as caught:
            await stack.complete(parameters={"stream": True, "model": "x", "top_p": 1})
        assert caught.value.field == "parameters"
        assert stack.script.asked == []

    async def test_a_deadline_that_has_passed_asks_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stack = Stack(monkeypatch, Script())
        with pytest.raises(errors.UpstreamTimeoutError, match="deadline passed before any"):
            await stack.complete(timeout_s=0)
        assert stack.script.asked == []

    async def test_a_silent_candidate_is_left_for_the_next_one_without_a_retry(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack = Stack(monkeypatch, Script(a=["hang"]), timeout_s=0.05, retries=3)
        done = await stack.complete()
        assert done.delivery is not None
        assert outcomes(done.delivery.attempts) == [("a", A.TIMED_OUT), ("b", A.ANSWERED)]
        assert done.delivery.attempts[0].duration_s >= 0.05

    @pytest.mark.parametrize(("left", "others", "share"), [(10, 3, 7), (10, 5, 5), (10, 8, 5), (10, 0, 10)])
    def test_the_others_keep_their_time_but_at_most_half(self, left: float, others: float, share: float) -> None:
        assert turn_length_s(left, others) == share
        assert turn_length_s(math.inf, others) == math.inf
