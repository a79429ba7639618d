"""Tests of which answers the dispatcher passes on, whole and as a stream."""

from __future__ import annotations

from typing import Any

import pytest

from router import errors
from router.answering.completion import Usage
from tests.router.answering.scripted_upstream import A, Script, Stack, delta, down, outcomes, said


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
            done = await Stack(monkeypatch, Script(a=[body])).complete()
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
            ({"prompt_tokens": -1, "completion_tokens": 1}, None),
            ({"prompt_tokens": 7, "completion_tokens": True}, None),
            ({"prompt_tokens": "7", "completion_tokens": 1.0}, None),
            ({"prompt_tokens": 7.0, "completion_tokens": 1.0}, Usage(7, 1, 17e-6)),
            ({"prompt_tokens": 10**8, "completion_tokens": 0}, Usage(10**8, 0, 100.0)),
            ({"prompt_tokens": 10**8 + 1, "completion_tokens": 0}, None),
            ({"prompt_tokens": 5, "completion_tokens": 2**53}, None),
            ({"prompt_tokens": 5}, None),
            ({"prompt_tokens": 5, "completion_tokens": 0, "prompt_tokens_details": [1]}, Usage(5, 0, 5e-6)),
            ({}, None),
            (None, None),
            ([1], None),
        ],
    )
    async def test_tokens_are_counted_and_paid_as_the_provider_says_them(
        self, monkeypatch: pytest.MonkeyPatch, usage: Any, counted: Usage | None
    ) -> None:
        done = await Stack(monkeypatch, Script(a=[said(usage=usage)])).complete()
        if counted is None or done.usage is None:
            assert done.usage is counted
        else:
            assert (done.usage.input_tokens, done.usage.output_tokens) == (
                counted.input_tokens,
                counted.output_tokens,
            )
            assert done.usage.cost_usd == pytest.approx(counted.cost_usd)

    async def test_the_attempt_says_that_it_came_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        done = await Stack(monkeypatch, Script(a=[said()])).complete()
        assert done.delivery is not None
        assert [(one.outcome, one.streamed) for one in done.delivery.attempts] == [(A.ANSWERED, False)]


class TestStreams:
    async def test_every_chunk_arrives_once_and_the_first_says_who_answers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parts = [delta(role="assistant"), delta(content="forty-"), delta("stop", content="two")]
        stack = Stack(monkeypatch, Script(a=[list(parts)]))
        steps = await stack.stream()
        assert [step.body for step in steps] == parts
        assert [step.text for step in steps] == ["", "forty-", "two"]
        assert [step.delivery is not None for step in steps] == [True, False, False]
        assert steps[0].delivery is not None
        assert outcomes(steps[0].delivery.attempts) == [("a", A.ANSWERED)]
        assert steps[0].delivery.attempts[0].streamed
        assert stack.script.closed == 1

    async def test_until_the_first_content_another_candidate_may_take_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stack = Stack(monkeypatch, Script(a=[[delta(role="assistant"), down()]]), retries=0)
        steps = await stack.stream()
        assert "".join(step.text for step in steps) == "forty-two"
        assert steps[0].delivery is not None
        assert outcomes(steps[0].delivery.attempts) == [("a", A.UNAVAILABLE), ("b", A.ANSWERED)]
        assert stack.script.closed == 2

    async def test_afterwards_nobody_may_and_the_caller_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stack = Stack(monkeypatch, Script(a=[[delta(content="forty-"), down()]]), retries=3)
        with pytest.raises(errors.UpstreamInterruptedError) as caught:
            await stack.stream()
        assert caught.value.message == "candidate 'a' broke off after part of its answer had been sent."
        assert caught.value.http_status == 503
        assert [(one.outcome, one.streamed) for one in caught.value.attempts] == [(A.INTERRUPTED, True)]
        assert stack.script.asked == ["a"]

    async def test_a_stream_that_stalls_is_interrupted_and_at_the_callers_deadline_it_is_late(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stalls = [delta(content="forty-"), "hang"]
        with pytest.raises(errors.UpstreamInterruptedError):
            await Stack(monkeypatch, Script(a=[list(stalls)]), timeout_s=0.05).stream()
        with pytest.raises(errors.UpstreamTimeoutError) as caught:
            await Stack(monkeypatch, Script(a=[list(stalls)])).stream(timeout_s=0.2)
        assert [(one.outcome, one.streamed) for one in caught.value.attempts] == [(A.TIMED_OUT, True)]

    @pytest.mark.parametrize(
        "part", [delta("stop"), delta(content="x"), delta(tool_calls=[{}]), delta(index=1, content="x")]
    )
    async def test_content_is_all_that_is_more_than_a_role(self, monkeypatch: pytest.MonkeyPatch, part: Any) -> None:
        empty = [delta(role="assistant"), delta(content=""), {"choices": []}, {"choices": [{"delta": None}]}]
        stack = Stack(monkeypatch, Script(a=[[*empty, down()], [*empty, part, down()]]), retries=1)
        with pytest.raises(errors.UpstreamInterruptedError):
            await stack.stream()
        assert stack.script.asked == ["a", "a"]  # nothing was sent of the first

    async def test_a_hundred_chunks_without_content_are_sent_as_they_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        silent = delta(role="assistant")
        stack = Stack(monkeypatch, Script(a=[[silent] * 99 + [down()], [silent] * 100 + [down()]]), retries=1)
        with pytest.raises(errors.UpstreamInterruptedError):
            await stack.stream()
        assert stack.script.asked == ["a", "a"]

    async def test_pings_before_the_first_content_are_left_out_and_count_as_no_chunk(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ping, parts = {"type": "ping"}, [delta(role="assistant"), delta("stop", content="forty-two")]
        stack = Stack(monkeypatch, Script(a=[[*[ping] * 100, parts[0], ping, parts[1]]]))
        assert [step.body for step in await stack.stream()] == parts
