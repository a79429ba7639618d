"""Turn errors of LiteLLM, the OpenAI SDK and their HTTP clients into ours. Their names tell them, not an import."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probes.bounded.files import beginning_and_rest
from router import errors, plain_json
from router.answering.formats.reported_errors import ReportedError, error_in, quoting_words
from router.answering.reading.retry_after import wait_s_of
from router.answering.upstreams.candidate_keys import without_credentials
from router.errors import DispatchError, RouterError

if TYPE_CHECKING:
    from router.answering.upstreams.litellm_call import Call

#: Exceptions by name; an exception counts as the nearest of its classes that is named here.
ERRORS_BY_NAME: Mapping[str, type[DispatchError]] = {
    "AuthenticationError": errors.UpstreamDeniedError,
    "CallerCredentialAuthenticationError": errors.UpstreamDeniedError,
    "PermissionDeniedError": errors.UpstreamDeniedError,
    "PaymentRequiredError": errors.UpstreamDeniedError,
    "BudgetExceededError": errors.UpstreamDeniedError,
    "NotFoundError": errors.UpstreamNotFoundError,
    "LiteLLMUnknownProvider": errors.UpstreamNotFoundError,
    "ModelNotMappedError": errors.UpstreamNotFoundError,
    "RateLimitError": errors.UpstreamRateLimitedError,
    "CallerCredentialRateLimitError": errors.UpstreamRateLimitedError,
    "Timeout": errors.UpstreamTimeoutError,
    "ContextWindowExceededError": errors.UpstreamContextWindowError,
    "ContentPolicyViolationError": errors.UpstreamRejectedError,
    "RejectedRequestError": errors.UpstreamRejectedError,
    "UnsupportedParamsError": errors.UpstreamRejectedError,
    "UnprocessableEntityError": errors.UpstreamRejectedError,
    "MalformedRequestFieldError": errors.UpstreamRejectedError,
    "UnsupportedEndpointError": errors.UpstreamRejectedError,
    "EndpointNotSupportedByModelError": errors.UpstreamRejectedError,
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
    # Errors of the OpenAI SDK, httpx, aiohttp and json. They reach us unwrapped if a stream breaks beneath LiteLLM, or
    # if our own client reads the body.
    "APITimeoutError": errors.UpstreamTimeoutError,
    "TimeoutException": errors.UpstreamTimeoutError,
    "ServerTimeoutError": errors.UpstreamTimeoutError,
    "HTTPError": errors.UpstreamUnavailableError,
    "ClientError": errors.UpstreamUnavailableError,
    # The URL has an impossible host, or a header cannot be sent.
    "InvalidURL": errors.UpstreamNotFoundError,
    "UnsupportedProtocol": errors.UpstreamNotFoundError,
    "JSONDecodeError": errors.UpstreamUnavailableError,
    "UnicodeDecodeError": errors.UpstreamUnavailableError,
}

#: If the exception is only an "API error", the HTTP status says more.
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

#: What a candidate did, by our class of error.
_WHAT_HAPPENED: Mapping[type[DispatchError], str] = {
    errors.UpstreamDeniedError: "does not accept the key",
    errors.UpstreamNotFoundError: "knows no such model, or its URL is wrong",
    errors.UpstreamRateLimitedError: "has too many requests",
    errors.UpstreamTimeoutError: "did not answer in time",
    errors.UpstreamContextWindowError: "cannot read a request that long",
    errors.UpstreamRejectedError: "refused the request",
    DispatchError: "failed",
}

#: OpenAI's code of a request that is longer than the model reads, which others have taken over.
_TOO_LONG = "context_length_exceeded"

#: What is wrong with the router's key or settings is nothing to a caller.
_ABOUT_US = (errors.UpstreamDeniedError, errors.UpstreamNotFoundError)

#: How many characters of a provider's words are passed on.
MAX_WORDS = 500

#: The exceptions that Python raises if a value is not of the shape that is expected.
_MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Problem:
    """Says why a candidate cannot be asked as it is configured, and which of our errors that is."""

    kind: type[errors.UpstreamDeniedError] | type[errors.UpstreamNotFoundError]
    message: str

    def error(self) -> DispatchError:
        """Return the problem as an error that does not count against the provider's circuit breaker."""
        error = self.kind(self.message)
        error.counts = False
        return error


