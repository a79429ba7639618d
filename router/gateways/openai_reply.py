"""What a door says of its own, in the OpenAI shape: headers of a decision, and errors as error objects. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from router.errors import RouterError, UnknownModelError
from router.types import RoutingDecision

#: The headers of a decision. Envoy routes by the first.
CANDIDATE_HEADER = "x-elle-candidate"
DECISION_ID_HEADER = "x-elle-decision-id"
POLICY_HEADER = "x-elle-policy"
REASON_HEADER = "x-elle-reason"
GAIN_HEADER = "x-elle-gain"
RISK_HEADER = "x-elle-risk"
#: Machine-readable reason why there is no decision.
ERROR_HEADER = "x-elle-error"

ALL_HEADERS = (
    CANDIDATE_HEADER,
    DECISION_ID_HEADER,
    POLICY_HEADER,
    REASON_HEADER,
    GAIN_HEADER,
    RISK_HEADER,
    ERROR_HEADER,
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
    risk = next(row.risk for row in decision.candidates if row.candidate == decision.chosen)
    headers = {
        CANDIDATE_HEADER: decision.chosen,
        DECISION_ID_HEADER: decision.decision_id,
        POLICY_HEADER: decision.policy.name,
        REASON_HEADER: decision.reason.value,
    }
    if decision.gain is not None:
        headers[GAIN_HEADER] = f"{decision.gain:.6f}"
    if risk is not None:
        headers[RISK_HEADER] = f"{risk:.6f}"
    return headers


def error_reply(error: RouterError) -> tuple[int, dict[str, str], dict[str, Any]]:
    """HTTP status, headers and OpenAI error object of an error of ours."""
    status = HTTP_STATUS[error.status]
    headers = {ERROR_HEADER: error.reason}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    # Clients written for OpenAI look for its own code.
    code = "model_not_found" if isinstance(error, UnknownModelError) else error.reason.lower()
    return status, headers, error_object(str(error), kind=_kind(status), code=code, param=error.field)


def error_object(message: str, *, kind: str, code: str, param: str | None = None) -> dict[str, Any]:
    """An OpenAI error object; `kind` is its `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _kind(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
