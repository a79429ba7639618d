"""A decided request on its way to an answer: who is asked, in which order, how often and how long.

What one attempt is, `router.answering.upstream` knows; who may stand in for whom, `fallback`; who rests, `breaker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from router import errors
from router.answering.breaker import Breaker, Clock, Permit
from router.answering.candidate_check import problems_of
from router.answering.fallback import ladder, reads_more
from router.answering.openai_upstream import speaks_openai
from router.answering.upstream import Upstream
from router.attempts import Attempt, AttemptOutcome, Delivery
from router.errors import DispatchError, InvalidRequestError, UpstreamCoolingDownError, UpstreamTimeoutError
from router.policies.loading import ServedPolicy
from router.policies.policy_file import Candidate, Prices
from router.values import RouteQuery, RoutingDecision

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Fields that the router sets itself.
OWN_FIELDS = frozenset({"model", "messages", "stream"})

#: Longest wait before the same candidate is tried again; asked to wait longer, the next one is asked.
MAX_WAIT_S = 2.0

#: Wait before the first retry where the provider names none: doubles with each, drawn between half and all of it.
BACKOFF_S = 0.25

#: Chunks without content that may come before the first with.
_MAX_HEAD = 100

#: Nearest class first.
_OUTCOMES: tuple[tuple[type[DispatchError], AttemptOutcome], ...] = (
    (errors.UpstreamContextWindowError, AttemptOutcome.CONTEXT_WINDOW),
    (errors.UpstreamRejectedError, AttemptOutcome.REJECTED),
    (errors.UpstreamDeniedError, AttemptOutcome.DENIED),
    (errors.UpstreamNotFoundError, AttemptOutcome.NOT_FOUND),
    (errors.UpstreamRateLimitedError, AttemptOutcome.RATE_LIMITED),
    (errors.UpstreamTimeoutError, AttemptOutcome.TIMED_OUT),
    (errors.UpstreamInterruptedError, AttemptOutcome.INTERRUPTED),
    (DispatchError, AttemptOutcome.UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them, and their cost at the policy's prices (None where unknown).

    Input that came out of the provider's prompt cache costs what cached input costs, if the policy has that price.
    """

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or one step of a streamed one.

    Attributes:
        text: of the first choice; may be empty.
        body: the provider's response or chunk in the OpenAI shape.
        usage: None where the provider did not report it, and in all steps of a stream but the last.
        delivery: who answered, after what; in a stream with the first step only.
    """

    text: str
    body: Mapping[str, Any]
    usage: Usage | None
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    candidate: Candidate
    prices: Prices | None
    breaker: Breaker


#: One attempt.
_Ask = Callable[[_Target, Permit], Awaitable[T]]

#: How long one attempt may take by the candidate's own settings, in seconds.
_Limit = Callable[[Candidate], float]


@dataclass(frozen=True, slots=True)
class _Opened:
    """A stream whose first content is there."""

    target: _Target
    permit: Permit
    started: float
    head: list[dict[str, Any]]
    chunks: AsyncGenerator[dict[str, Any], None]


@dataclass(slots=True)
class _Run:
    """One request on its way: what is left of its time, and what was tried."""

    deadline: float
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[DispatchError] = field(default_factory=list)
    turn_ends: float = math.inf

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def turn_left_s(self) -> float:
        return self.turn_ends - time.monotonic()

    def begin_turn(self, others_s: float) -> None:
        """The next candidate's turn begins; `others_s` as `share_s` has it."""
        self.turn_ends = time.monotonic() + share_s(self.left_s, others_s)

    def failed(
        self, candidate: Candidate, error: DispatchError, started: float | None, *, streamed: bool = False
    ) -> None:
        """Note a failure; `started` is None where the candidate was not asked, because it rests."""
        cooling = started is None
        outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
        outcome = AttemptOutcome.COOLING_DOWN if cooling else outcome
        duration = 0.0 if started is None else time.monotonic() - started
        self.attempts.append(Attempt(candidate.name, outcome, error.http_status, duration, streamed))
        self.failures.append(error)
        log.log(
            logging.DEBUG if cooling else logging.WARNING,
            "candidate %s: %s after %.2f s, HTTP status %s",
            *(candidate.name, outcome.value, duration, error.http_status),
        )

    def answered(self, candidate: Candidate, started: float, chosen: str, *, streamed: bool) -> Delivery:
        duration = time.monotonic() - started
        self.attempts.append(Attempt(candidate.name, AttemptOutcome.ANSWERED, None, duration, streamed))
        fell_back = candidate.name != chosen
        return Delivery(candidate.name, candidate.model, fell_back, tuple(self.attempts))

    def interrupted(self, candidate: Candidate, error: DispatchError, started: float) -> DispatchError:
        """The error for a caller who has part of the answer already."""
        self.attempts.pop()
        # At the caller's deadline it is the deadline that is to blame.
        if self.left_s > 0 or not isinstance(error, UpstreamTimeoutError):
            message = f"candidate {candidate.name!r} broke off after part of its answer had been sent."
            error = errors.UpstreamInterruptedError(message, http_status=error.http_status)
        self.failed(candidate, error, started, streamed=True)
        error.attempts = tuple(self.attempts)
        return error

    def give_up(self) -> NoReturn:
        """Raise the last failure that may pass, or else the last one, with every attempt."""
        may_pass = [error for error in self.failures if error.retryable]
        error = (may_pass or self.failures)[-1]
        waits = [failure.retry_after_s for failure in may_pass if failure.retry_after_s is not None]
        error.retry_after_s = min(waits, default=None)
        error.attempts = tuple(self.attempts)
        raise error


