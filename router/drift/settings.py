"""Say how blocks of traffic are formed and when a change is an alarm (`DriftSettings`). It needs no numerics."""

from __future__ import annotations

from dataclasses import dataclass

from router.drift.signals import SIGNALS


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """Says how blocks are formed and when a change is an alarm.

    Attributes:
        block_s: the shortest block in seconds. A day, because a traffic's hours differ from each other every day.
        block_requests: the smallest block in requests.
        baseline_blocks: the number of blocks that form the baseline. A week of days, because weekends differ.
        least_distance: a smaller distance is no alarm, however sure it is: it would change no decision of anybody.
        false_alarms_per_month: the chance of any alarm in 31 blocks of unchanged traffic.
    """

    block_s: float = 86_400.0
    block_requests: int = 1_000
    baseline_blocks: int = 7
    least_distance: float = 0.1
    false_alarms_per_month: float = 0.01

    @property
    def level(self) -> float:
        """The level of one test of one signal in one block (Bonferroni over the signals and the blocks of a month)."""
        return self.false_alarms_per_month / (31 * len(SIGNALS))
