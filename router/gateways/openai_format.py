"""Describe decisions and errors in OpenAI's format: headers, the record in the body, error objects. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from router.attempts import Attempt, Delivery
from router.errors import DispatchError, RequestTooLargeError, RouterError, UnknownModelError, UpstreamNotFoundError
from router.values import RoutingDecision

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
)

#: The HTTP status for each gRPC status of our errors; see router/errors.py.
HTTP_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    # The provider refused the router's key, not the caller's, so the caller must not see a 401 or 403.
    "PERMISSION_DENIED": 502,
    "ABORTED": 502,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


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
    """Return the headers that say who answered, and after which attempts."""
    # Only the last attempts, because clients refuse long headers.
    attempts = (f"{attempt.candidate}={attempt.outcome.value}" for attempt in delivery.attempts[-MAX_ATTEMPTS:])
    return {ANSWERED_BY_HEADER: delivery.answered_by, ATTEMPTS_HEADER: ",".join(attempts)}


def decision_record(decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
    """Return the short decision record for bodies and chunks.

    delivery: who answered; None if nobody has yet, and the record says nothing about it.
    """
    record: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "policy": decision.policy.name,
        "candidate": decision.chosen,
        "reason": decision.reason.value,
        "risk": _risk(decision),
        "gain": decision.gain,
    }
    if decision.task:
        record |= {"task": decision.task, "task_known": decision.task_known, "task_labels": decision.task_labels}
    if decision.kinds is not None:
        record["kinds"] = asdict(decision.kinds)
    if delivery is not None:
        record["answered_by"] = delivery.answered_by
        record["fell_back"] = delivery.fell_back
        record["attempts"] = attempts_record(delivery.attempts)
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


def error_reply(error: RouterError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return the HTTP status, the headers and the OpenAI error object that describe a RouterError."""
    status = 413 if isinstance(error, RequestTooLargeError) else HTTP_STATUS[error.status]
    if isinstance(error, UpstreamNotFoundError):
        # The router names models and URLs of candidates, not the caller. 404 would say that the caller must change it.
        status = 502
    headers = {ERROR_HEADER: error.reason}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif isinstance(error, DispatchError):
        # The dispatcher has retried whatever is worth a retry, so OpenAI's clients, which retry by themselves, are
        # asked not to. If a provider asked for a longer wait than ours, `retry_after_s` is set: then clients may wait.
        headers["x-should-retry"] = "false"
    # Clients that were written for OpenAI know this code.
    code = "model_not_found" if isinstance(error, UnknownModelError) else error.reason.lower()
    body = error_object(str(error), kind=_kind(status), code=code, param=error.field)
    body["error"]["retryable"] = error.retryable
    return status, headers, body


def error_object(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """Return an OpenAI error object; `kind` becomes its field `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _risk(decision: RoutingDecision) -> float | None:
    return next(row.risk for row in decision.candidates if row.candidate == decision.chosen)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
