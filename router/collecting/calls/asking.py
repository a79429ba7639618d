"""Ask candidates and judges through our dispatcher, within limits, and keep every answer that is paid for (`Asker`)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from router import errors
from router.answering.completion import Completion
from router.answering.dispatch import Dispatcher
from router.attempts import AttemptOutcome
from router.collecting.calls.budget import NOTHING, Cost, Reservation, StopCollectingError, most_input_tokens
from router.collecting.calls.panel import Panel
from router.collecting.calls.store import CallState, CallStore, OpenCall, digest
from router.collecting.values import ModelAnswer
from router.decision import Reason, RoutingDecision, Timings
from router.errors import DispatchError, RouterError
from router.plain_json import whole_text
from router.policies.candidates.candidate import Candidate
from router.policies.candidates.params import NO_PARAMS
from router.values import Message, RouteQuery

#: How often a call is tried that times out, breaks off, or fails with a status of the 500s.
TRIES = 5

#: The collection stops if this many calls to one model in a row fail after all their tries.
MOST_FAILED_IN_A_ROW = 10

#: Seconds before the first retry if the provider names none; they double with each one, up to the longest wait.
_BACKOFF_S, _LONGEST_BACKOFF_S = 0.5, 30.0

#: The collection stops if an upstream lets nothing through for this many seconds, or asks to be left alone for longer.
PATIENCE_S = 300.0

#: The upstream answered with a status that says that nothing was done.
_REFUSALS = frozenset(
    {AttemptOutcome.REJECTED, AttemptOutcome.CONTEXT_WINDOW, AttemptOutcome.DENIED, AttemptOutcome.NOT_FOUND,
     AttemptOutcome.RATE_LIMITED}
)  # fmt: skip

#: Exceptions of HTTP clients, by name, that are raised before anything was sent.
_NEVER_CONNECTED = frozenset({"ClientConnectorError", "ConnectError", "ConnectTimeout", "ConnectionTimeoutError"})


#: The largest loss of a token that is believed. Providers write -9999 for a token of no probability.
_MOST_LOSS = 1e6

#: Characters of a reason why an answer ended that are kept.
_MOST_REASON = 100

#: Failures that are no fault of the call: it waits, however often they come, until the upstream lets it through.
_PASSING = (errors.UpstreamRateLimitedError, errors.UpstreamCoolingDownError)


class CallFailedError(RouterError):
    """A model did not answer this prompt, although it was tried as often as it is worth; other prompts go on."""


@dataclass(frozen=True, slots=True)
class AskingLimits:
    """How fast each upstream is asked.

    Attributes:
        concurrency: the calls to one model that are in flight at once, 1 or more.
        per_minute: the most calls a minute by model. The empty name stands for all that are missing; without it they
            have no limit.
    """

    concurrency: int = 8
    per_minute: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskedCall:
    """One call: who is asked what, with which parameters."""

    model: str
    messages: tuple[Message, ...]
    parameters: Mapping[str, Any]

    @property
    def max_tokens(self) -> int:
        """The longest answer that is asked for, in tokens."""
        return int(self.parameters["max_tokens"])

    def key(self, candidate: Candidate) -> str:
        """Return the digest under which the answer is kept. The name that a policy gives the model is no part of it."""
        own = [candidate.params.model_dump(mode="json", exclude_defaults=True)] if candidate.params != NO_PARAMS else []
        return digest("call", candidate.model, candidate.api_base, list(self.messages), dict(self.parameters), *own)


#: Errors after which every other prompt would fail too.
_CANNOT_BE_ASKED = (errors.UpstreamDeniedError, errors.UpstreamNotFoundError, errors.UpstreamMisconfiguredError)


class _Lane:
    """Bounds the calls to one model: how many at once, how many a minute, and none while the upstream wants to rest."""

    def __init__(self, concurrency: int, per_minute: float | None) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._spacing_s = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self.last_passed = time.monotonic()
        self.failed_in_a_row = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._slots:
            await self._pause()
            yield

    async def _pause(self) -> None:
        wait_s = self._next - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            # Meanwhile another call may have taken this turn, or been told to rest.
            await self._pause()
        else:
            self._next = time.monotonic() + self._spacing_s

    def rest(self, seconds: float) -> None:
        self._next = max(self._next, time.monotonic() + seconds)


class Asker:
    """Asks the members of a panel; every answer comes from the store if the same call was answered before.

    Args:
        panel: who may be asked.
        store: where answers are kept.
        purpose: for what the money is spent, as the store records it.
        limits: how fast each model is asked.
    """

    def __init__(self, panel: Panel, store: CallStore, purpose: str, limits: AskingLimits) -> None:
        self._panel, self._store, self._purpose = panel, store, purpose
        self._lanes = {
            one.name: _Lane(limits.concurrency, limits.per_minute.get(one.name, limits.per_minute.get("")))
            for one in panel.policy.rules.file.candidates
        }
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._dispatcher: Dispatcher | None = None
        self._stopped: str | None = None

    @contextlib.asynccontextmanager
    async def running(self, canned_url: str | None) -> AsyncIterator[None]:
        """Keep the connections to the upstreams for as long as the context lasts.

        canned_url: the base URL of the built-in upstream; None if no member uses it.
        """
        policy = self._panel.policy
        self._dispatcher = Dispatcher({policy.ref.name: policy}, canned_url=canned_url)
        try:
            yield
        finally:
            await self._dispatcher.aclose()

    def stored(self, call: AskedCall) -> ModelAnswer | None:
        """Return the answer of a call if the store has it."""
        return self._store.answer(call.key(self._panel.member(call.model)), call.model)

    def worst(self, call: AskedCall) -> Cost:
        """Return the most that one attempt of a call can cost."""
        member = self._panel.member(call.model)
        tokens = most_input_tokens(call.messages, call.parameters)
        return Cost.of_call(self._panel.prices(member), tokens, call.max_tokens)

    async def ask(self, call: AskedCall, reservation: Reservation) -> ModelAnswer:
        """Return the answer of a call, which is sent only if the store does not have it and the reservation allows it.

        Raises CallFailedError if this call is not answered, and StopCollectingError if no further call makes sense.
        """
        member = self._panel.member(call.model)
        key = call.key(member)
        # Two prompts of the log may be equal.
        async with self._locks[key]:
            found = self._store.answer(key, call.model)
            if found is None:
                found = await self._answer(call, member, key, reservation)
        return found

    def stop(self, why: str) -> None:
        """Send no further call; those that are in flight are still answered."""
        self._stopped = self._stopped or why

    async def _answer(self, call: AskedCall, member: Candidate, key: str, reservation: Reservation) -> ModelAnswer:
        lane, worst = self._lanes[member.name], self.worst(call)
        tries = 0
        while True:
            async with lane.turn():
                if self._stopped is not None:
                    raise StopCollectingError(self._stopped)
                reservation.take(worst)
                sent = self._store.begin(key, self._purpose, worst.usd)
                charged = worst
                try:
                    completion = await self._send(call, member, sent)
                    answer, charged = self._answer_of(call, completion, worst)
                    self._store.answered(sent, key, answer, charged.usd)
                except DispatchError as error:
                    failure = error
                    state = state_of(error)
                    charged = worst if state == "unknown" else NOTHING
                    if state is None:
                        self._store.forget(sent)
                    else:
                        self._store.ended(sent, state, charged.usd)
                else:
                    lane.failed_in_a_row, lane.last_passed = 0, time.monotonic()
                    return answer
                finally:
                    reservation.settle(worst, charged)
            tries += not isinstance(failure, _PASSING)
            try:
                await self._before_next_try(member, lane, failure, tries)
            except StopCollectingError as error:
                self.stop(str(error))
                # Another call may have stopped the run while this one was in flight. All say why it was stopped.
                raise StopCollectingError(self._stopped) from error

    async def _send(self, call: AskedCall, member: Candidate, sent: OpenCall) -> Completion:
        assert self._dispatcher is not None  # noqa: S101  (`running` made it)
        query = RouteQuery(call.messages, parameters=call.parameters, idempotency_key=sent.idempotency_key)
        return await self._dispatcher.complete(query, self._decided(member))

    async def _before_next_try(self, member: Candidate, lane: _Lane, failure: DispatchError, tries: int) -> None:
        """Wait until a call may be tried again. Raises CallFailedError or StopCollectingError if it may not."""
        say = f"candidate {member.name!r}"
        if isinstance(failure, _CANNOT_BE_ASKED):
            raise StopCollectingError(f"{say} cannot be asked: {failure}")
        if isinstance(failure, errors.UpstreamRejectedError):
            raise CallFailedError(f"{say} refuses this prompt (HTTP status {failure.http_status}).")
        if tries >= TRIES:
            lane.failed_in_a_row += 1
            if lane.failed_in_a_row >= MOST_FAILED_IN_A_ROW:
                raise StopCollectingError(
                    f"{say} failed {lane.failed_in_a_row} prompts in a row, the last time so: {failure.message} "
                    "Run the same command again when it works; nothing that was answered is asked again."
                )
            raise CallFailedError(f"{say} failed {TRIES} times.")
        backoff_s = min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2 ** max(0, tries - 1))
        wait_s = backoff_s * random.uniform(0.5, 1) if failure.retry_after_s is None else failure.retry_after_s  # noqa: S311
        is_passing = isinstance(failure, _PASSING)
        if wait_s > PATIENCE_S or (is_passing and time.monotonic() + wait_s - lane.last_passed > PATIENCE_S):
            raise StopCollectingError(
                f"{say} lets nothing through for now, because of its rate limit or its load (Retry-After: {wait_s:.0f} "
                "s). Run the same command again later, or give a lower --rate."
            )
        if failure.retry_after_s is not None:
            lane.rest(wait_s)
        await asyncio.sleep(wait_s)

    def _answer_of(self, call: AskedCall, completion: Completion, worst: Cost) -> tuple[ModelAnswer, Cost]:
        usage = completion.usage
        first = (completion.body.get("choices") or [{}])[0]
        reason = first.get("finish_reason")
        answer = ModelAnswer(
            model=call.model,
            text=whole_text(completion.text),
            finish_reason=whole_text(reason[:_MOST_REASON]) if isinstance(reason, str) else None,
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cost_usd=usage.cost_usd if usage else None,
            mean_token_loss=_mean_token_loss(first.get("logprobs")),
        )
        # Without a count of tokens nobody knows what it cost, so it counts as the most that it can.
        return answer, worst if answer.cost_usd is None else Cost(answer.cost_usd, 1)

    def _decided(self, member: Candidate) -> RoutingDecision:
        return RoutingDecision(
            decision_id="",
            requested=member.name,
            chosen=member.name,
            chosen_model=member.model,
            reason=Reason.PINNED,
            difficulty=None,
            candidates=(),
            threshold=None,
            gain=None,
            policy=self._panel.policy.ref,
            probe=None,
            abstained=False,
            leverage=None,
            timings=Timings(),
            session_id="",
            input_tokens_estimate=0,
        )


def state_of(error: DispatchError) -> CallState | None:
    """Return how a call ended that raised an error, or None if it was never sent."""
    outcome = error.attempts[-1].outcome if error.attempts else None
    if outcome is None or outcome is AttemptOutcome.COOLING_DOWN or not _was_sent(error):
        return None
    if outcome in _REFUSALS:
        return "refused"
    if outcome is AttemptOutcome.UNAVAILABLE and error.http_status is not None and error.http_status >= 500:
        return "failed"
    return "unknown"


def _was_sent(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ in _NEVER_CONNECTED:
            return False
        error = error.__cause__ or error.__context__
    return True


def _mean_token_loss(logprobs: Any) -> float | None:
    """Return the mean of minus the log-probabilities of an answer's tokens, or None if the provider sent none."""
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    values = [one.get("logprob") for one in content if isinstance(one, Mapping)] if isinstance(content, list) else []
    known = [-float(value) for value in values if isinstance(value, int | float) and -_MOST_LOSS <= value <= 0]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None
