"""Hold out by time: which prompts are the latest share of the data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from router.tuning.outcomes.datasets import TIME_COLUMNS, Outcomes

_FORM = re.compile(r"latest:(\d+(?:\.\d+)?)(%?)")


@dataclass(frozen=True)
class Latest:
    """The latest prompts of the data.

    Attributes:
        rows: (n,) True for the prompts held out.
        since, until: times of the first and the last of them, UTC.
        n_without_time: prompts whose time is missing or cannot be read; they are not held out.
    """

    rows: npt.NDArray[np.bool_]
    since: datetime
    until: datetime
    n_without_time: int


def parse_latest(text: str) -> float:
    """The share in `latest:20%` or `latest:0.2`, strictly between 0 and 1. Raises DataError."""
    found = _FORM.fullmatch(text.strip())
    share = float(found[1]) / (100.0 if found[2] else 1.0) if found else 0.0
    if not 0.0 < share < 1.0:
        raise DataError(f"--holdout must be latest:SHARE, as in latest:20% or latest:0.2; got {text!r}.")
    return share


def latest(outcomes: Outcomes, share: float) -> Latest:
    """The latest `share` of the prompts that have a time; ties at its border are held out with the others.

    Raises DataError where fewer than two prompts have a time, or where all have the same.
    """
    times = outcomes.times
    known = np.isfinite(times)
    if known.sum() < 2 or np.ptp(times[known]) == 0.0:
        raise DataError(
            "holding out the latest needs prompts of different times (ISO 8601, or seconds since 1970, in one of the "
            f"columns {', '.join(TIME_COLUMNS)}); {int(known.sum()):,} of {len(outcomes):,} have one. Rename the "
            "column, or name it with --time-column of `elle evaluate`."
        )
    border = np.sort(times[known])[-max(1, round(share * int(known.sum())))]
    rows = known & (times >= border)
    since, until = (datetime.fromtimestamp(float(edge), UTC) for edge in (border, times[known].max()))
    return Latest(rows, since, until, int((~known).sum()))
