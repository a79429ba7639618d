"""Everything that `router` raises on purpose, each with its gRPC status, whether to retry, and what to do.

RouterError
├── InvalidRequestError        the request itself is wrong                    INVALID_ARGUMENT
│   ├── UnknownCandidateError  an override names a candidate nobody knows     INVALID_ARGUMENT
│   └── RequestTooLargeError   (HTTP door) the body is too long               INVALID_ARGUMENT
├── UnknownPolicyError         no policy of this name                         NOT_FOUND
├── UnknownModelError          (other doors) `model` names no policy nor
│                              candidate                                      NOT_FOUND
├── NoEligibleCandidateError   every candidate breaks a bound                 FAILED_PRECONDITION
├── OverloadedError            the queue is full                              RESOURCE_EXHAUSTED, retry
├── DeadlineError              the caller's deadline passed in the queue       DEADLINE_EXCEEDED, retry
├── NotReadyError              the encoder is still loading, or draining      UNAVAILABLE, retry
│   └── ShuttingDownError      the service ends before the answer does        UNAVAILABLE, retry
├── JudgementError             the prompt could not be judged (and the policy
│                              says that this is an error)                    INTERNAL
├── ConfigError                a policy or its probe cannot be used           FAILED_PRECONDITION
├── GatewayNotInstalledError   what a gateway needs is not installed          UNIMPLEMENTED
├── DispatchError              no allowed candidate answered
│   ├── DispatchNotInstalledError   the extra `dispatch` is absent            UNIMPLEMENTED
│   ├── UpstreamRejectedError       the provider refuses this request         INVALID_ARGUMENT
│   │   └── UpstreamContextWindowError  it is longer than the model reads     INVALID_ARGUMENT
│   ├── UpstreamDeniedError         key, permission, credit                   PERMISSION_DENIED
│   ├── UpstreamNotFoundError       the provider knows no such model          NOT_FOUND
│   ├── UpstreamRateLimitedError    429                                       RESOURCE_EXHAUSTED, retry
│   ├── UpstreamTimeoutError        no answer in time                         DEADLINE_EXCEEDED, retry
│   ├── UpstreamUnavailableError    5xx, connection, malformed answer         UNAVAILABLE, retry
│   │   └── UpstreamCoolingDownError    it failed too often a moment ago      UNAVAILABLE, retry
│   └── UpstreamInterruptedError    broke off in the middle of the answer     ABORTED, retry
└── ServiceError               (client side) the service answered with a status

Statuses are names of `grpc.StatusCode`, so that this file needs no grpc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from router.values import Attempt

#: Characters of a value from outside that a message repeats.
SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """Return a value from outside as messages quote it; of a long text the beginning, and how long it is.

    Messages become headers, trailers and lines of logs, which must stay short, and must hold no half surrogates and no
    line ends of a caller's. Lists and objects are named by their type.
    """
    if isinstance(value, str | bytes):
        rest = f"... ({len(value):,} characters)" if len(value) > SHOWN_CHARACTERS else ""
        return f"{value[:SHOWN_CHARACTERS]!r}{rest}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"an integer of {value.bit_length():,} bits"
    return repr(value) if value is None or isinstance(value, bool | int | float) else type(value).__name__


class RouterError(Exception):
    """Base of all errors that `router` raises on purpose.

    Attributes:
        status: name of the `grpc.StatusCode` it becomes on the wire.
        retryable: whether the same request may succeed later.
        retry_after_s: when, in seconds from now; None where nobody knows.
        field: path of the request field at fault, if one is.
    """

    status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    retry_after_s: float | None = None

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    @property
    def reason(self) -> str:
        """Machine-readable name, as in google.rpc.ErrorInfo: `UnknownPolicyError` is `UNKNOWN_POLICY`."""
        name = type(self).__name__.removesuffix("Error")
        return "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(name)).upper()


class InvalidRequestError(RouterError):
    """The request itself is wrong; sending it again will not help."""

    status = "INVALID_ARGUMENT"


class UnknownCandidateError(InvalidRequestError):
    """An override names a candidate that the policy does not have."""


class RequestTooLargeError(InvalidRequestError):
    """(HTTP door) The body is longer than the door reads."""


class UnknownPolicyError(RouterError):
    """No policy of this name is served."""

    status = "NOT_FOUND"


class UnknownModelError(RouterError):
    """The `model` of a chat body names neither a policy nor a candidate; the message lists them."""

    status = "NOT_FOUND"


class NoEligibleCandidateError(RouterError):
    """Every candidate breaks a bound of this request; the message names each candidate and the bounds."""

    status = "FAILED_PRECONDITION"


class OverloadedError(RouterError):
    """The queue is full. Try again after `retry_after_s` seconds."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(RouterError):
    """The caller's deadline passed before the prompt's turn came."""

    status = "DEADLINE_EXCEEDED"
    retryable = True


