"""Hold what fills up steadily up to a bound, and from which several processes take (`Bucket`, `Credit`)."""

from __future__ import annotations


class Bucket:
    """Fills up steadily with permissions, up to a number, and gives them out one by one (a token bucket)."""

    def __init__(self, rate_per_s: float, capacity: float, now: float) -> None:
        self._rate, self._capacity = rate_per_s, max(1.0, capacity)
        self._level, self._at = self._capacity, now
        self._spilled = 0.0

    def wait_s(self, now: float) -> float:
        """Return the seconds until there is a permission; 0 if there is one."""
        level = self._level + (now - self._at) * self._rate
        self._spilled += max(0.0, level - self._capacity)
        self._level = min(self._capacity, level)
        self._at = now
        return 0.0 if self._level >= 1 - 1e-9 else (1 - self._level) / self._rate

    def take(self) -> None:
        """Take one permission, which must be there."""
        self._level -= 1

    def take_elsewhere(self, n: float, now: float) -> None:
        """Take what others took since the last call: first what did not fit into the bucket meanwhile."""
        self.wait_s(now)
        self._level -= max(0.0, n - self._spilled)
        self._spilled = 0.0


class Credit:
    """Grows by a share with each decision, up to a number, and shrinks by one with each strong decision.

    Args:
        share: what each decision earns, 0 to 1; with a share of 0 there is never any credit.
        most: the most credit, with which it begins.
    """

    def __init__(self, share: float, most: float) -> None:
        self._share, self._most = share, float(most) if share else 0.0
        self._level, self._spilled = self._most, 0.0

    @property
    def is_enough(self) -> bool:
        """Return whether one more strong decision may be made."""
        return self._level >= 1 - 1e-9

    def count(self, *, strong: bool) -> None:
        """Add what a decision earns, and take what a strong one costs."""
        self._add(self._share - strong)

    def count_elsewhere(self, decided: int, strong: int) -> None:
        """Count what others decided since the last call. What was earned here beyond the most pays for it first."""
        credit = self._share * decided - strong
        self._add(credit + min(self._spilled, max(0.0, -credit)))
        self._spilled = 0.0

    def _add(self, credit: float) -> None:
        level = self._level + credit
        self._spilled += max(0.0, level - self._most)
        self._level = min(self._most, level)
