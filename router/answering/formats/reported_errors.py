"""Find the error that a provider reports in the body of an answer or of an event, in every API format (`error_in`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from router.answering.reading.retry_after import WAIT_HEADERS, is_plain_header
from router.plain_json import whole_text

#: The `finish_reason` of a choice that ended in an error, as OpenRouter sends it, also in an answer of status 200.
_FAILED_CHOICE = "error"

#: The event of a response that failed, and the status of a whole one.
_FAILED_EVENT, _FAILED_STATUS = "response.failed", "failed"

#: The HTTP status that providers send with these values of `code` and `type`. Any other error is the provider's own.
_STATUS_OF: Mapping[str, int] = {
    **dict.fromkeys(("context_length_exceeded", "content_filter", "content_policy_violation", "invalid_prompt"), 400),
    **dict.fromkeys(("invalid_request_error", "invalid_request", "bad_request", "unsupported_parameter"), 400),
    **dict.fromkeys(("authentication_error", "invalid_api_key", "unauthorized"), 401),
    "billing_error": 402,
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "model_not_found"), 404),
    "request_too_large": 413,
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "insufficient_quota", "resource_exhausted"), 429),
    "too_many_requests": 429,
    "overloaded_error": 529,
}
_OTHER_STATUS = 500

#: Most characters of a provider's `code` or `param` that are believed to be one.
_MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class ReportedError:
    """Holds an error as a provider reports it.

    Attributes:
        message: its words; empty if it has none.
        code: its name for machines, such as `context_length_exceeded`; None if there is none.
        param: the field of the request at fault; None if none is named.
        said_status: the HTTP status that the report itself names; None if it names none.
        status: that status, or else the one with which providers send such errors.
        waits: the headers in the report that say when to come back, with names in lower case.
    """

    message: str
    code: str | None
    param: str | None
    said_status: int | None
    status: int
    waits: Mapping[str, str]


def error_in(body: Any) -> ReportedError | None:
    """Return the error that an answer, an event or the body of an HTTP error reports, or None if it reports none.

    The shapes are those of OpenAI, Anthropic, OpenRouter, vLLM and Ollama, which do not contradict each other.
    """
    if not isinstance(body, Mapping):
        return None
    said = _said(body)
    return None if said is None else _report({"message": said} if isinstance(said, str) else said)


def quoting_words(words: str | None) -> str:
    """Return a sentence with a provider's words, for the end of a message; empty if there are none."""
    return f" It says: {words}" + ("" if words.endswith((".", "!", "?")) else ".") if words else ""


def as_reported(value: Any) -> Any:
    """Return the data of an event that is called an error in a shape in which `error_in` finds the error."""
    return value if error_in(value) is not None else {"error": value or {"message": ""}}


def _said(body: Mapping[str, Any]) -> Mapping[str, Any] | str | None:
    """Return the error object of a body, or the error's words, or an empty object; None if the body is no error."""
    response = body.get("response")
    for holder in (body, response):
        found = holder.get("error") if isinstance(holder, Mapping) else None
        if found:
            return found if isinstance(found, Mapping | str) else {}
    if _FAILED_CHOICE in (body.get("type"), body.get("object")):
        return body
    if body.get("type") == _FAILED_EVENT or (body.get("object") == "response" and body.get("status") == _FAILED_STATUS):
        return {}
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, Mapping) and choice.get("finish_reason") == _FAILED_CHOICE:
            told = choice.get("error")
            return told if isinstance(told, Mapping | str) else {}
    return None


def _report(said: Mapping[str, Any]) -> ReportedError:
    message, code, kind = said.get("message"), said.get("code"), said.get("type")
    numbers = (_as_status(said.get(name)) for name in ("code", "status", "status_code"))
    said_status = next((number for number in numbers if number is not None), None)
    guessed = [_STATUS_OF.get(word.lower()) for word in (code, kind) if isinstance(word, str)]
    status = next((one for one in (said_status, *guessed) if one is not None), _OTHER_STATUS)
    return ReportedError(
        message=whole_text(message) if isinstance(message, str) else "",
        code=_as_name(code),
        param=_as_name(said.get("param")),
        said_status=said_status,
        status=status,
        waits=_waits(said),
    )


def _as_status(value: Any) -> int | None:
    """Return an HTTP status of an error, or None for anything else."""
    number = (
        int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) == 3 else value
    )
    is_status = isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600
    return number if is_status else None


def _as_name(value: Any) -> str | None:
    """Return a short text that is no number, or None. Some providers repeat the HTTP status as the code."""
    is_name = isinstance(value, str) and 0 < len(value) <= _MOST_CHARACTERS and not value.isdecimal()
    return value if is_name and value.isprintable() else None


def _waits(said: Mapping[str, Any]) -> dict[str, str]:
    """Return when to come back, from fields of the error or from the headers that OpenRouter keeps in `metadata`."""
    metadata = said.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    headers = metadata.get("headers")
    found: dict[str, str] = {}
    for holder in (said, metadata, headers if isinstance(headers, Mapping) else {}):
        for name, value in holder.items():
            header = str(name).lower().replace("_", "-")
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if header in WAIT_HEADERS and (is_number or (isinstance(value, str) and is_plain_header(value))):
                found[header] = str(value)
    return found
