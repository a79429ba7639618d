"""Bind a candidate to its circuit breaker (`BoundCandidate`), and report what its failures mean for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from router import errors
from router.answering.breaker import Breaker, Clock, Permit
from router.errors import DispatchError, UpstreamCoolingDownError, UpstreamTimeoutError
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.loading import ServedPolicy

log = logging.getLogger(__name__)

#: Circuit breakers by their upstream: the model, where it is asked and with which key, and the breaker's limits.
Breakers = dict[tuple[object, ...], Breaker]


@dataclass(frozen=True, slots=True)
class BoundCandidate:
    """Binds a candidate of one policy to its prices and its circuit breaker."""

    candidate: Candidate
    prices: Prices | None
    breaker: Breaker


def bind_candidates(
    policies: Mapping[str, ServedPolicy], clock: Clock, known: Breakers
) -> tuple[dict[tuple[str, str], BoundCandidate], Breakers]:
    """Return the bound candidates by the names of policy and candidate, and the breakers of their upstreams.

    known: the breakers of an earlier call. An upstream that is among them keeps its breaker.
    """
    bound: dict[tuple[str, str], BoundCandidate] = {}
    breakers: Breakers = {}
    for name, policy in policies.items():
        for candidate, prices in zip(policy.rules.file.candidates, policy.rules.prices, strict=True):
            limits = {"break_after": candidate.break_after, "cooldown_s": candidate.cooldown_s}
            # An upstream that two policies or profiles share works in both of them or in neither.
            upstream = (candidate.model, candidate.api_base, candidate.api_key_env, *limits.values())
            made = known.get(upstream) or Breaker(**limits, clock=clock)  # type: ignore[arg-type]
            bound[name, candidate.name] = BoundCandidate(candidate, prices, breakers.setdefault(upstream, made))
    return bound, breakers


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
