"""Times as people write them, as seconds since 1970."""

from __future__ import annotations

import math
import re
from datetime import UTC, date, datetime, time
from typing import Any

from router.tuning.outcomes.records import number_of

#: `20260131` is a date and no number.
_BARE_DATE = re.compile(r"(19|20)\d{6}")


def seconds_of(value: Any) -> float:
    """A time as seconds since 1970, UTC, NaN where it cannot be read.

    Read are dates and times, ISO 8601 texts (without a zone they count as UTC), and numbers since 1970 in seconds,
    milliseconds, microseconds or nanoseconds, told apart by their size.
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
    # 1e11 seconds are the year 5138, and 1e11 milliseconds 1973.
    while number > 1e11:
        number /= 1000.0
    return number
