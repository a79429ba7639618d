"""Choose the rows that a fit leaves out for `elle tune`, which are the latest ones or a share drawn by hash."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from router.tuning.outcomes.datasets import Outcomes
from router.tuning.outcomes.holdout import Holdout, left_out
from router.tuning.outcomes.outcome_rows import TIME_COLUMNS

_FORM = re.compile(r"latest:(\d+(?:\.\d+)?)(%?)")


@dataclass(frozen=True)
class LatestPrompts:
    """Says which prompts are the latest of the data, and from what time on.

    Attributes:
        rows: (n,) True for the prompts held out.
        since, until: times of the first and of the last of them, UTC.
        n_without_time: prompts whose time is missing or cannot be read; these are not held out.
    """

    rows: npt.NDArray[np.bool_]
    since: datetime
    until: datetime
    n_without_time: int


def parse_latest(text: str) -> float:
    """Return the share in `latest:20%` or `latest:0.2`, strictly between 0 and 1. Raises DataError for other texts."""
    found = _FORM.fullmatch(text.strip())
    share = float(found[1]) / (100.0 if found[2] else 1.0) if found else 0.0
    if not 0.0 < share < 1.0:
        raise DataError(f"--holdout must be latest:SHARE, as in latest:20% or latest:0.2; got {text!r}.")
    return share


def latest_prompts(outcomes: Outcomes, share: float) -> LatestPrompts:
    """Return the latest `share`, 0 to 1, of the prompts that have a time; ties at its border are included.

    Raises DataError if fewer than two prompts have a time, or if all have the same.
    """
    times = outcomes.times
    known = np.isfinite(times)
    if known.sum() >= 2 and np.ptp(times[known]) == 0.0:
        only = datetime.fromtimestamp(float(times[known][0]), UTC)
        raise DataError(
            f"holding out the latest needs prompts of different times; all {int(known.sum()):,} that have a time have "
            f"the same, {only:%Y-%m-%d %H:%M:%S} UTC. Hold out a share drawn by hash instead, as in --holdout 0.2, or "
            "give the times at which the prompts were asked."
        )
    if known.sum() < 2:
        raise DataError(
            "holding out the latest needs prompts of different times (ISO 8601, or seconds since 1970, in one of the "
            f"columns {', '.join(TIME_COLUMNS)}); {int(known.sum()):,} of {len(outcomes):,} have one. Rename the "
            "column that holds the times; `elle evaluate` can also name it with --time-column."
        )
    border = np.sort(times[known])[-max(1, round(share * int(known.sum())))]
    rows = known & (times >= border)
    since, until = (datetime.fromtimestamp(float(edge), UTC) for edge in (border, times[known].max()))
    return LatestPrompts(rows, since, until, int((~known).sum()))


def choose_holdout(outcomes: Outcomes, text: str, seed: int) -> tuple[npt.NDArray[np.bool_], Holdout]:
    """Return which rows the option `--holdout` leaves out, (n,), and a record of it for the model card.

    text: a share drawn by hash, as `0.4`, or the latest prompts, as `latest:20%`. Raises DataError for other texts.
    """
    data = tuple(source.sha256 for source in outcomes.sources)
    if ":" in text:
        share = parse_latest(text)
        latest = latest_prompts(outcomes, share)
        return latest.rows, Holdout(share, seed, data, latest.since.timestamp())
    try:
        share = float(text)
    except ValueError as error:
        raise DataError(f"--holdout must be a share, as in 0.4, or latest:SHARE; got {text!r}.") from error
    return left_out(outcomes, share, seed), Holdout(share, seed, data)
