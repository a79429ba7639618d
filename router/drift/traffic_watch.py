"""Watch the traffic of one probe: compare each block of requests with a baseline, and raise alarms (`TrafficWatch`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from probes.bounded.text import fields_fault
from router.decision import RoutingDecision
from router.drift.block import Block
from router.drift.comparison import MixComparison, compare_counts
from router.drift.settings import DriftSettings
from router.drift.signals import SIGNALS
from router.errors import ConfigError

#: The most sessions of the current block that are remembered, so that each counts once.
MAX_SESSIONS = 100_000


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """Says that the traffic of a block differs from the baseline in one signal.

    Attributes:
        signal: the name of the signal, as in `SIGNALS`.
        comparison: how far the two differ.
        at: the end of the block, in seconds since 1970.
    """

    signal: str
    comparison: MixComparison
    at: float

    def __str__(self) -> str:
        text = f"{SIGNALS[self.signal]} changed: total variation distance {self.comparison.distance:.2f}"
        if self.comparison.moved:
            category, before, now = self.comparison.moved
            text += f"; {category!r} was {before:.0%} of the requests and is {now:.0%}"
        return text


@dataclass(slots=True)
class TrafficWatch:
    """Compares each block of requests with the baseline: the first `baseline_blocks` blocks that it has seen.

    Attributes:
        settings: how blocks are formed and when a change is an alarm.
        baseline: the baseline; it is complete once `n_baseline` blocks are in it.
        current: the block that is being filled.
        last: the last complete block; None before the first one.
        alarms: the signals in which the last block differs from the baseline.
        n_blocks: the number of complete blocks.
        n_alarmed: the number of complete blocks that differed from the baseline.
    """

    settings: DriftSettings
    baseline: Block = field(default_factory=Block)
    current: Block = field(default_factory=Block)
    last: Block | None = None
    alarms: tuple[DriftAlarm, ...] = ()
    n_blocks: int = 0
    n_alarmed: int = 0
    #: How far the last block differs from the baseline in each signal; empty before there are both.
    comparisons: dict[str, MixComparison] = field(default_factory=dict)
    _sessions: set[str] = field(default_factory=set)

    @property
    def has_baseline(self) -> bool:
        """Whether the baseline is complete, so that blocks are compared with it."""
        return self.n_blocks >= self.settings.baseline_blocks

    def add(self, decision: RoutingDecision, now: float) -> bool:
        """Count one decision, unless its session has counted in this block. Return whether that completed a block."""
        if session := decision.session_id:
            if session in self._sessions:
                return False
            if len(self._sessions) < MAX_SESSIONS:
                self._sessions.add(session)
        self.current.add(decision, now)
        block = self.current
        if block.n < self.settings.block_requests or now - block.started < self.settings.block_s:
            return False
        self.complete(block)
        return True

    def complete(self, block: Block) -> None:
        """Take a complete block: add it to the baseline, or compare it with the baseline."""
        if self.has_baseline:
            self._compare(block)
            self.n_alarmed += bool(self.alarms)
        else:
            self.baseline.add_block(block)
        self.n_blocks += 1
        self.last, self.current = block, Block()
        self._sessions.clear()

    def _compare(self, block: Block) -> None:
        counts, level = self.baseline.counts, self.settings.level
        self.comparisons = {signal: compare_counts(counts[signal], block.counts[signal]) for signal in SIGNALS}
        self.alarms = tuple(
            DriftAlarm(signal, compared, block.ended)
            for signal, compared in self.comparisons.items()
            if compared.p_value < level and compared.distance >= self.settings.least_distance
        )

    def to_json(self) -> dict[str, Any]:
        """Return what must survive a restart as plain JSON: the baseline and the counts, not the sessions."""
        return {
            "baseline": self.baseline.to_json(),
            "current": self.current.to_json(),
            "last": self.last.to_json() if self.last else None,
            "n_blocks": self.n_blocks,
            "n_alarmed": self.n_alarmed,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], settings: DriftSettings) -> TrafficWatch:
        """Return the watch that `to_json` wrote. Raises ConfigError for anything else."""
        try:
            last = Block.from_json(plain["last"]) if plain["last"] else None
            blocks = Block.from_json(plain["baseline"]), Block.from_json(plain["current"])
            watch = cls(settings, *blocks, last, n_blocks=int(plain["n_blocks"]), n_alarmed=int(plain["n_alarmed"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ConfigError(f"this is no state of a drift watch: {fields_fault(error)}.") from error
        if last is not None and watch.n_blocks > settings.baseline_blocks:
            watch._compare(last)
        return watch
