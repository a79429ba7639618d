"""Every error that `router` raises on purpose, with its gRPC status and whether the same request may succeed later.

RouterError
├── InvalidRequestError        the request itself is wrong                    INVALID_ARGUMENT
│   ├── UnknownCandidateError  an override names no candidate                 INVALID_ARGUMENT
│   └── RequestTooLargeError   (HTTP) the body is too long                    INVALID_ARGUMENT
├── UnauthenticatedError       no valid token came with the call              UNAUTHENTICATED
├── ForbiddenError             the token does not allow this call             PERMISSION_DENIED
├── LimitExceededError         a limit of the caller's token is reached       RESOURCE_EXHAUSTED, retry
├── UnknownPolicyError         no policy has this name                        NOT_FOUND
├── UnknownModelError          (chat bodies) `model` names nothing            NOT_FOUND
├── UnknownDecisionError       the ledger has no such decision                NOT_FOUND
├── UnknownResponseError       nobody keeps such a response for this caller   NOT_FOUND
├── NoLedgerError              the service keeps no ledger                    UNIMPLEMENTED
├── NotRecordedError           the ledger cannot be used now                  UNAVAILABLE, retry
├── NoEligibleCandidateError   every candidate breaks a bound                 FAILED_PRECONDITION
├── OverloadedError            a queue or a budget is full                    RESOURCE_EXHAUSTED, retry
├── DeadlineError              the caller's deadline passed in the queue      DEADLINE_EXCEEDED, retry
├── NotReadyError              the service is loading or ending               UNAVAILABLE, retry
│   └── ShuttingDownError      the service ended before it could answer       UNAVAILABLE, retry
├── JudgementError             judging failed, and the policy wants an error  INTERNAL
├── UndecidedError             (decision models) the router abstained         UNAVAILABLE
├── ConfigError                a policy or its probe cannot be used           FAILED_PRECONDITION
├── UnknownVersionError        the store has no such version of a policy      NOT_FOUND
├── VersionConflictError       another version is active than expected        ABORTED
├── GatewayNotInstalledError   a package that a gateway needs is missing      UNIMPLEMENTED
├── DispatchError              no allowed candidate answered                  UNAVAILABLE
│   ├── DispatchNotInstalledError   the extra `dispatch` is missing           UNIMPLEMENTED
│   ├── UpstreamRejectedError       the provider refuses this request         INVALID_ARGUMENT
│   │   └── UpstreamContextWindowError  it is longer than the model reads     INVALID_ARGUMENT
│   ├── UpstreamDeniedError         key, permission or credit                 PERMISSION_DENIED
│   ├── UpstreamNotFoundError       the provider knows no such model          NOT_FOUND
│   ├── UpstreamMisconfiguredError  it refuses a parameter of the policy      FAILED_PRECONDITION
│   ├── UpstreamRateLimitedError    the provider answers 429                  RESOURCE_EXHAUSTED, retry
│   ├── UpstreamTimeoutError        no answer in time                         DEADLINE_EXCEEDED, retry
│   ├── UpstreamUnavailableError    5xx, no connection, malformed answer      UNAVAILABLE, retry
│   │   └── UpstreamCoolingDownError    it failed too often a moment ago      UNAVAILABLE, retry
│   └── UpstreamInterruptedError    the answer broke off in the middle        ABORTED, retry
└── ServiceError               (client) the service answered with a status

Statuses are given by the names of `grpc.StatusCode`, so that this file does not import grpc.
"""

from __future__ import annotations

from typing import ClassVar

from router.attempts import Attempt