class NotReadyError(RouterError):
    """The service is still loading or already draining."""

    status = "UNAVAILABLE"
    retryable = True
    retry_after_s = 2.0


class ShuttingDownError(NotReadyError):
    """The service has to end, and cuts this request short; another process, or the next one, may answer it."""


class JudgementError(RouterError):
    """The encoder or the probe failed on this prompt, and the policy's failure mode is `error`."""


class ConfigError(RouterError):
    """A policy file, or the probe it names, cannot be used; the message says which key and what to do."""

    status = "FAILED_PRECONDITION"


class GatewayNotInstalledError(RouterError):
    """What a gateway needs is not installed; the message names the extra."""

    status = "UNIMPLEMENTED"


class DispatchError(RouterError):
    """No allowed candidate answered.

    Attributes:
        hint: what to do, one sentence; it ends every message.
        message: what happened, without the hint.
        http_status: what the provider answered with; None where it did not.
        counts: whether the failure counts against the candidate's health (`router.answering.breaker`); False for what
            a caller's request is to blame for, and for what never reached the network.
        attempts: everything that was tried for the request, oldest first; filled in when the request is given up.
    """

    status = "UNAVAILABLE"
    hint: ClassVar[str] = ""

    def __init__(self, message: str, *, http_status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(f"{message} {self.hint}".rstrip())
        self.message = message
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.counts = True
        self.attempts: tuple[Attempt, ...] = ()


class DispatchNotInstalledError(DispatchError):
    """What the extra `dispatch` installs is absent; deciding works without it, answering does not."""

    status = "UNIMPLEMENTED"
    hint = "Install it with `pip install 'elle-router[dispatch]'`, or use Route, which only decides."


class UpstreamRejectedError(DispatchError):
    """The provider refuses this request: malformed, too long, or against its content policy."""

    status = "INVALID_ARGUMENT"
    hint = "Change the request; another attempt would be refused alike."


class UpstreamContextWindowError(UpstreamRejectedError):
    """The request is longer than the model reads."""

    hint = "Shorten the request, or give the policy an eligible candidate with a larger context_window_tokens."


class UpstreamDeniedError(DispatchError):
    """The provider refuses the router: key, permission, credit or budget."""

    status = "PERMISSION_DENIED"
    hint = "Whoever runs the router must check the candidate's key, its permissions and its credit."


class UpstreamNotFoundError(DispatchError):
    """The provider knows no such model or endpoint."""

    status = "NOT_FOUND"
    hint = "Whoever runs the router must check the candidate's `model` and `api_base`."


class UpstreamRateLimitedError(DispatchError):
    """The provider answers 429."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True
    hint = "Try again later, or give the policy another candidate to fall back to."


class UpstreamTimeoutError(DispatchError):
    """The provider did not answer in time."""

    status = "DEADLINE_EXCEEDED"
    retryable = True
    hint = "Try again with a longer deadline, or raise the candidate's timeout."


class UpstreamUnavailableError(DispatchError):
    """The provider answers 5xx or nonsense, or cannot be reached."""

    status = "UNAVAILABLE"
    retryable = True
    hint = "Try again later."


class UpstreamCoolingDownError(UpstreamUnavailableError):
    """The candidate failed too often a moment ago and is not asked until it has rested."""


class UpstreamInterruptedError(DispatchError):
    """The answer broke off after part of it had reached the caller, so nobody else could take over."""

    status = "ABORTED"
    retryable = True
    hint = "Throw the part away and ask again."


class ServiceError(RouterError):
    """Client side: the service answered with a status.

    Attributes:
        code: name of the `grpc.StatusCode`.
        service_reason: the service's machine-readable reason, `UNKNOWN_POLICY` and the like; empty if it gave none.
        service_retryable: whether the service says that the same request may succeed later.
        retry_after_s: when, as the service says, in seconds from now; None where it says nothing.
        attempts: which candidates were asked in vain, oldest first; empty where none was.
    """

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
        super().__init__(message)
        self.code = code
        self.service_reason = service_reason
        self.service_retryable = service_retryable
        self.retry_after_s = retry_after_s
        self.attempts = attempts