class Dispatcher:
    """Gets answers to decided requests, within the caller's deadline and never from below the decided floor.

    Belongs to one event loop; close it with `aclose`.

    Args:
        policies: the served policies by name.
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
        clock: of the breakers; seconds, monotonic.
    """

    def __init__(
        self, policies: Mapping[str, ServedPolicy], *, canned_url: str | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._files = {name: policy.rules.file for name, policy in policies.items()}
        self._targets: dict[tuple[str, str], _Target] = {}
        breakers: dict[tuple[object, ...], Breaker] = {}
        for name, policy in policies.items():
            for candidate, prices in zip(policy.rules.file.candidates, policy.rules.prices, strict=True):
                limits = {"break_after": candidate.break_after, "cooldown_s": candidate.cooldown_s}
                # What is one upstream in two policies, or under two profiles, is well or ill in both.
                same = (candidate.model, candidate.api_base, candidate.api_key_env, *limits.values())
                breaker = breakers.setdefault(same, Breaker(**limits, clock=clock))  # type: ignore[arg-type]
                self._targets[name, candidate.name] = _Target(candidate, prices, breaker)
        translates = any(not speaks_openai(one.candidate) for one in self._targets.values())
        self._upstream = Upstream(canned_url=canned_url, translates=translates)

    async def load(self) -> None:
        """Do now what the first request would wait for, and say in the log which candidates cannot be asked, and why.

        It holds up nothing in the event loop: LiteLLM lives in a thread of its own. Raises DispatchNotInstalledError.
        """
        await self._upstream.load()
        candidates = tuple(dict.fromkeys(one.candidate for one in self._targets.values()))
        for problem in await asyncio.to_thread(problems_of, candidates):
            log.error("%s", problem)

    async def complete(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> Completion:
        """The answer, of the chosen candidate or of one that may stand in for it.

        Args:
            query: what is asked.
            decision: who is to answer.
            timeout_s: what is left of the caller's deadline; None for none.

        Raises DispatchError, with every attempt, of the kind that says whether to retry; InvalidRequestError for
        parameters that are the router's own.
        """
        run = await self._begin(query, timeout_s)

        async def ask(target: _Target, permit: Permit) -> Completion:
            candidate, started = target.candidate, time.monotonic()
            body = await self._upstream.complete(candidate, query)
            permit.succeeded()
            delivery = run.answered(candidate, started, decision.chosen, streamed=False)
            return Completion(_text(body, "message"), body, _usage(body, target.prices), delivery)

        return await self._first_answer(run, decision, ask, lambda candidate: candidate.timeout_s)

    async def stream(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> AsyncGenerator[Completion, None]:
        """The answer piece by piece. Arguments and errors as `complete`; close it to stop the upstream.

        Others may stand in until the first content is there. What fails later raises UpstreamInterruptedError, or
        UpstreamTimeoutError at the caller's deadline.
        """
        run = await self._begin(query, timeout_s)

        async def ask(target: _Target, permit: Permit) -> _Opened:
            return await self._open(query, target, permit)

        opened = await self._first_answer(run, decision, ask, lambda candidate: candidate.first_token_timeout_s)
        candidate = opened.target.candidate
        delivery: Delivery | None = run.answered(candidate, opened.started, decision.chosen, streamed=True)
        try:
            async with contextlib.aclosing(self._bodies(run, opened)) as bodies:
                async for body in bodies:
                    yield Completion(_text(body, "delta"), body, _usage(body, opened.target.prices), delivery)
                    delivery = None
            opened.permit.succeeded()
        except DispatchError as error:
            _settle(opened.permit, candidate, error, cut_short=run.left_s <= 0)
            raise run.interrupted(candidate, error, opened.started) from error
        finally:
            opened.permit.close()
            await opened.chunks.aclose()

    async def aclose(self) -> None:
        """Close the connections. Nothing may be in work any more."""
        await self._upstream.aclose()

    async def _begin(self, query: RouteQuery, timeout_s: float | None) -> _Run:
        if own := sorted(OWN_FIELDS & query.parameters.keys()):
            raise InvalidRequestError(
                f"parameters must not hold {', '.join(own)}: the router sets them; choose StreamComplete to stream.",
                field="parameters",
            )
        run = _Run(time.monotonic() + (math.inf if timeout_s is None else timeout_s))
        with contextlib.suppress(TimeoutError):  # the clock is read below
            async with asyncio.timeout(timeout_s):
                await self._upstream.load()
        if run.left_s <= 0:
            raise UpstreamTimeoutError("the caller's deadline passed before anybody was asked.")
        return run

    async def _first_answer(self, run: _Run, decision: RoutingDecision, ask: _Ask[T], limit_s: _Limit) -> T:
        """What the first candidate says that answers, asked no longer than `limit_s` of it and its turn.

        Raises what `_Run.give_up` raises where none does.
        """
        policy = decision.policy.name
        targets = [self._targets[policy, one.name] for one in ladder(self._files[policy], decision)]
        while targets:
            target = targets.pop(0)
            # Who rests needs no time; so the last one who may be asked gets all of it.
            run.begin_turn(sum(limit_s(one.candidate) for one in targets if not one.breaker.retry_after_s))
            answer = await self._ask_one(run, target, ask, limit_s)
            if answer is not None:
                return answer
            error = run.failures[-1]
            if isinstance(error, errors.UpstreamContextWindowError):
                targets = [one for one in targets if reads_more(one.candidate, target.candidate)]
            elif isinstance(error, errors.UpstreamRejectedError):
                break
            if run.left_s <= 0:
                break
        return run.give_up()

    async def _ask_one(self, run: _Run, target: _Target, ask: _Ask[T], limit_s: _Limit) -> T | None:
        """One candidate, with its retries, in its turn; None where it fails, the failure being the run's last."""
        candidate = target.candidate
        for retry in itertools.count():
            permit, started = target.breaker.admit(), time.monotonic()
            if permit is None:
                run.failed(candidate, _resting(target), None)
                return None
            try:
                async with _time_limit(candidate, min(limit_s(candidate), run.turn_left_s)):
                    return await ask(target, permit)
            except DispatchError as error:
                own_s = min(limit_s(candidate), candidate.timeout_s)
                _settle(permit, candidate, error, cut_short=time.monotonic() - started < own_s)
                run.failed(candidate, error, started)
                wait_s = _wait_s(error, retry)
                if retry >= candidate.retries or wait_s is None or wait_s >= run.turn_left_s:
                    return None
                if wait_s < target.breaker.retry_after_s:
                    return None
            except BaseException:
                permit.close()
                raise
            await asyncio.sleep(wait_s)
        return None

    async def _open(self, query: RouteQuery, target: _Target, permit: Permit) -> _Opened:
        """A stream up to its first content."""
        candidate, started, head = target.candidate, time.monotonic(), []
        chunks = self._upstream.stream(candidate, query)
        try:
            async for body in chunks:
                head.append(body)
                if _has_content(body) or len(head) == _MAX_HEAD:
                    break
        except BaseException:
            await chunks.aclose()
            raise
        permit.answering()
        return _Opened(target, permit, started, head, chunks)

    @staticmethod
    async def _bodies(run: _Run, opened: _Opened) -> AsyncGenerator[Mapping[str, Any], None]:
        candidate = opened.target.candidate
        for body in opened.head:
            yield body
        while True:
            async with _time_limit(candidate, min(candidate.timeout_s, run.left_s)):
                try:
                    body = await anext(opened.chunks)
                except StopAsyncIteration:
                    return
            yield body


def share_s(left_s: float, others_s: float) -> float:
    """How much of what is left of the caller's deadline a candidate may use: all but what others may need after it.

    They are kept as long as they may take by their own settings, `others_s`, but at most half of what is left.
    """
    return left_s - min(left_s / 2, others_s)


@contextlib.asynccontextmanager
async def _time_limit(candidate: Candidate, seconds: float) -> AsyncIterator[None]:
    """Raise UpstreamTimeoutError where what is awaited inside takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpstreamTimeoutError(
            f"candidate {candidate.name!r} was silent for {max(seconds, 0):.3g} s, which is as long as it may be."
        ) from error


def _settle(permit: Permit, candidate: Candidate, error: DispatchError, *, cut_short: bool) -> None:
    """What a failure says about the candidate's health.

    cut_short: whether it had less time than its own limits give it.
    """
    if not error.counts:
        if error.http_status is not None:
            # Whatever it thinks of the request, it answers.
            permit.answering()
        permit.close()
    elif isinstance(error, errors.UpstreamDeniedError | errors.UpstreamNotFoundError):
        log.error("candidate %s: %s It rests for %g s.", candidate.name, error, candidate.cooldown_s)
        permit.rest(because=error)
    elif error.retry_after_s is not None:
        permit.rest(error.retry_after_s)
    elif isinstance(error, UpstreamTimeoutError) and cut_short:
        # The caller's deadline was the shorter one: that is no proof of anything.
        permit.close()
    else:
        permit.failed()


def _resting(target: _Target) -> DispatchError:
    """Why a candidate is not asked. What put it to rest for good reasons is no more worth a retry than it was."""
    because, name = target.breaker.because, target.candidate.name
    if isinstance(because, DispatchError):
        return type(because)(f"candidate {name!r} rests: {because.message}", http_status=because.http_status)
    message = f"candidate {name!r} is cooling down after failures."
    return UpstreamCoolingDownError(message, retry_after_s=target.breaker.retry_after_s or None)


def _wait_s(error: DispatchError, retry: int) -> float | None:
    """How long to wait before the same candidate is asked again; None where that is not worth it."""
    if not error.retryable or isinstance(error, UpstreamTimeoutError):
        return None
    backoff_s = BACKOFF_S * 2**retry * random.uniform(0.5, 1)  # noqa: S311  (spreads retries, hides nothing)
    wait_s = backoff_s if error.retry_after_s is None else error.retry_after_s
    return wait_s if wait_s <= MAX_WAIT_S else None


def _choices(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return body.get("choices") or []


def _text(body: Mapping[str, Any], part: str) -> str:
    first = next((choice for choice in _choices(body) if choice.get("index", 0) == 0), {})
    text = (first.get(part) or {}).get("content")
    return text if isinstance(text, str) else ""


def _has_content(body: Mapping[str, Any]) -> bool:
    """Whether a chunk says more than who speaks."""
    return any(
        choice.get("finish_reason") or any(value for key, value in (choice.get("delta") or {}).items() if key != "role")
        for choice in _choices(body)
    )


def _usage(body: Mapping[str, Any], prices: Prices | None) -> Usage | None:
    usage = body.get("usage")
    if not isinstance(usage, Mapping) or not usage:
        return None
    details = usage.get("prompt_tokens_details")
    counts = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens"),
        details.get("cached_tokens") if isinstance(details, Mapping) else 0,
    )
    used, made, cached = map(_count, counts)
    cost_usd = prices.cost_usd(used, made, cached_input_tokens=min(cached, used)) if prices else None
    return Usage(used, made, cost_usd)


def _count(value: Any) -> int:
    """A number of tokens; 0 for what is none, and for one that no double tells from the next."""
    is_count = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2**53
    return int(value) if is_count else 0