@contextlib.contextmanager
def translated(who: str, call: Call | None = None, problem: Problem | None = None) -> Iterator[None]:
    """Turn exceptions of LiteLLM and of HTTP clients that are raised within this context into our own errors.

    Other exceptions pass, so our own bugs keep their names.

    Args:
        who: the candidate, as messages name it.
        call: how far a call through LiteLLM came, which decides who is at fault. With None the error itself decides.
        problem: what is known to be wrong with the candidate, which then explains its failures.
    """
    try:
        yield
    except RouterError:
        raise
    except Exception as error:
        found = _of_call(who, error, call, problem) if call else _of_libraries(who, error, answered=True)
        if found is error:
            raise
        raise found from error


def _of_libraries(who: str, error: Exception, *, answered: bool, told: ReportedError | None = None) -> Exception:
    """Return our error for one of a library.

    answered: whether an HTTP status that the error has is the provider's; LiteLLM makes one up for each failure.
    told: what the provider's answer reports; None looks for it in the error.
    """
    # LiteLLM wraps the error that broke a stream, and the wrapped one says more.
    said = getattr(error, "original_exception", None) or error
    kind = error_class_of(said) or error_class_of(error)
    if kind is None:
        return error
    told = told or _told_by(said)
    if told is not None and told.code == _TOO_LONG and issubclass(kind, errors.UpstreamRejectedError):
        kind = errors.UpstreamContextWindowError
    status = getattr(said, "status_code", None) if answered else None
    what = next(words for of, words in _WHAT_HAPPENED.items() if issubclass(kind, of))
    if issubclass(kind, errors.UpstreamUnavailableError) and not status:
        what = "could not be reached, or broke off the connection"
    message = f"{who} {what}" + (f", HTTP status {status}." if status else ".")
    words = _words_of(said, told)
    # The provider's words may quote a fragment of our key, so they stay in the exception chain. Only what is wrong with
    # a request is passed on: its sender must learn it, and such words quote at most the request.
    passed = words if issubclass(kind, errors.UpstreamRejectedError) else None
    if passed:
        message += quoting_words(passed)
    found = kind(message, http_status=status, retry_after_s=wait_s_of(said))
    found.provider_words = passed
    _name(found, told)
    found.counts = _counts(found, said, words)
    return found


def of_report(who: str, report: ReportedError, error: Exception) -> DispatchError:
    """Return our error for a report in an answer of status 200, which LiteLLM would classify as `error`.

    Its words are passed on unless they are about the router's key or settings: they were written for whoever reads the
    answer.
    """
    found = _of_libraries(who, error, answered=True)
    found = found if isinstance(found, DispatchError) else errors.UpstreamUnavailableError("")
    _, rest = beginning_and_rest(report.message, MAX_WORDS)
    words = None if isinstance(found, _ABOUT_US) else _cut(report.message) + rest or None
    what = next(what for of, what in _WHAT_HAPPENED.items() if isinstance(found, of))
    message = f"{who} {what}: it sent an error in place of an answer."
    again = type(found)(
        message + quoting_words(words),
        http_status=report.said_status,
        retry_after_s=found.retry_after_s,
    )
    again.counts, again.provider_words = found.counts, words
    _name(again, report)
    return again


def _name(found: DispatchError, told: ReportedError | None) -> None:
    """Give an error the provider's own names, unless it is about the router's key or settings."""
    if told is not None and not isinstance(found, _ABOUT_US):
        found.provider_code, found.provider_param = _named(told.code), _named(told.param)


def _named(name: str | None) -> str | None:
    return None if name is None else without_credentials(name)


def _counts(found: DispatchError, said: BaseException, words: str | None) -> bool:
    """Return whether a failure counts against the candidate's circuit breaker because other requests would fail too."""
    if isinstance(found, errors.UpstreamRejectedError) or type(said).__name__ == "InvalidURL":
        return False
    if found.http_status == 403:
        # Firewalls in front of providers refuse prompts by their words.
        return False
    # "No such file" is about the request, "no such model" and a page of a web server are about the candidate.
    return found.http_status != 404 or words is None or "model" in words.lower()


def wants_a_key(who: str) -> errors.UpstreamDeniedError:
    """Return the error of a candidate that answers 401 and was asked without a key."""
    return errors.UpstreamDeniedError(
        f"{who} wants a key and has none: it names no `api_key_env`, and the usual variable of its provider "
        "(OPENAI_API_KEY, ...) is not set, or not meant for the host in its `api_base`.",
        http_status=401,
    )


