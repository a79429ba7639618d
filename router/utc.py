"""Write times as text in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_text(at_s: float, between: str = "T", *, timespec: str = "seconds") -> str:
    """Return a time, in seconds since 1970, as in `2026-11-29T18:00:00+00:00`.

    between: what stands between the day and the time of day. timespec: how exact the text is, as `isoformat` names it.
    """
    return datetime.fromtimestamp(at_s, UTC).isoformat(between, timespec)
