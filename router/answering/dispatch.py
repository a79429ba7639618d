"""Get the answer of a decided request by asking candidates in order, each with its retries and its time limit.

`router.answering.fallback` says who may answer in place of the chosen candidate, `router.answering.breaker` who may be
asked now, and `router.answering.upstreams` asks one candidate once.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from router import errors
from router.answering.attempt_log import AttemptLog, retry_wait_s
from router.answering.bound_candidate import (
    BoundCandidate,
    Breakers,
    bind_candidates,
    cooling_down_error,
    report_failure,
)
from router.answering.breaker import Clock, Permit
from router.answering.candidate_check import problems_of
from router.answering.candidate_request import dropped_for
from router.answering.completion import Completion, completion_of
from router.answering.fallback import candidates_to_ask, may_read_more
from router.answering.formats.lookup import format_of
from router.answering.reading.call_notes import CallNotes
from router.answering.time_limits import silence_limit, time_limit
from router.answering.upstream import Upstream
from router.answering.watch import watched
from router.attempts import Delivery
from router.decision import RoutingDecision
from router.errors import DispatchError, InvalidRequestError, UpstreamTimeoutError
from router.observing.observer import NO_OBSERVERS, Observers
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.loading import ServedPolicy
from router.policies.rules import speaks_openai
from router.values import ApiFormat, RouteQuery

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Fields of a request that the router sets itself.
OWN_FIELDS = frozenset({"model", "messages", "stream"})

#: Most chunks without content that are kept while the first content is awaited. Then the answer counts as begun.
_MAX_HEAD = 100

#: Asks a candidate once, and notes what is learnt of the call.
_Ask = Callable[[BoundCandidate, Permit, CallNotes], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class _OpenStream:
    """Holds a stream whose first content has arrived; `head` contains the chunks up to it."""

    target: BoundCandidate
    permit: Permit
    notes: CallNotes
    started: float
    head: list[dict[str, Any]]
    chunks: AsyncGenerator[dict[str, Any], None]


class Dispatcher:
    """Gets the answers of decided requests within the caller's deadline.

    It asks only the chosen candidate and those that `fallback` allows in its place. It belongs to one event loop; close
    it with `aclose`. Its policies never change; `with_policies` makes a successor for others.

    Args:
        policies: the served policies by name.
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
        clock: the clock of the circuit breakers, in seconds; it must be monotonic.
        observers: are told how every answer ends.
        formats: the API formats, besides chat completions, in which requests come; see `Upstream`.
    """

    def __init__(
        self,
        policies: Mapping[str, ServedPolicy],
        *,
        canned_url: str | None = None,
        clock: Clock = time.monotonic,
        observers: Observers = NO_OBSERVERS,
        formats: Collection[ApiFormat] = (),
    ) -> None:
        self._observers, self._clock = observers, clock
        self._breakers: Breakers = {}
        self._take(policies)
        self._upstream = Upstream(canned_url=canned_url, translates=self._translates, formats=formats)

    def with_policies(self, policies: Mapping[str, ServedPolicy], *, canned_url: str | None = None) -> Self:
        """Return a dispatcher for other policies, which shares the connections and the observers of this one.

        An upstream that both know keeps its circuit breaker. Both can answer at the same time, and closing either
        closes the connections of both. The arguments are those of the class.
        """
        successor = copy.copy(self)
        successor._take(policies)
        self._upstream.expect(canned_url=canned_url, translates=successor._translates)
        return successor

    def _take(self, policies: Mapping[str, ServedPolicy]) -> None:
        self._files = {name: policy.rules.file for name, policy in policies.items()}
        self._targets, self._breakers = bind_candidates(policies, self._clock, self._breakers)

    @property
    def _translates(self) -> bool:
        return any(not speaks_openai(one.candidate) for one in self._targets.values())

    @property
    def is_loaded(self) -> bool:
        """Return whether the libraries that answering needs are imported."""
        return self._upstream.is_loaded

    async def load(self) -> None:
        """Import the libraries that answering needs, and log which candidates cannot be asked, and why.

        The event loop goes on meanwhile, because LiteLLM has a thread of its own. Raises DispatchNotInstalledError.
        """
        await self._upstream.load()
        candidates = tuple(dict.fromkeys(one.candidate for one in self._targets.values()))
        for problem in await problems_of(candidates, self._upstream.litellm):
            log.error("%s", problem)

    async def complete(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> Completion:
        """Return the answer of the chosen candidate, or of another candidate that may answer in its place.

        Args:
            query: the request.
            decision: its decision.
            timeout_s: seconds until the caller's deadline; None if there is none.

        Raises DispatchError with every attempt if nobody answers; its class says whether to retry. Raises
        InvalidRequestError if the parameters hold a field that the router sets itself.
        """

        async def ask(target: BoundCandidate, permit: Permit, notes: CallNotes) -> Completion:
            candidate, started = target.candidate, time.monotonic()
            try:
                notes.dropped = dropped_for(decision, candidate.name)
                body = await self._upstream.complete(candidate, query, notes)
            except BaseException:
                # The traceback of the error refers to it for longer.
                notes.held.release()
                raise
            permit.succeeded()
            delivery = attempts.add_answer(candidate, started, decision, notes, streamed=False)
            completion = completion_of(query, body, target.prices, delivery, is_counted=notes.has_usage)
            return replace(completion, held=notes.held)

        with watched(self._observers, decision) as watch:
            attempts = await self._begin(query, timeout_s)
            completion = await self._first_answer(attempts, decision, ask, streamed=False)
            watch.note(completion)
            return completion

    async def stream(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> AsyncGenerator[Completion, None]:
        """Yield the answer piece by piece. See `complete` for arguments and errors; close it to stop the upstream.

        Another candidate may answer in place of the chosen one until the first content has arrived. A failure after
        that raises UpstreamInterruptedError, or UpstreamTimeoutError at the caller's deadline.
        """
        with watched(self._observers, decision) as watch:
            attempts = await self._begin(query, timeout_s)

            async def ask(target: BoundCandidate, permit: Permit, notes: CallNotes) -> _OpenStream:
                notes.dropped = dropped_for(decision, target.candidate.name)
                return await self._open(query, target, permit, notes)

            opened = await self._first_answer(attempts, decision, ask, streamed=True)
            candidate = opened.target.candidate
            delivery: Delivery | None = attempts.add_answer(
                candidate, opened.started, decision, opened.notes, streamed=True
            )
            tally = format_of(query.api_format).tally()
            try:
                async with contextlib.aclosing(self._bodies(attempts, opened)) as bodies:
                    async for body in bodies:
                        counted = opened.notes.has_usage
                        step = completion_of(query, body, opened.target.prices, delivery, tally, is_counted=counted)
                        watch.note(step, streamed=True)
                        yield step
                        delivery = None
                opened.permit.succeeded()
            except DispatchError as error:
                report_failure(opened.permit, candidate, error, cut_short=attempts.remaining_s <= 0)
                raise attempts.interrupt(candidate, error, opened.started) from error
            finally:
                opened.permit.close()
                await opened.chunks.aclose()

    @property
    def upstream(self) -> Upstream:
        """Return what asks a candidate once, for requests that are not decided (`router.answering.undecided`)."""
        return self._upstream

    @property
    def observers(self) -> Observers:
        """Return who is told how every answer ends."""
        return self._observers

    def candidate(self, policy: str, name: str) -> Candidate:
        """Return a candidate by the names of its policy and of itself."""
        return self._targets[policy, name].candidate

    def prices(self, policy: str, name: str) -> Prices | None:
        """Return the prices of the candidate `name` of a policy, or None if they are not known."""
        return self._targets[policy, name].prices

    async def aclose(self) -> None:
        """Close the connections to the upstreams. No request may be in flight any more."""
        await self._upstream.aclose()

    async def _begin(self, query: RouteQuery, timeout_s: float | None) -> AttemptLog:
        if own := sorted(OWN_FIELDS & query.parameters.keys()):
            raise InvalidRequestError(
                f"parameters must not hold {', '.join(own)}: the router sets them; choose StreamComplete to stream.",
                field="parameters",
            )
        attempts = AttemptLog(time.monotonic() + (math.inf if timeout_s is None else timeout_s))
        # Whether it timed out is decided by the clock below, which also counts the time that importing took.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._upstream.load()
        if attempts.remaining_s <= 0:
            raise UpstreamTimeoutError("the caller's deadline passed before any candidate was asked.")
        return attempts

    async def _first_answer(
        self, attempts: AttemptLog, decision: RoutingDecision, ask: _Ask[T], *, streamed: bool
    ) -> T:
        """Ask the candidates one after the other, and return the answer of the first one that gives any.

        Each is asked within its own limit and its turn.

        Raises what `AttemptLog.raise_failure` raises if no candidate answers.
        """
        policy = decision.policy.name
        targets = [self._targets[policy, one.name] for one in candidates_to_ask(self._files[policy], decision)]
        while targets:
            target = targets.pop(0)
            # Candidates that are cooling down need no time, so the last one that may be asked gets all of it.
            others = [one.candidate for one in targets if not one.breaker.retry_after_s]
            attempts.begin_turn(sum(_limit_s(one, streamed=streamed) for one in others))
            answer = await self._ask_one(attempts, target, ask, streamed=streamed)
            if answer is not None:
                return answer
            error = attempts.failures[-1]
            if isinstance(error, errors.UpstreamContextWindowError):
                targets = [one for one in targets if may_read_more(one.candidate, target.candidate)]
            elif isinstance(error, errors.UpstreamRejectedError):
                break
            if attempts.remaining_s <= 0:
                break
        return attempts.raise_failure()

    async def _ask_one(self, attempts: AttemptLog, target: BoundCandidate, ask: _Ask[T], *, streamed: bool) -> T | None:
        """Ask one candidate, with its retries, until its share of the caller's time is used up.

        Return None if it fails; its failure is noted last.
        """
        candidate, own_s = target.candidate, _limit_s(target.candidate, streamed=streamed)
        for retry in itertools.count():
            permit, started, notes = target.breaker.admit(), time.monotonic(), CallNotes()
            if permit is None:
                attempts.add_failure(candidate, cooling_down_error(target), None)
                return None
            try:
                turn_s = attempts.turn_remaining_s
                whole_limit = time_limit(candidate, min(own_s, turn_s))
                async with silence_limit(candidate, own_s, notes, turn_s) if streamed else whole_limit:
                    return await ask(target, permit, notes)
            except DispatchError as error:
                waited_s = time.monotonic() - (notes.alive_at if streamed else started)
                report_failure(permit, candidate, error, cut_short=waited_s < min(own_s, candidate.timeout_s))
                attempts.add_failure(candidate, error, started)
                wait_s = retry_wait_s(error, retry)
                if retry >= candidate.retries or wait_s is None or wait_s >= attempts.turn_remaining_s:
                    return None
                if wait_s < target.breaker.retry_after_s:
                    return None
            except BaseException:
                permit.close()
                raise
            await asyncio.sleep(wait_s)
        return None

    async def _open(self, query: RouteQuery, target: BoundCandidate, permit: Permit, notes: CallNotes) -> _OpenStream:
        """Open a stream and read it up to its first content. Events that only say `ping` are left out until then."""
        candidate, started, head = target.candidate, time.monotonic(), list[dict[str, Any]]()
        chunks, answers = self._upstream.stream(candidate, query, notes), format_of(query.api_format)
        try:
            async for body in chunks:
                if body.get("type") == "ping":
                    continue
                head.append(body)
                if answers.has_content(body) or len(head) == _MAX_HEAD:
                    break
        except BaseException:
            await chunks.aclose()
            raise
        permit.answering()
        return _OpenStream(target, permit, notes, started, head, chunks)

    @staticmethod
    async def _bodies(attempts: AttemptLog, opened: _OpenStream) -> AsyncGenerator[Mapping[str, Any], None]:
        candidate = opened.target.candidate
        for body in opened.head:
            yield body
        while True:
            async with time_limit(candidate, min(candidate.timeout_s, attempts.remaining_s)):
                try:
                    body = await anext(opened.chunks)
                except StopAsyncIteration:
                    return
            yield body


def _limit_s(candidate: Candidate, *, streamed: bool) -> float:
    """Return the seconds that one attempt may take, or stay silent if streamed, by the candidate's own settings."""
    return candidate.first_token_timeout_s if streamed else candidate.timeout_s
