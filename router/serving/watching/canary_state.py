"""Say how the canary of a service does (`canary_state`), for those who show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.rollout.canary_file import read_canary
from router.times import utc_text


def canary_state(path: Path | None) -> dict[str, Any] | None:
    """Return the state of the canary in a file as plain values, or `{"error": ...}`; None if none is followed."""
    if path is None:
        return None
    try:
        found = read_canary(path)
    except ConfigError as error:
        return {"error": str(error)}
    last = found.trail[-1] if found.trail else {}
    at = last.get("at")
    return {
        **found.canary.figures(),
        "why": str(last.get("why", "")),
        "at": utc_text(at) if isinstance(at, int | float) else "",
    }
