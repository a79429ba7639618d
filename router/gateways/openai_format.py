"""What a door says of its own, in the OpenAI shape: headers of a decision, and errors as error objects. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from router.attempts import Attempt, Delivery
from router.errors import DispatchError, RequestTooLargeError, RouterError, UnknownModelError
from router.values import RoutingDecision

#: The headers of a decision. Envoy routes by the first.
CANDIDATE_HEADER = "x-elle-candidate"
DECISION_ID_HEADER = "x-elle-decision-id"
POLICY_HEADER = "x-elle-policy"
REASON_HEADER = "x-elle-reason"
GAIN_HEADER = "x-elle-gain"
RISK_HEADER = "x-elle-risk"
#: Machine-readable reason why there is no decision.
ERROR_HEADER = "x-elle-error"

#: Who answered, after which attempts (`CANDIDATE=OUTCOME`, comma between); only doors that get answers set these.
ANSWERED_BY_HEADER = "x-elle-answered-by"
ATTEMPTS_HEADER = "x-elle-attempts"

#: Attempts that the header names.
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
    ERROR_HEADER,
    ANSWERED_BY_HEADER,
    ATTEMPTS_HEADER,
)

#: HTTP status of each gRPC status that errors of ours have; see router/errors.py.
HTTP_STATUS: Mapping[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    # The key that the provider refuses is the router's, not the caller's.
    "PERMISSION_DENIED": 502,
    "ABORTED": 502,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def decision_headers(decision: RoutingDecision) -> dict[str, str]:
    """Who answers and why, as ASCII headers; gain and risk, with six decimals, only where they were judged."""
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
    return headers


def delivery_headers(delivery: Delivery) -> dict[str, str]:
    """Who answered, after what."""
    # The last ones, because clients bound the length of headers.
    attempts = (f"{attempt.candidate}={attempt.outcome.value}" for attempt in delivery.attempts[-MAX_ATTEMPTS:])
    return {ANSWERED_BY_HEADER: delivery.answered_by, ATTEMPTS_HEADER: ",".join(attempts)}


def decision_record(decision: RoutingDecision, delivery: Delivery | None) -> dict[str, Any]:
    """The decision, small, for bodies and chunks; with who answered where that is known."""
    record: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "policy": decision.policy.name,
        "candidate": decision.chosen,
        "reason": decision.reason.value,
        "risk": _risk(decision),
        "gain": decision.gain,
    }
    if delivery is not None:
        record["answered_by"] = delivery.answered_by
        record["fell_back"] = delivery.fell_back
        record["attempts"] = attempts_record(delivery.attempts)
    return record


def attempts_record(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Everything that was tried, oldest first."""
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
    """HTTP status, headers and OpenAI error object of an error of ours."""
    status = 413 if isinstance(error, RequestTooLargeError) else HTTP_STATUS[error.status]
    headers = {ERROR_HEADER: error.reason}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    elif isinstance(error, DispatchError):
        # What is worth retrying was retried; OpenAI's clients, which do so by themselves, are asked not to. A wait that
        # a provider asks for was too long for us, and is theirs to make.
        headers["x-should-retry"] = "false"
    # Clients written for OpenAI look for its own code.
    code = "model_not_found" if isinstance(error, UnknownModelError) else error.reason.lower()
    body = error_object(str(error), kind=_kind(status), code=code, param=error.field)
    body["error"]["retryable"] = error.retryable
    return status, headers, body


def error_object(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An OpenAI error object; `kind` is its `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _risk(decision: RoutingDecision) -> float | None:
    return next(row.risk for row in decision.candidates if row.candidate == decision.chosen)


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