class RouterError(Exception):
    """The base of all errors that `router` raises on purpose.

    Attributes:
        status: the name of the `grpc.StatusCode` that the error becomes on the wire.
        retryable: True if the same request may succeed later.
        retry_after_s: seconds from now after which to try again; None if nobody knows.
        field: the path of the request field at fault, such as `overrides.pin`; None if no field is.
    """

    status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, message: str, *, field: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.field = field
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    @property
    def reason(self) -> str:
        """Return the name of the error for machines, as in google.rpc.ErrorInfo: `UNKNOWN_POLICY` for example."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


class InvalidRequestError(RouterError):
    """The request itself is wrong, and sending it again will not help."""

    status = "INVALID_ARGUMENT"


class UnknownCandidateError(InvalidRequestError):
    """An override names a candidate that the policy does not have."""


class RequestTooLargeError(InvalidRequestError):
    """The body of an HTTP request is longer than the service reads."""


class UnauthenticatedError(RouterError):
    """The call carries no token, or one that is unknown, expired or revoked."""

    status = "UNAUTHENTICATED"


class ForbiddenError(RouterError):
    """The token of the call is valid, but it does not have the scope that the call needs."""

    status = "PERMISSION_DENIED"


class LimitExceededError(RouterError):
    """A limit of the caller's token is reached. The caller may try again after `retry_after_s` seconds."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True


class UnknownPolicyError(RouterError):
    """The service has no policy of this name."""

    status = "NOT_FOUND"


class UnknownModelError(RouterError):
    """The `model` of a chat body names neither a policy nor a candidate. The message lists the names that exist."""

    status = "NOT_FOUND"


class UnknownDecisionError(RouterError):
    """The ledger has no such decision of this caller, so there is nothing to give feedback on or to escalate."""

    status = "NOT_FOUND"


class UnknownResponseError(RouterError):
    """No candidate keeps a response of this id that this caller got here, so it cannot be fetched or cancelled."""

    status = "NOT_FOUND"


class NoLedgerError(RouterError):
    """The service keeps no ledger (`elle serve --ledger`), without which there is no feedback and no escalation."""

    status = "UNIMPLEMENTED"


class NotRecordedError(RouterError):
    """The ledger cannot be used now: feedback was not kept, or a decision cannot be looked up."""

    status = "UNAVAILABLE"
    retryable = True
    retry_after_s = 2.0


class NoEligibleCandidateError(RouterError):
    """Every candidate breaks a bound of this request. The message names each candidate and the bounds it breaks."""

    status = "FAILED_PRECONDITION"


class OverloadedError(RouterError):
    """A queue or a budget is full. The caller may try again after `retry_after_s` seconds."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True


class DeadlineError(RouterError):
    """The caller's deadline passed while the prompt waited for the encoder."""

    status = "DEADLINE_EXCEEDED"
    retryable = True


class NotReadyError(RouterError):
    """The service is still loading, or it is ending and takes no more requests."""

    status = "UNAVAILABLE"
    retryable = True
    retry_after_s = 2.0


class ShuttingDownError(NotReadyError):
    """The service had to end before it could answer this request. Another process may answer it."""


class JudgementError(RouterError):
    """The encoder or the probe failed on this prompt, and the failure mode of the policy is `error`."""


class UndecidedError(RouterError):
    """A decision model was asked for an answer, and the router abstained or could not judge the text."""

    status = "UNAVAILABLE"


class ConfigError(RouterError):
    """A policy file or the probe that it names cannot be used. The message names the key at fault and what to do."""

    status = "FAILED_PRECONDITION"


class UnknownVersionError(RouterError):
    """The store has no version of a policy under this name, or several."""

    status = "NOT_FOUND"


class VersionConflictError(RouterError):
    """Another version of a policy is active than was expected. Look at what is active, and decide again."""

    status = "ABORTED"


class GatewayNotInstalledError(RouterError):
    """A package that a gateway needs is not installed. The message names the extra that installs it."""

    status = "UNIMPLEMENTED"


