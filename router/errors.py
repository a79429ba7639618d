"""Everything that `router` raises on purpose, each with its gRPC status, whether to retry, and what to do.

RouterError
├── InvalidRequestError        the request itself is wrong                    INVALID_ARGUMENT
│   └── UnknownCandidateError  an override names a candidate nobody knows     INVALID_ARGUMENT
├── UnknownPolicyError         no policy of this name                         NOT_FOUND
├── UnknownModelError          (other doors) `model` names no policy nor
│                              candidate                                      NOT_FOUND
├── NoEligibleCandidateError   every candidate breaks a bound                 FAILED_PRECONDITION
├── OverloadedError            the queue is full                              RESOURCE_EXHAUSTED, retry
├── NotReadyError              the encoder is still loading, or draining      UNAVAILABLE, retry
├── JudgementError             the prompt could not be judged (and the policy
│                              says that this is an error)                    INTERNAL
├── ConfigError                a policy or its probe cannot be used           FAILED_PRECONDITION
├── GatewayNotInstalledError   what a gateway needs is not installed          UNIMPLEMENTED
├── DispatchError              the chosen candidate did not answer
│   ├── DispatchNotInstalledError   LiteLLM is absent                         UNIMPLEMENTED
│   ├── UpstreamRejectedError       the provider refuses this request         INVALID_ARGUMENT
│   ├── UpstreamDeniedError         key, permission, credit                   PERMISSION_DENIED
│   ├── UpstreamNotFoundError       the provider knows no such model          NOT_FOUND
│   ├── UpstreamRateLimitedError    429                                       RESOURCE_EXHAUSTED, retry
│   ├── UpstreamTimeoutError        no answer in time                         DEADLINE_EXCEEDED, retry
│   └── UpstreamUnavailableError    5xx, connection, malformed answer         UNAVAILABLE, retry
└── ServiceError               (client side) the service answered with a status

Statuses are names of `grpc.StatusCode`, so that this file needs no grpc.
"""

from __future__ import annotations

from typing import ClassVar


class RouterError(Exception):
    """Base of all errors that `router` raises on purpose.

    Attributes:
        status: name of the `grpc.StatusCode` it becomes on the wire.
        retryable: whether the same request may succeed later.
        field: path of the request field at fault, if one is.
    """

    status: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

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


class NotReadyError(RouterError):
    """The service is still loading or already draining."""

    status = "UNAVAILABLE"
    retryable = True


class JudgementError(RouterError):
    """The encoder or the probe failed on this prompt, and the policy's failure mode is `error`."""


class ConfigError(RouterError):
    """A policy file, or the probe it names, cannot be used; the message says which key and what to do."""

    status = "FAILED_PRECONDITION"


class GatewayNotInstalledError(RouterError):
    """What a gateway needs is not installed; the message names the extra."""

    status = "UNIMPLEMENTED"


class DispatchError(RouterError):
    """The chosen candidate did not answer."""

    status = "UNAVAILABLE"


class DispatchNotInstalledError(DispatchError):
    """LiteLLM is not installed; deciding works without it, answering does not."""

    status = "UNIMPLEMENTED"


class UpstreamRejectedError(DispatchError):
    """The provider refuses this request: malformed, too long, or against its content policy."""

    status = "INVALID_ARGUMENT"


class UpstreamDeniedError(DispatchError):
    """The provider refuses the caller: key, permission, credit or budget."""

    status = "PERMISSION_DENIED"


class UpstreamNotFoundError(DispatchError):
    """The provider knows no such model or endpoint."""

    status = "NOT_FOUND"


class UpstreamRateLimitedError(DispatchError):
    """The provider answers 429."""

    status = "RESOURCE_EXHAUSTED"
    retryable = True


class UpstreamTimeoutError(DispatchError):
    """The provider did not answer in time."""

    status = "DEADLINE_EXCEEDED"
    retryable = True


class UpstreamUnavailableError(DispatchError):
    """The provider answers 5xx or nonsense, or cannot be reached."""

    status = "UNAVAILABLE"
    retryable = True


class ServiceError(RouterError):
    """Client side: the service answered with a status.

    Attributes:
        code: name of the `grpc.StatusCode`.
        service_reason: the service's machine-readable reason, `UNKNOWN_POLICY` and the like; empty if it gave none.
        service_retryable: whether the service says that the same request may succeed later.
    """

    def __init__(self, message: str, *, code: str, service_reason: str = "", service_retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.service_reason = service_reason
        self.service_retryable = service_retryable