def _of_call(who: str, error: Exception, call: Call, problem: Problem | None) -> Exception:
    from router.answering.upstreams.litellm_call import Phase

    if call.refusal is not None:
        return call.refusal
    # Of an answer that it cannot read LiteLLM says that its status was 500.
    is_refused = call.phase is Phase.ANSWERED and not call.is_success
    found = _of_libraries(who, error, answered=is_refused, told=_told_in(bytes(call.error_body)))
    root = root_of(error)
    if call.phase is Phase.ANSWERED:
        if isinstance(found, errors.UpstreamDeniedError):
            if not call.has_key and call.status == 401:
                return wants_a_key(who)
            if problem is not None:
                return problem.kind(problem.message, http_status=call.status)
        return _of_answer(who, found, error, call)
    if call.phase is Phase.REACHED or isinstance(root, OSError):
        return found
    if problem is not None:
        return problem.error()
    is_silent = isinstance(found, errors.UpstreamRejectedError) and found.provider_words is None
    may_pass = errors.UpstreamRejectedError | errors.UpstreamDeniedError | errors.UpstreamTimeoutError
    if isinstance(found, may_pass) and not (is_silent and call.phase is Phase.BUILDING):
        found.counts = False
        return found
    if call.phase is Phase.BUILDING and (is_silent or isinstance(root, _MISSHAPEN) or type(root) is Exception):
        # The words of Python's error may quote the prompt.
        found = errors.UpstreamRejectedError(
            f"{who} cannot be asked this: LiteLLM could not translate messages and parameters for its provider."
        )
    else:
        why = "its URL or a header cannot be sent" if call.phase is Phase.SENDING else "LiteLLM built no request"
        found = errors.UpstreamNotFoundError(f"{who} cannot be asked as it is set up: {why}.")
    found.counts = False
    return found


def _of_answer(who: str, found: Exception, error: Exception, call: Call) -> Exception:
    """Return the error for a call that the provider answered: `found`, unless the status was a success.

    A status of the 200s refuses nothing.
    """
    if not call.is_success:
        return found
    passes = (
        errors.UpstreamContextWindowError,
        errors.UpstreamRateLimitedError,
        errors.UpstreamTimeoutError,
        errors.UpstreamUnavailableError,
    )
    is_misread = type(found) is errors.UpstreamUnavailableError and isinstance(root_of(error), _MISSHAPEN)
    if (isinstance(found, passes) and not is_misread) or type(error).__name__ == "ContentPolicyViolationError":
        return found
    return errors.UpstreamUnavailableError(f"{who} sent an answer that cannot be read.")


def root_of(error: BaseException) -> BaseException:
    """Return the first exception of a chain of causes, of which `error` is the last."""
    seen = {id(error)}
    while (below := error.__cause__ or error.__context__) is not None and id(below) not in seen:
        seen.add(id(below))
        error = below
    return error


def _told_by(error: BaseException) -> ReportedError | None:
    """Return the error that the body of a provider's answer reports, or None if an exception has no such body."""
    for one in (error.__cause__, error):
        text = getattr(getattr(one, "response", None), "text", None)
        if isinstance(text, str) and (told := _told_in(text)) is not None:
            return told
    return None


def _told_in(body: str | bytes) -> ReportedError | None:
    try:
        return error_in(plain_json.loads(body))
    except plain_json.NotPlainJsonError:
        return None


def _words_of(error: BaseException, told: ReportedError | None) -> str | None:
    """Return the provider's own words about a request. For parameters that it does not have, LiteLLM's words."""
    if type(error).__name__ == "UnsupportedParamsError":
        # What follows is for people who run LiteLLM.
        words, _, _ = str(error).partition("To drop these")
        return _cut(words.removeprefix("litellm.UnsupportedParamsError: ").strip())
    return _cut(told.message) or None if told is not None else None


def _cut(words: str) -> str:
    """Return the beginning of a provider's words without our credentials, of which a cut must leave no half."""
    return without_credentials(words[: 4 * MAX_WORDS])[:MAX_WORDS]


def error_class_of(error: BaseException) -> type[DispatchError] | None:
    """Return the class of ours that a library's exception becomes, or None for an exception that no library raises."""
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS_BY_NAME), None)
    if name is None:
        return None
    if name in _VAGUE:
        return ERRORS_BY_STATUS.get(getattr(error, "status_code", None) or 0, ERRORS_BY_NAME[name])
    return ERRORS_BY_NAME[name]
