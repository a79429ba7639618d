"""What LiteLLM, the OpenAI SDK and their HTTP clients raise -> our errors. By name: imports none of them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from router import errors, plain_json
from router.errors import DispatchError, RouterError

#: Exceptions by name; an exception counts as the nearest of its classes that is named here.
ERRORS_BY_NAME: Mapping[str, type[DispatchError]] = {
    "AuthenticationError": errors.UpstreamDeniedError,
    "PermissionDeniedError": errors.UpstreamDeniedError,
    "PaymentRequiredError": errors.UpstreamDeniedError,
    "BudgetExceededError": errors.UpstreamDeniedError,
    "NotFoundError": errors.UpstreamNotFoundError,
    "LiteLLMUnknownProvider": errors.UpstreamNotFoundError,
    "ModelNotMappedError": errors.UpstreamNotFoundError,
    "RateLimitError": errors.UpstreamRateLimitedError,
    "Timeout": errors.UpstreamTimeoutError,
    "ContextWindowExceededError": errors.UpstreamContextWindowError,
    "ContentPolicyViolationError": errors.UpstreamRejectedError,
    "RejectedRequestError": errors.UpstreamRejectedError,
    "UnsupportedParamsError": errors.UpstreamRejectedError,
    "UnprocessableEntityError": errors.UpstreamRejectedError,
    "ImageFetchError": errors.UpstreamRejectedError,
    "VectorStoreSearchError": errors.UpstreamRejectedError,
    "GuardrailRaisedException": errors.UpstreamRejectedError,
    "BlockedPiiEntityError": errors.UpstreamRejectedError,
    "SensitiveDataRouteException": errors.UpstreamRejectedError,
    "ModifyResponseException": errors.UpstreamRejectedError,
    "InvalidRequestError": errors.UpstreamRejectedError,
    "BadRequestError": errors.UpstreamRejectedError,
    "ServiceUnavailableError": errors.UpstreamUnavailableError,
    "MidStreamFallbackError": errors.UpstreamUnavailableError,
    "BadGatewayError": errors.UpstreamUnavailableError,
    "InternalServerError": errors.UpstreamUnavailableError,
    "JSONSchemaValidationError": errors.UpstreamUnavailableError,
    "APIResponseValidationError": errors.UpstreamUnavailableError,
    "APIConnectionError": errors.UpstreamUnavailableError,
    "MockException": errors.UpstreamUnavailableError,
    "APIError": errors.UpstreamUnavailableError,
    "OpenAIError": errors.UpstreamUnavailableError,
    # Of the OpenAI SDK, of httpx, aiohttp and json, where a stream is read beneath LiteLLM or a body by ourselves.
    "APITimeoutError": errors.UpstreamTimeoutError,
    "TimeoutException": errors.UpstreamTimeoutError,
    "ServerTimeoutError": errors.UpstreamTimeoutError,
    "HTTPError": errors.UpstreamUnavailableError,
    "ClientError": errors.UpstreamUnavailableError,
    "JSONDecodeError": errors.UpstreamUnavailableError,
    "UnicodeDecodeError": errors.UpstreamUnavailableError,
}

#: Where only "API error" is said, the HTTP status says more.
ERRORS_BY_STATUS: Mapping[int, type[DispatchError]] = {
    400: errors.UpstreamRejectedError,
    401: errors.UpstreamDeniedError,
    402: errors.UpstreamDeniedError,
    403: errors.UpstreamDeniedError,
    404: errors.UpstreamNotFoundError,
    408: errors.UpstreamTimeoutError,
    413: errors.UpstreamRejectedError,
    422: errors.UpstreamRejectedError,
    429: errors.UpstreamRateLimitedError,
}

_VAGUE = frozenset({"APIError", "OpenAIError"})

#: Characters of what a provider says that are passed on.
MAX_WORDS = 500

#: Longest Retry-After that is believed.
MAX_RETRY_AFTER_S = 600.0


@contextlib.contextmanager
def translated(who: str) -> Iterator[None]:
    """Exceptions of the libraries beneath -> ours. What is not theirs passes: our own bugs are not relabelled."""
    try:
        yield
    except RouterError:
        raise
    except Exception as error:
        # LiteLLM wraps what breaks a stream; what it was says more.
        said = getattr(error, "original_exception", None) or error
        kind = kind_of(said) or kind_of(error)
        if kind is None:
            raise
        status = getattr(said, "status_code", None)
        shown = f", HTTP status {status}." if status else "."
        message = f"{who} failed with {type(said).__name__}{shown}"
        # The provider's words may quote a fragment of our key: they stay in the exception chain. What is wrong with the
        # request its sender must hear, and gets back what was his own.
        if issubclass(kind, errors.UpstreamRejectedError) and (words := _words_of(said)):
            message += f" It says: {words}"
        raise kind(message, http_status=status, retry_after_s=_retry_after(said)) from error


def _words_of(error: BaseException) -> str | None:
    """What the provider itself says of a request, out of its answer in OpenAI's or Anthropic's shape.

    Of parameters that it does not have: what LiteLLM says.
    """
    if type(error).__name__ == "UnsupportedParamsError":
        return str(error)[:MAX_WORDS]
    for one in (error.__cause__, error):
        try:
            said = plain_json.loads(one.response.text)["error"]["message"]  # type: ignore[union-attr]
        except (AttributeError, LookupError, TypeError, ValueError):
            continue
        if isinstance(said, str) and said:
            return said[:MAX_WORDS]
    return None


def kind_of(error: BaseException) -> type[DispatchError] | None:
    """Which of our errors it is; None for what is none of theirs."""
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS_BY_NAME), None)
    if name is None:
        return None
    if name in _VAGUE:
        return ERRORS_BY_STATUS.get(getattr(error, "status_code", None) or 0, ERRORS_BY_NAME[name])
    return ERRORS_BY_NAME[name]


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(error, "litellm_response_headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    value = headers.get("retry-after") if isinstance(headers, Mapping) else None
    return retry_after_s(value, datetime.now(UTC)) if isinstance(value, str) else None


def retry_after_s(value: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks to wait, at most 600; None for one that is none."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(seconds) else None
