"""Read how long a provider asks to wait, out of the headers of its answer (`wait_s_of`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

#: Headers in which an upstream says when to come back.
WAIT_HEADERS = frozenset({"retry-after", "retry-after-ms"})

#: Most characters of a header of an upstream that is read or passed on.
_MOST_CHARACTERS = 200

#: The longest Retry-After that is believed.
MAX_RETRY_AFTER_S = 600.0


def wait_s_of(error: BaseException) -> float | None:
    """Return how many seconds an error of an HTTP library says to wait, by the headers of its answer, or None."""
    headers = getattr(error, "litellm_response_headers", None)
    if headers is None:
        headers = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    exactly, value = headers.get("retry-after-ms"), headers.get("retry-after")
    if isinstance(exactly, str) and (milliseconds := retry_after_s(exactly, datetime.now(UTC), most_s=1e6)) is not None:
        return min(milliseconds / 1000, MAX_RETRY_AFTER_S)
    return retry_after_s(value, datetime.now(UTC)) if isinstance(value, str) else None


def retry_after_s(value: str, now: datetime, *, most_s: float = MAX_RETRY_AFTER_S) -> float | None:
    """Return how many seconds, at most `most_s`, a Retry-After header asks to wait, or None if it is invalid."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), most_s) if math.isfinite(seconds) else None


def is_plain_header(value: str) -> bool:
    """Return whether a text is short and plain ASCII, so that every HTTP library takes it as the value of a header."""
    return len(value) <= _MOST_CHARACTERS and value.isascii() and value.isprintable()
