"""Count the calls that were refused because of who called, and what the callers of each name have used."""

from __future__ import annotations

import enum
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


class DoorName(enum.StrEnum):
    """The doors that callers come in by."""

    GRPC = "grpc"
    HTTP = "http"
    EXT_PROC = "ext_proc"
    ADMIN = "admin"


class Refusal(enum.StrEnum):
    """The reasons for which a call is refused before anybody looks at what it asks, or because of its limits."""

    NO_TOKEN = "no_token"  # noqa: S105  (no token)
    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105
    EXPIRED = "expired"
    REVOKED = "revoked"
    WRONG_SCOPE = "wrong_scope"
    OVER_RATE = "over_rate"
    OVER_STRONG_SHARE = "over_strong_share"
    OVER_BUDGET = "over_budget"
    OVERSIZED = "oversized"


class RefusalCounts:
    """Counts the calls that were refused, by door and by reason. It is thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[DoorName, Refusal]] = Counter()

    def add(self, door: DoorName, reason: Refusal) -> None:
        """Count one refused call."""
        with self._lock:
            self._counts[door, reason] += 1

    def snapshot(self) -> Mapping[tuple[DoorName, Refusal], int]:
        """Return the numbers so far, for every door and every reason, those without a refusal too."""
        with self._lock:
            return {(door, reason): self._counts[door, reason] for door in DoorName for reason in Refusal}


@dataclass(slots=True)
class CallerFigures:
    """What the callers of one label have used since the process began.

    Attributes:
        decided, strong: the decisions, and those that went above the cheapest candidate that could answer.
        usd: the US dollars that their answers have cost. It never falls: what turns out to have cost less than was
            thought is made up for by what is spent later.
    """

    decided: int = 0
    strong: int = 0
    usd: float = 0.0
    _spent: float = field(default=0.0, compare=False, repr=False)

    def spend(self, usd: float) -> None:
        """Count money; a number below zero corrects what was counted before."""
        self._spent += usd
        self.usd = max(self.usd, self._spent)
