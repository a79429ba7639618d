"""Draw the rows that a fit leaves out for `elle tune` to certify with; every run draws the same, by hash."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from probes.errors import DataError
from probes.probe import DifficultyProbe, ProbeCard
from router.tuning.outcomes.datasets import Outcomes

BoolArray = npt.NDArray[np.bool_]

#: The key under which the model card records the holdout of a fit.
_CARD_KEY = "holdout"


def left_out(outcomes: Outcomes, share: float, seed: int = 0) -> BoolArray:
    """Return which rows are left out to certify with, (n,): about `share` of them.

    Rows are drawn and not texts, because a row is a draw of the traffic: a prompt that is 30 % of the rows is about
    30 % of those left out. The choice depends only on `share`, `seed` and the row: its id, its text and how many rows
    before it have both. Rows that were chosen because their label teaches much are no draws of the traffic, and none of
    them is left out. Therefore a larger share leaves out the same rows and more, and rows that are added to the data
    change nothing for the old ones. Raises DataError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise DataError(f"the share to hold out must be 0 or more and below 1, got {share}; 0.4 is a good choice.")
    chosen = np.array([_position(key, seed) < share for key in row_keys(outcomes)], dtype=np.bool_)
    return chosen & ~outcomes.informative if outcomes.informative.size else chosen


def row_keys(outcomes: Outcomes) -> list[str]:
    """Return a key for each row that does not depend on outcomes: id, text, and how many rows before it have both."""
    met: Counter[tuple[str, str]] = Counter()
    keys = []
    for pair in zip(outcomes.ids, outcomes.texts, strict=True):
        keys.append(f"{met[pair]}\0{pair[0]}\0{pair[1]}")
        met[pair] += 1
    return keys


def rows_to_fit(outcomes: Outcomes, held_out: BoolArray) -> BoolArray:
    """Return which rows the fit may use, (n,): those whose text is not the text of a row that is held out.

    The fit then knows no text that the certificate rests on, and the rows held out remain draws of the whole traffic.
    A row that is neither held out nor used for the fit repeats a text that is held out.
    """
    kept_back = {text for text, out in zip(outcomes.texts, held_out, strict=True) if out}
    return np.array([text not in kept_back for text in outcomes.texts], dtype=np.bool_)


@dataclass(frozen=True)
class Holdout:
    """Records how a fit left rows out, as its model card states it.

    Attributes:
        share, seed: arguments of `left_out`.
        data: SHA-256 of each file that was split.
        since: if the latest rows were left out, the time of the first of them in seconds since 1970; else None.
    """

    share: float
    seed: int
    data: tuple[str, ...]
    since: float | None = None

    def rows(self, outcomes: Outcomes) -> BoolArray:
        """Return which rows of the outcomes were left out, (n,)."""
        if self.since is None:
            return left_out(outcomes, self.share, self.seed)
        times = outcomes.times if outcomes.times.size else np.full(len(outcomes), np.nan)
        return np.asarray(times >= self.since, dtype=np.bool_)

    def recorded_in(self, probe: DifficultyProbe) -> DifficultyProbe:
        """Return the probe with this holdout on its card."""
        since = {} if self.since is None else {"since": self.since}
        entry = {_CARD_KEY: {"share": self.share, "seed": self.seed, "data": list(self.data), **since}}
        return replace(probe, card=replace(probe.card, metrics={**probe.card.metrics, **entry}))

    @classmethod
    def of_card(cls, card: ProbeCard) -> Holdout | None:
        """Return the holdout that a card records, or None if the fit left nothing out."""
        match card.metrics.get(_CARD_KEY):
            case {"share": float(share), "seed": int(seed), "data": list(data), "since": float(since)}:
                return cls(share, seed, tuple(map(str, data)), since)
            case {"share": float(share), "seed": int(seed), "data": list(data)}:
                return cls(share, seed, tuple(map(str, data)))
        return None

    def is_of(self, outcomes: Outcomes) -> bool:
        """Return whether any file of the outcomes is one of those that were split."""
        return any(source.sha256 in self.data for source in outcomes.sources)


def _position(key: str, seed: int) -> float:
    """Return a number in [0, 1) that depends only on the row's key and the seed."""
    digest = hashlib.blake2b(key.encode(), digest_size=8, key=f"holdout-{seed}".encode()).digest()
    return int.from_bytes(digest) / 2**64
