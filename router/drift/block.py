"""Count what the requests of one period of time were like (`Block`); blocks can be added and written as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.bounded.text import fields_fault
from router.decision import RoutingDecision
from router.drift.signals import SIGNALS, categories_of
from router.errors import ConfigError

#: The most categories that are counted for each signal. Further ones are counted together.
MAX_CATEGORIES = 300

#: The category of whatever does not fit into `MAX_CATEGORIES`.
OTHER = "(other)"


@dataclass(slots=True)
class Block:
    """Holds counts and sums of the requests between two points in time.

    Attributes:
        started, ended: the times of the first and the last request, in seconds since 1970.
        n: the number of requests.
        counts: for each signal the number of requests in each category.
        n_risks: the number of requests whose candidates had risks.
        chosen_risk, strongest_risk: the sums of the risk of the chosen candidate, and of the smallest risk of any
            candidate that was eligible, over those requests.
    """

    started: float = math.inf
    ended: float = -math.inf
    n: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {signal: Counter() for signal in SIGNALS})
    n_risks: int = 0
    chosen_risk: float = 0.0
    strongest_risk: float = 0.0

    def add(self, decision: RoutingDecision, now: float) -> None:
        """Count one decision in every signal. now: seconds since 1970."""
        self.started, self.ended = min(self.started, now), max(self.ended, now)
        self.n += 1
        for signal, category in categories_of(decision).items():
            counts = self.counts[signal]
            counts[category if category in counts or len(counts) < MAX_CATEGORIES else OTHER] += 1
        risks = [one.risk for one in decision.candidates if one.risk is not None and one.eligible]
        chosen = next((one.risk for one in decision.candidates if one.candidate == decision.chosen), None)
        if chosen is not None and risks:
            self.n_risks += 1
            self.chosen_risk += chosen
            self.strongest_risk += min(risks)

    def add_block(self, other: Block) -> None:
        """Add the counts of another block, for example of the next day."""
        self.started, self.ended = min(self.started, other.started), max(self.ended, other.ended)
        for signal, counts in other.counts.items():
            self.counts[signal].update(counts)
        for name in ("n", "n_risks", "chosen_risk", "strongest_risk"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def share(self, signal: str, category: str) -> float | None:
        """Return the share of a category among the requests that have a value in this signal; None if none has."""
        counts = self.counts[signal]
        return counts[category] / counts.total() if counts else None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        plain = {name: getattr(self, name) for name in _NUMBERS}
        return {**plain, "counts": {signal: dict(counts) for signal, counts in self.counts.items()}}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Block:
        """Return the block that `to_json` wrote. Raises ConfigError for anything else."""
        try:
            numbers = {name: kind(plain[name]) for name, kind in _NUMBERS.items()}
            counts = {
                signal: Counter({str(name): int(count) for name, count in plain["counts"].get(signal, {}).items()})
                for signal in SIGNALS
            }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this is no block of drift counts: {fields_fault(error)}.") from error
        if any(count < 0 for signal in counts.values() for count in signal.values()) or numbers["n"] < 0:
            raise ConfigError("a block of drift counts holds a negative number.")
        return cls(**numbers, counts=counts)


_NUMBERS: Mapping[str, type] = {
    "started": float,
    "ended": float,
    "n": int,
    "n_risks": int,
    "chosen_risk": float,
    "strongest_risk": float,
}
