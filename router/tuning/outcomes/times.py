"""Read times in the forms in which people and programs write them, as seconds since 1970."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time
from typing import Any

from router.tuning.outcomes.records import number_of

#: A text such as `20260131` is a date, and not a number of seconds.
_BARE_DATE = re.compile(r"(19|20)\d{6}")


def seconds_of(value: Any) -> float:
    """Return a time as seconds since 1970, UTC; NaN if it cannot be read.

    It may be a date or a time, an ISO 8601 text (UTC if it names no zone), or a number since 1970 in seconds,
    milliseconds, microseconds or nanoseconds, which are told apart by their size.
    """
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC).timestamp()
    number = None if isinstance(value, str) and _BARE_DATE.fullmatch(value.strip()) else number_of(value)
    if number is not None:
        return _since_1970(number)
    try:
        return seconds_of(datetime.fromisoformat(value.strip())) if isinstance(value, str) else math.nan
    except ValueError:
        return math.nan


def _since_1970(number: float) -> float:
    if not math.isfinite(number) or number <= 0:
        return math.nan
    # 1e11 seconds are the year 5138, and 1e11 milliseconds are 1973, so that larger numbers have a smaller unit.
    while number > 1e11:
        number /= 1000.0
    return number