class DispatchError(RouterError):
    """No allowed candidate answered.

    Attributes:
        hint: one sentence that says what to do; every message ends with it.
        message: what happened, without the hint.
        http_status: the HTTP status that the provider answered with; None if there was none.
        counts: True if the failure counts against the candidate's health (`router.answering.breaker`). It does not
            count if the caller's request caused it, or if it never reached the network.
        attempts: all attempts for the request, oldest first; filled in when the request is given up.
        provider_code: the provider's own name of the error, such as `context_length_exceeded`; None if it has none, or
            if the error is about the router's key or settings, which is nothing to the caller.
        provider_param: the field of the request that the provider says is at fault; None if it names none.
        provider_words: what the provider said, if it may be passed on.
    """

    status = "UNAVAILABLE"
    hint: ClassVar[str] = ""
    provider_code: str | None = None
    provider_param: str | None = None
    provider_words: str | None = None

    def __init__(self, message: str, *, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"{message} {self.hint}".rstrip(), retry_after_s=retry_after_s)
        self.message = message
        self.http_status = http_status
        self.counts = True
        self.attempts: tuple[Attempt, ...] = ()


class DispatchNotInstalledError(DispatchError):
    """The extra `dispatch` is not installed. Deciding works without it, answering does not."""

    status = "UNIMPLEMENTED"
    hint = "Install it with `pip install 'elle-router[dispatch]'`, or use Route, which only decides."


class UpstreamRejectedError(DispatchError):
    """The provider refuses this request because it is malformed, too long, or against its content policy."""

    status = "INVALID_ARGUMENT"
    hint = "Change the request; another attempt would be refused in the same way."


class UpstreamContextWindowError(UpstreamRejectedError):
    """The request is longer than the model reads."""

    hint = "Shorten the request, or give the policy an eligible candidate with a larger context_window_tokens."


class UpstreamDeniedError(DispatchError):
    """The provider refuses the router's key, permission, credit or budget."""

    status = "PERMISSION_DENIED"
    hint = "Whoever runs the router must check the candidate's key, its permissions and its credit."


class UpstreamNotFoundError(DispatchError):
    """The provider knows no such model or endpoint."""

    status = "NOT_FOUND"
    hint = "Whoever runs the router must check the candidate's `model` and `api_base`."


class UpstreamMisconfiguredError(DispatchError):
    """The provider refuses a parameter that the policy sets for its candidate, and not the caller."""

    status = "FAILED_PRECONDITION"
    hint = "Whoever runs the router must check the candidate's `params`."


class UpstreamRateLimitedError(DispatchError):
    """The provider answers with HTTP status 429: it gets too many requests."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True
    hint = "Try again later, or give the policy another candidate to fall back to."


class UpstreamTimeoutError(DispatchError):
    """The provider did not answer in time."""

    status = "DEADLINE_EXCEEDED"
    retryable = True
    hint = "Try again with a longer deadline, or raise the candidate's timeout."


class UpstreamUnavailableError(DispatchError):
    """The provider cannot be reached, answers with a 5xx status, or sends an answer that makes no sense."""

    retryable = True
    hint = "Try again later."


class UpstreamCoolingDownError(UpstreamUnavailableError):
    """The candidate failed too often a moment ago, and is not asked until its cool-down is over."""


class UpstreamInterruptedError(DispatchError):
    """The answer broke off after a part of it had reached the caller, so that no other candidate could take over."""

    status = "ABORTED"
    retryable = True
    hint = "Throw the part away and ask again."


class ServiceError(RouterError):
    """The client raises this if the service answered with a status that is not OK.

    Attributes:
        code: the name of the `grpc.StatusCode`.
        service_reason: the service's name of the error for machines, such as `UNKNOWN_POLICY`; empty if it sent none.
        service_retryable: True if the service says that the same request may succeed later.
        attempts: the attempts to get an answer from candidates, oldest first; empty if no candidate was asked.
        provider_code: the provider's own name of the error, such as `content_filter`; None if it named none.
        provider_param: the field of the request that the provider says is at fault; None if it named none.
    """

    provider_code: str | None = None
    provider_param: str | None = None

    def __init__(
        self,
        message: str,
        *,
        code: str,
        service_reason: str = "",
        service_retryable: bool = False,
        retry_after_s: float | None = None,
        attempts: tuple[Attempt, ...] = (),
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.code = code
        self.service_reason = service_reason
        self.service_retryable = service_retryable
        self.attempts = attempts
