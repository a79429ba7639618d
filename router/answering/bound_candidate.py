"""Bind a candidate to its circuit breaker (`BoundCandidate`), and report what its failures mean for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from router import errors
from router.answering.breaker import Breaker, Permit
from router.errors import DispatchError, UpstreamCoolingDownError, UpstreamTimeoutError
from router.policies.candidates.candidate import Candidate, Prices

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoundCandidate:
    """Binds a candidate of one policy to its prices and its circuit breaker."""

    candidate: Candidate
    prices: Prices | None
    breaker: Breaker


def report_failure(permit: Permit, candidate: Candidate, error: DispatchError, *, cut_short: bool) -> None:
    """Tell the circuit breaker what a failure says about the candidate's health.

    cut_short: whether the candidate had less time than its own limits give it.
    """
    if not error.counts:
        if error.http_status is not None:
            # A candidate that refuses a request still answers, so it works.
            permit.answering()
        permit.close()
    elif isinstance(error, errors.UpstreamDeniedError | errors.UpstreamNotFoundError):
        log.error("candidate %s: %s It rests for %g s.", candidate.name, error, candidate.cooldown_s)
        permit.rest(because=error)
    elif error.retry_after_s is not None:
        permit.rest(error.retry_after_s)
    elif isinstance(error, UpstreamTimeoutError) and cut_short:
        # The caller's deadline was shorter than the candidate's own, so the timeout says nothing about its health.
        permit.close()
    else:
        permit.failed()


def cooling_down_error(target: BoundCandidate) -> DispatchError:
    """Return the error for a candidate that is not asked because it is cooling down.

    If an error made it cool down, such as a refused key, a retry is worth no more than it was then; so the class stays.
    """
    because, name = target.breaker.because, target.candidate.name
    if isinstance(because, DispatchError):
        return type(because)(f"candidate {name!r} rests: {because.message}", http_status=because.http_status)
    message = f"candidate {name!r} is cooling down after failures."
    return UpstreamCoolingDownError(message, retry_after_s=target.breaker.retry_after_s or None)
