"""Tests of errors of a real loopback upstream, and of the keys that it is sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from router import errors
from router.attempts import AttemptOutcome
from router.errors import DispatchError
from router.serving.http_server import serve_on_loopback
from router.values import RouteQuery
from tests.router.answering.dispatch.dispatch_stack import KEY, Stack, Upstream, candidate, dispatching, pin
from tests.router.faults import FaultyUpstream

# One loop for the whole folder, so that one server serves all tests.
pytestmark = pytest.mark.asyncio(loop_scope="package")


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "kind", "attempts"),
        [
            (400, errors.UpstreamRejectedError, 1),
            (401, errors.UpstreamDeniedError, 1),
            (402, errors.UpstreamDeniedError, 1),
            (403, errors.UpstreamDeniedError, 1),
            (404, errors.UpstreamNotFoundError, 1),
            (408, errors.UpstreamTimeoutError, 1),
            (409, errors.UpstreamUnavailableError, 2),
            (413, errors.UpstreamRejectedError, 1),
            (422, errors.UpstreamRejectedError, 1),
            (429, errors.UpstreamRateLimitedError, 2),
            (500, errors.UpstreamUnavailableError, 2),
            (503, errors.UpstreamUnavailableError, 2),
        ],
    )
    async def test_are_of_the_kind_of_the_status_and_quote_only_what_is_wrong_with_a_request(
        self, folder: Path, upstream: Upstream, status: int, kind: type[DispatchError], attempts: int
    ) -> None:
        upstream.answer = JSONResponse({"error": {"message": "the prompt was: hello"}}, status_code=status)
        async with dispatching(
            folder, candidate("small", upstream.url), candidate("large", upstream.url), fallback="none"
        ) as stack:
            with pytest.raises(kind) as caught:
                await stack.complete(RouteQuery.from_prompt("hello"))
        assert type(caught.value) is kind
        assert ("It says: the prompt was: hello" in str(caught.value)) is (kind is errors.UpstreamRejectedError)
        assert ("hello" in str(caught.value)) is (kind is errors.UpstreamRejectedError)
        assert str(caught.value).endswith(kind.hint)
        assert [attempt.http_status for attempt in caught.value.attempts] == [status] * attempts
        assert len(upstream.sent) == attempts

    @pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
    @pytest.mark.parametrize("model", ["openai/real", "hosted_vllm/real"])
    async def test_about_a_parameter_of_the_policy_let_another_candidate_answer(
        self, folder: Path, upstream: Upstream, model: str, streamed: bool
    ) -> None:
        said = {"message": "'verbosity' is not supported with this model.", "type": "invalid_request_error"}
        picky = Upstream()
        picky.answer = JSONResponse({"error": said | {"param": "verbosity", "code": "unsupported_value"}}, 400)
        async with picky.running():
            small = candidate("small", picky.url, model=model, params={"verbosity": "low"})
            async with dispatching(
                folder, small, candidate("large", upstream.url), rule={"kind": "gain", "thresholds": [0.99]}
            ) as stack:
                query = RouteQuery.from_prompt("hello")
                answer = (await stack.stream(query))[0] if streamed else await stack.complete(query)
                with pytest.raises(errors.UpstreamRejectedError):
                    await stack.complete(RouteQuery.from_prompt("hello", parameters={"verbosity": "high"}))
        assert [(one.candidate, one.outcome) for one in answer.delivery.attempts] == [
            ("small", AttemptOutcome.REJECTED),
            ("large", AttemptOutcome.ANSWERED),
        ]

    async def test_name_the_variable_of_a_missing_key(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(KEY, "")
        with pytest.raises(errors.UpstreamDeniedError, match=KEY):
            await stack.complete(RouteQuery.from_prompt("hello"))

    async def test_are_told_when_the_service_starts_for_candidates_that_cannot_be_asked(
        self, folder: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        small = candidate("small", upstream.url, api_key_env="NO_SUCH_KEY")
        async with dispatching(folder, small, candidate("large", upstream.url)) as stack:
            await stack.dispatcher.load()
            assert stack.dispatcher.is_loaded
        told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert told == [
            "candidate 'small' has no key: the environment variable NO_SUCH_KEY is not set here.",
        ]

    async def test_say_when_to_try_again(self, upstream: Upstream, stack: Stack) -> None:
        upstream.answer = JSONResponse({"error": {}}, status_code=429, headers={"retry-after": "7"})
        with pytest.raises(errors.UpstreamRateLimitedError) as caught:
            await stack.complete(RouteQuery.from_prompt("hello"))
        assert caught.value.retry_after_s == 7
        with pytest.raises(errors.UpstreamCoolingDownError) as cooling:
            await stack.complete(RouteQuery.from_prompt("hello"))
        assert cooling.value.retry_after_s is not None
        assert 6 < cooling.value.retry_after_s <= 7

    async def test_of_a_deadline_that_has_passed_ask_nobody(self, upstream: Upstream, stack: Stack) -> None:
        await stack.complete(RouteQuery.from_prompt("hello"))
        with pytest.raises(errors.UpstreamTimeoutError):
            await stack.complete(RouteQuery.from_prompt("hello"), timeout_s=0)
        assert len(upstream.sent) == 1

    async def test_come_of_the_whole_deadline_where_nobody_but_a_resting_one_could_stand_in(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-test")
        faulty = FaultyUpstream()
        async with (
            serve_on_loopback(faulty.app()) as url,
            dispatching(
                folder,
                candidate("small", url, model="openai/hang", timeout_s=30),
                candidate("large", url, model="openai/401"),
                rule={"kind": "gain", "thresholds": [1.0]},
            ) as stack,
        ):
            with pytest.raises(errors.UpstreamDeniedError):
                await stack.complete(RouteQuery.from_prompt("hello", overrides=pin("large")))
            with pytest.raises(errors.UpstreamTimeoutError) as caught:
                await stack.complete(RouteQuery.from_prompt("hello"), timeout_s=0.3)
        # With half of it kept for the one that rests, there would have been time to find that it does.
        assert [(one.candidate, one.outcome) for one in caught.value.attempts] == [("small", AttemptOutcome.TIMED_OUT)]

    async def test_of_our_own_are_not_relabelled(self, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
        async def bug(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("aiohttp.ClientSession._request", bug)
        with pytest.raises(ZeroDivisionError):
            await stack.complete(RouteQuery.from_prompt("hello"))


class TestCredentials:
    async def test_a_line_feed_behind_a_key_is_not_part_of_it(
        self, stack: Stack, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(KEY, "sk-mounted\n")
        await stack.complete(RouteQuery.from_prompt("hello"))
        assert upstream.keys == ["Bearer sk-mounted"]

    async def test_a_user_in_the_address_is_authenticated_as_such(self, folder: Path, upstream: Upstream) -> None:
        url = upstream.url.replace("http://", "http://me:p%40ss@")
        async with dispatching(folder, candidate("small", url), candidate("large", url)) as stack:
            await stack.complete(RouteQuery.from_prompt("hello"))
        assert upstream.keys == [f"Basic {base64.b64encode(b'me:p@ss').decode()}"]
