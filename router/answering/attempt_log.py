"""The attempts of one request: what was tried, what is left of the time, and which error the caller gets."""

from __future__ import annotations

import logging
import math
import random
import time
from dataclasses import dataclass, field
from typing import NoReturn

from router import errors
from router.answering.candidate_request import dropped_for
from router.answering.formats.reported_errors import quoting_words
from router.answering.reading.call_notes import CallNotes
from router.attempts import Attempt, AttemptOutcome, Delivery
from router.decision import RoutingDecision
from router.errors import DispatchError, UpstreamTimeoutError
from router.policies.candidates.candidate import Candidate

log = logging.getLogger(__name__)

#: Longest wait in seconds before the same candidate is asked again. If it wants a longer one, the next one is asked.
MAX_WAIT_S = 2.0

#: Seconds before the first retry if the provider names none. They double with each retry, and between half and all of
#: them are waited, so that callers who failed together do not come back together.
BACKOFF_S = 0.25

#: Most parameters that are named as left out, and most characters of a name: a caller may invent any number of them.
_MOST_DROPPED, _LONGEST_NAME = 50, 100

#: The outcome of each class of error. Subclasses come first, because the first match counts.
_OUTCOMES: tuple[tuple[type[DispatchError], AttemptOutcome], ...] = (
    (errors.UpstreamContextWindowError, AttemptOutcome.CONTEXT_WINDOW),
    (errors.UpstreamRejectedError, AttemptOutcome.REJECTED),
    (errors.UpstreamMisconfiguredError, AttemptOutcome.REJECTED),
    (errors.UpstreamDeniedError, AttemptOutcome.DENIED),
    (errors.UpstreamNotFoundError, AttemptOutcome.NOT_FOUND),
    (errors.UpstreamRateLimitedError, AttemptOutcome.RATE_LIMITED),
    (errors.UpstreamTimeoutError, AttemptOutcome.TIMED_OUT),
    (errors.UpstreamInterruptedError, AttemptOutcome.INTERRUPTED),
    (DispatchError, AttemptOutcome.UNAVAILABLE),
)


@dataclass(slots=True)
class AttemptLog:
    """Keeps what was tried for one request, and how much of the caller's time is left.

    Attributes:
        deadline: the caller's deadline by the monotonic clock; infinity if there is none.
        attempts: everything that was tried, oldest first.
        failures: the errors of the attempts that failed.
        turn_ends: when the turn of the current candidate ends.
        began: when the first candidate was asked or might have been.
    """

    deadline: float
    attempts: list[Attempt] = field(default_factory=list)
    failures: list[DispatchError] = field(default_factory=list)
    turn_ends: float = math.inf
    began: float = field(default_factory=time.monotonic)

    @property
    def remaining_s(self) -> float:
        """Seconds until the caller's deadline."""
        return self.deadline - time.monotonic()

    @property
    def turn_remaining_s(self) -> float:
        """Seconds that the current candidate may still use before the next one is asked."""
        return self.turn_ends - time.monotonic()

    def begin_turn(self, others_s: float) -> None:
        """Set the time until which the next candidate may be asked, retries included.

        `others_s` is explained at `turn_length_s`.
        """
        self.turn_ends = time.monotonic() + turn_length_s(self.remaining_s, others_s)

    def add_failure(
        self, candidate: Candidate, error: DispatchError, started: float | None, *, streamed: bool = False
    ) -> None:
        """Record a failed attempt and its error.

        `started` is None if the candidate was not asked because it is cooling down.
        """
        now = time.monotonic()
        is_cooling = started is None
        outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
        outcome = AttemptOutcome.COOLING_DOWN if is_cooling else outcome
        started = now if started is None else started
        duration, after = now - started, started - self.began
        self.attempts.append(Attempt(candidate.name, outcome, error.http_status, duration, streamed, after))
        self.failures.append(error)
        log.log(
            logging.DEBUG if is_cooling else logging.WARNING,
            "candidate %s: %s after %.2f s, HTTP status %s",
            *(candidate.name, outcome.value, duration, error.http_status),
        )

    def add_answer(
        self, candidate: Candidate, started: float, decision: RoutingDecision, notes: CallNotes, *, streamed: bool
    ) -> Delivery:
        """Record the attempt that answered, and return who answered after which attempts."""
        duration, after = time.monotonic() - started, started - self.began
        self.attempts.append(Attempt(candidate.name, AttemptOutcome.ANSWERED, None, duration, streamed, after))
        fell_back = candidate.name != decision.chosen
        names = (*dropped_for(decision, candidate.name), *notes.left_out, *notes.untranslated)
        dropped = tuple(dict.fromkeys(name[:_LONGEST_NAME] for name in names))[:_MOST_DROPPED]
        attempts = tuple(self.attempts)
        return Delivery(candidate.name, candidate.model, fell_back, attempts, notes.rate_limits, dropped)

    def interrupt(self, candidate: Candidate, error: DispatchError, started: float) -> DispatchError:
        """Record that an answer broke off. Return the error for the caller, who has a part of the answer already."""
        self.attempts.pop()
        # A timeout at the caller's own deadline is not the candidate's fault.
        if self.remaining_s > 0 or not isinstance(error, UpstreamTimeoutError):
            error = _interrupted(candidate, error)
        self.add_failure(candidate, error, started, streamed=True)
        error.attempts = tuple(self.attempts)
        return error

    def raise_failure(self) -> NoReturn:
        """Raise the last failure that is worth a retry, or else the last failure, with every attempt."""
        retryable = [error for error in self.failures if error.retryable]
        error = (retryable or self.failures)[-1]
        waits = [failure.retry_after_s for failure in retryable if failure.retry_after_s is not None]
        error.retry_after_s = min(waits, default=None)
        error.attempts = tuple(self.attempts)
        raise error


def _interrupted(candidate: Candidate, because: DispatchError) -> DispatchError:
    """Return the error for an answer that broke off, with what the provider said of it."""
    message = f"candidate {candidate.name!r} broke off after part of its answer had been sent."
    message += quoting_words(because.provider_words)
    error = errors.UpstreamInterruptedError(
        message, http_status=because.http_status, retry_after_s=because.retry_after_s
    )
    error.provider_code, error.provider_param = because.provider_code, because.provider_param
    return error


def turn_length_s(remaining_s: float, others_s: float) -> float:
    """Return how many of the remaining seconds a candidate may use, so that those after it get a chance.

    The others may need `others_s` seconds by their own settings. These are kept for them, but at most half of what
    remains.
    """
    return remaining_s - min(remaining_s / 2, others_s)


def retry_wait_s(error: DispatchError, retry: int) -> float | None:
    """Return the seconds to wait before the same candidate is asked again; None if that is not worth it.

    retry: the number of retries so far.
    """
    if not error.retryable or isinstance(error, UpstreamTimeoutError):
        return None
    backoff_s = BACKOFF_S * 2**retry * random.uniform(0.5, 1)  # noqa: S311  (spreads retries, hides nothing)
    wait_s = backoff_s if error.retry_after_s is None else error.retry_after_s
    return wait_s if wait_s <= MAX_WAIT_S else None
