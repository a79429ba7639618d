"""An upstream that does what a script says, and a dispatcher with a frozen clock in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from router import errors
from router.answering import attempt_log, dispatch
from router.answering.completion import Completion
from router.answering.dispatch import Dispatcher
from router.attempts import AttemptOutcome
from router.decision import ArtifactRef, Reason
from router.errors import DispatchError
from router.observing.observer import NO_OBSERVERS, Observers
from router.policies.candidates.candidate import Prices
from router.policies.loading import ServedPolicy
from router.policies.policy_file import PolicyFile
from router.policies.rules import Rules
from router.values import RouteQuery
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

    async def complete(self, candidate: Any, query: RouteQuery, held: object, **_: Any) -> Mapping[str, Any]:
        step = self._next(candidate.name, said())
        if isinstance(step, BaseException):
            raise step
        if step == "hang":
            await asyncio.sleep(30)
        return step  # type: ignore[no-any-return]

    async def stream(self, candidate: Any, query: RouteQuery, notes: object) -> AsyncGenerator[Any, None]:
        try:
            for part in self._next(candidate.name, [delta(content="forty-"), delta("stop", content="two")]):
                if isinstance(part, BaseException):
                    raise part
                if part == "hang":
                    await asyncio.sleep(30)
                yield part
        finally:
            self.closed += 1


class Stack:
    """Candidates a, b, c and d of rising strength, `a` chosen, under one policy."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        script: Script,
        observers: Observers = NO_OBSERVERS,
        **each: Any,
    ) -> None:
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
        self.dispatcher = Dispatcher({"p": served}, clock=lambda: self.now, observers=observers)

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
