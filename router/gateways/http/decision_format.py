"""Describe decisions for HTTP clients: the headers, and the record in the body. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from router.attempts import Attempt, Delivery
from router.decision import RoutingDecision

#: The headers of a decision. Envoy routes by the first one.
CANDIDATE_HEADER = "x-elle-candidate"
DECISION_ID_HEADER = "x-elle-decision-id"
POLICY_HEADER = "x-elle-policy"
REASON_HEADER = "x-elle-reason"
GAIN_HEADER = "x-elle-gain"
RISK_HEADER = "x-elle-risk"
#: The nearest kind of request, percent-encoded; absent if the prompt is of no known kind.
KIND_HEADER = "x-elle-kind"
#: The machine-readable reason of an error.
ERROR_HEADER = "x-elle-error"

#: Who answered, and after which attempts, as `CANDIDATE=OUTCOME` with commas between. Envoy's gateway does not set
#: these, because it does not get the answer.
ANSWERED_BY_HEADER = "x-elle-answered-by"
ATTEMPTS_HEADER = "x-elle-attempts"

#: The parameters that the candidate which answered was not sent, with commas between; absent if there are none.
DROPPED_HEADER = "x-elle-dropped-parameters"

#: Most attempts that the header names.
MAX_ATTEMPTS = 40

#: The field of bodies and chunks that holds the decision record.
RECORD_FIELD = "elle"

ALL_HEADERS = (
    CANDIDATE_HEADER,
    DECISION_ID_HEADER,
    POLICY_HEADER,
    REASON_HEADER,
    GAIN_HEADER,
    RISK_HEADER,
    KIND_HEADER,
    ERROR_HEADER,
    ANSWERED_BY_HEADER,
    ATTEMPTS_HEADER,
    DROPPED_HEADER,
)


def decision_headers(decision: RoutingDecision) -> dict[str, str]:
    """Return the headers of a decision, in ASCII. Gain and risk have six decimals, and are left out if unknown."""
    risk = _risk(decision)
    headers = {
        CANDIDATE_HEADER: decision.chosen,
        DECISION_ID_HEADER: decision.decision_id,
        POLICY_HEADER: decision.policy.name,
        REASON_HEADER: decision.reason.value,
    }
    if decision.gain is not None:
        headers[GAIN_HEADER] = f"{decision.gain:z.6f}"
    if risk is not None:
        headers[RISK_HEADER] = f"{risk:.6f}"
    if decision.kinds is not None and decision.kinds.known:
        headers[KIND_HEADER] = quote(decision.kinds.nearest[0].name, safe=" ,:()'/-")
    return headers


def delivery_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers that say who answered, after which attempts, and what rate limits that provider told."""
    # Only the last attempts, because clients refuse long headers.
    attempts = (f"{attempt.candidate}={attempt.outcome.value}" for attempt in delivery.attempts[-MAX_ATTEMPTS:])
    headers = {**delivery.rate_limits, ANSWERED_BY_HEADER: delivery.answered_by, ATTEMPTS_HEADER: ",".join(attempts)}
    return headers | dropped_header(delivery.dropped_parameters)


def dropped_header(dropped: Sequence[str]) -> dict[str, str]:
    """Return the header that names the parameters which a candidate was not sent; without any there is none.

    Callers may invent names, so whatever no header can hold is percent-encoded.
    """
    return (
        {DROPPED_HEADER: ",".join(quote(name, safe="[]$@ ", errors="replace") for name in dropped)} if dropped else {}
    )


def decision_record(decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
    """Return the short decision record for bodies and chunks.

    delivery: who answered; None if nobody has yet, and the record says nothing about it.
    """
    record: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "policy": decision.policy.name,
        "policy_digest": decision.policy.digest,
        "candidate": decision.chosen,
        "reason": decision.reason.value,
        "risk": _risk(decision),
        "gain": decision.gain,
    }
    if decision.task:
        record |= {"task": decision.task, "task_known": decision.task_known, "task_labels": decision.task_labels}
    if decision.kinds is not None:
        record["kinds"] = asdict(decision.kinds)
    if decision.score is not None:
        record["score"] = asdict(decision.score)
    if delivery is not None:
        record["answered_by"] = delivery.answered_by
        record["fell_back"] = delivery.fell_back
        record["attempts"] = attempts_record(delivery.attempts)
        if delivery.dropped_parameters:
            record["dropped_parameters"] = list(delivery.dropped_parameters)
    return record


def attempts_record(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return the record of everything that was tried, oldest first."""
    return [
        {
            "candidate": attempt.candidate,
            "outcome": attempt.outcome.value,
            "http_status": attempt.http_status,
            "duration_s": round(attempt.duration_s, 6),
        }
        for attempt in attempts
    ]


def _risk(decision: RoutingDecision) -> float | None:
    return next(row.risk for row in decision.candidates if row.candidate == decision.chosen)
