"""Circuit breakers decide whether an upstream may be asked now or is left alone after failures.

There is one for each upstream.

    CLOSED     --`break_after` failures in a row, or a call of `rest`--> OPEN
    OPEN       --the cool-down is over--> HALF_OPEN, in which one request tries the upstream
    HALF_OPEN  --the upstream begins to answer--> CLOSED
    HALF_OPEN  --the request fails--> OPEN

After HALF_OPEN, one failure opens the breaker again until an answer has been completed.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

Clock = Callable[[], float]


class State(enum.Enum):
    """The three states of a circuit breaker: CLOSED asks, OPEN does not ask, and HALF_OPEN tries one request."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half open"


class Breaker:
    """Decides from recent failures whether one upstream may be asked.

    It is not thread-safe: it belongs to one event loop.

    Args:
        break_after: the number of failures in a row that open the breaker.
        cooldown_s: the seconds for which it then stays open.
        clock: a monotonic clock in seconds.
    """

    def __init__(self, *, break_after: int, cooldown_s: float, clock: Clock) -> None:
        self._break_after = break_after
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0
        self._state = State.CLOSED
        self._because: Exception | None = None

    @property
    def because(self) -> Exception | None:
        """The error that opened the breaker. It is None after failures in a row, because then no single error did."""
        return self._because

    @property
    def state(self) -> State:
        """The state that the last request or failure led to. OPEN becomes HALF_OPEN only when somebody asks."""
        return self._state

    @property
    def retry_after_s(self) -> float:
        """Seconds until the upstream may be asked again; 0 if it may be asked now."""
        return max(0.0, self._open_until - self._clock()) if self._state is State.OPEN else 0.0

    def admit(self) -> Permit | None:
        """Return a permit to ask once, or None if the breaker is open or another request already tries the upstream."""
        if self._state is State.OPEN and self._clock() >= self._open_until:
            self._state = State.HALF_OPEN
            return Permit(self, trial=True)
        return Permit(self, trial=False) if self._state is State.CLOSED else None

    def _rest(self, seconds: float, because: Exception | None = None) -> None:
        self._state, self._failures, self._because = State.OPEN, 0, because
        self._open_until = max(self._open_until, self._clock() + seconds)

    def _failed(self, *, trial: bool) -> None:
        # A late failure of a request that was let in before the breaker opened says nothing new.
        if not trial and self._state is not State.CLOSED:
            return
        self._failures += 1
        if trial or self._failures >= self._break_after:
            self._rest(self._cooldown_s)

    def _answering(self, *, trial: bool) -> None:
        if trial:
            self._state, self._failures = State.CLOSED, self._break_after - 1

    def _succeeded(self, *, trial: bool) -> None:
        if trial or self._state is State.CLOSED:
            self._state, self._failures = State.CLOSED, 0

    def _left(self, *, trial: bool) -> None:
        # The caller of the request that tried has gone, so nothing is known. The next request may try at once.
        if trial and self._state is State.HALF_OPEN:
            self._state, self._open_until = State.OPEN, self._clock()


class Permit:
    """Allows one request to ask an upstream once, and reports to the breaker how that ended.

    Only the first result that is reported counts.

    If it is closed without a result, because the caller went away, the breaker learns nothing.
    """

    def __init__(self, breaker: Breaker, *, trial: bool) -> None:
        self._breaker = breaker
        self._trial = trial
        self._open = True

    def close(self) -> None:
        """Give the permit back without a result. This has no effect after a result."""
        if self._settle():
            self._breaker._left(trial=self._trial)

    def answering(self) -> None:
        """Report that the first content of an answer has arrived. The result follows at the end of the answer."""
        self._breaker._answering(trial=self._trial)
        self._trial = False

    def succeeded(self) -> None:
        """Report that the upstream works, even if it has refused the request."""
        if self._settle():
            self._breaker._succeeded(trial=self._trial)

    def failed(self) -> None:
        """Report that the upstream failed. Several in a row open the breaker."""
        if self._settle():
            self._breaker._failed(trial=self._trial)

    def rest(self, seconds: float | None = None, *, because: Exception | None = None) -> None:
        """Open the breaker, so that the upstream is not asked for `seconds`, by default for the cool-down.

        because: the error that is the reason.
        """
        if self._settle():
            self._breaker._rest(self._breaker._cooldown_s if seconds is None else seconds, because)

    def _settle(self) -> bool:
        was_open, self._open = self._open, False
        return was_open
