"""What a failure says about whether a call was paid for, and how fast a model is asked."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from router import errors
from router.attempts import Attempt, AttemptOutcome
from router.collecting.calls.asking import AskedCall, Asker, AskingLimits, CallFailedError, state_of
from router.collecting.calls.budget import NOTHING, Budget, StopCollectingError
from router.collecting.calls.panel import Panel
from router.collecting.calls.store import digest, open_store
from router.collecting.collect import CollectOptions, collect
from router.collecting.sampling import Selection
from router.errors import DispatchError
from router.policies.candidates.candidate import Candidate
from router.policies.policy_file import read_policy_file
from tests.router.collecting.simulated import simulated, write_log, write_policy
from tests.router.faults import closed_port

A = AttemptOutcome


class ClientConnectorError(Exception):
    """Is called like the error of aiohttp for an upstream that takes no connection."""


def failed(error: DispatchError, outcome: AttemptOutcome, because: Exception | None = None) -> DispatchError:
    error.attempts = (Attempt("tiny", outcome, error.http_status),)
    error.__cause__ = because
    return error


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (failed(errors.UpstreamRateLimitedError("x", http_status=429), A.RATE_LIMITED), "refused"),
        (failed(errors.UpstreamRejectedError("x", http_status=400), A.REJECTED), "refused"),
        (failed(errors.UpstreamUnavailableError("x", http_status=503), A.UNAVAILABLE), "failed"),
        (failed(errors.UpstreamUnavailableError("broke off"), A.UNAVAILABLE), "unknown"),
        (failed(errors.UpstreamTimeoutError("x"), A.TIMED_OUT), "unknown"),
        (failed(errors.UpstreamInterruptedError("x"), A.INTERRUPTED), "unknown"),
        (failed(errors.UpstreamCoolingDownError("x"), A.COOLING_DOWN), None),
        (failed(errors.UpstreamUnavailableError("x"), A.UNAVAILABLE, ClientConnectorError()), None),
        (errors.UpstreamTimeoutError("the deadline passed before anybody was asked"), None),
    ],
)
def test_a_call_costs_nothing_only_if_that_is_certain(error: DispatchError, state: str | None) -> None:
    assert state_of(error) == state


def test_no_more_calls_a_minute_than_the_rate_allows(tmp_path: Path) -> None:
    with simulated() as upstream:
        log, policy = write_log(tmp_path / "log.jsonl", 8), write_policy(tmp_path / "p.yaml", upstream.url)
        limits = AskingLimits(per_minute={"tiny": 600.0})
        begin = time.monotonic()
        collect([log], policy, tmp_path / "o.jsonl", CollectOptions(selection=Selection(n=8), limits=limits))
        assert time.monotonic() - begin >= 7 * 60 / 600


def test_an_upstream_that_takes_no_connection_stops_the_run_and_nothing_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.collecting.calls.asking._BACKOFF_S", 0.001)
    with simulated() as upstream:
        policy = write_policy(tmp_path / "p.yaml", upstream.url)
        log = write_log(tmp_path / "log.jsonl", 40)
        policy.write_text(
            policy.read_text().replace(
                f'"openai/small", "api_base": "{upstream.url}"', '"openai/small", "api_base": "http://127.0.0.1:9/v1"'
            )
        )
        summary = collect([log], policy, tmp_path / "o.jsonl", CollectOptions(selection=Selection(n=40)))
        assert summary is not None
        assert "candidate 'small' failed 10 prompts in a row" in str(summary.stopped)
        assert summary.spent_usd == pytest.approx(upstream.usd)
        assert summary.calls == sum(upstream.paid.values())


async def test_calls_that_are_in_flight_when_the_run_stops_say_why_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.collecting.calls.asking._BACKOFF_S", 0.001)
    policy = write_policy(tmp_path / "p.yaml", f"http://127.0.0.1:{closed_port()}/v1")
    panel, chats = (
        Panel(read_policy_file(policy).candidates),
        [({"role": "user", "content": str(n)},) for n in range(14)],
    )
    with open_store(tmp_path / "store.sqlite") as store:
        asker = Asker(panel, store, "test", AskingLimits(concurrency=len(chats)))
        async with asker.running(None):
            calls = [AskedCall("tiny", chat, {"max_tokens": 1}) for chat in chats]
            reservation = await Budget(None, None).admit(NOTHING)
            assert reservation is not None
            failures = await asyncio.gather(*(asker.ask(call, reservation) for call in calls), return_exceptions=True)
    assert sum(isinstance(one, CallFailedError) for one in failures) == 9
    stops = [str(one) for one in failures if isinstance(one, StopCollectingError)]
    assert len(stops) == 5
    assert len(set(stops)) == 1
    assert "failed 10 prompts in a row" in stops[0]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_each_call_has_a_key_of_its_own_with_and_without_litellm(tmp_path: Path, provider: str) -> None:
    with simulated() as upstream:
        log, policy = write_log(tmp_path / "log.jsonl", 5), write_policy(tmp_path / "p.yaml", upstream.url)
        policy.write_text(policy.read_text().replace("openai/", f"{provider}/"))
        collect([log], policy, tmp_path / "o.jsonl", CollectOptions(selection=Selection(n=5)))
        assert len(upstream.paid) == 20
        assert not any(key.startswith("no key") for key in upstream.paid)
        assert {body["max_tokens"] for body in upstream.seen_bodies} == {1024}


def test_the_answers_of_two_efforts_of_one_model_are_kept_apart() -> None:
    call = AskedCall("tiny", ({"role": "user", "content": "x"},), {"max_tokens": 5})
    plain, low, high = (
        Candidate.model_validate({"name": "tiny", "model": "openai/x", "params": params})
        for params in ({}, {"reasoning_effort": "low"}, {"reasoning_effort": "high"})
    )
    assert len({call.key(one) for one in (plain, low, high)}) == 3
    # What was paid for before candidates had parameters is still found.
    assert call.key(plain) == digest("call", "openai/x", None, [dict(one) for one in call.messages], {"max_tokens": 5})
