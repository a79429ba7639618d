"""Define what an observer of the service is told (`Observer`), and tell several observers at once (`Observers`).

Router and dispatcher call observers on the path of a request, in the event loop. An observer must therefore return
within microseconds, and it must not change the event. One that has more to do is told later (`DeferredObserver`).
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np

    from router.attempts import Attempt
    from router.decision import ArtifactRef, RoutingDecision
    from router.errors import RouterError
    from router.observing.cost_comparison import CostComparison
    from router.values import HeldCandidate, RouteQuery

log = logging.getLogger(__name__)

Event = TypeVar("Event")
Found = TypeVar("Found")

#: The events that wait for a `DeferredObserver`; more are dropped. Seconds between two times at which it tells them.
MOST_WAITING, TELL_S = 10_000, 0.1

#: Seconds that the end of a service waits for an observer that cannot go on, such as one that writes into a full pipe.
_END_S = 1.0


@dataclass(frozen=True, slots=True)
class DecidedEvent:
    """Says that a request was decided.

    Attributes:
        query: the request. It holds the prompt, which no observer may store or log unless the user turned that on.
        decision: the decision record.
        caller: the opaque key of whoever calls; empty if the request has no credential.
        features: the features of the prompt, shape (n_features,), float32; None if the prompt was not encoded, because
            it needed no judgement or had been judged before.
        held: the candidate that answered the session last; None without a session or for a new one.
        costs: what the decision costs, and what always asking one tier would cost; None if a price is not known.
        text: the part of the prompt that is judged. What is said of `query` holds for it too.
        in_tool_loop: True if the request goes on with calls of tools.
        encoder: the identity of the encoder that made the features; empty if there are none.
        at: when it was decided, in seconds since 1970.
    """

    query: RouteQuery
    decision: RoutingDecision
    caller: str
    features: np.ndarray | None
    held: HeldCandidate | None = None
    costs: CostComparison | None = None
    text: str = ""
    in_tool_loop: bool = False
    encoder: str = ""
    at: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """Says that a request was not decided.

    Attributes:
        policy: the name of the policy that was asked for; empty for the default policy, and if there is no such policy.
        caller: as in `DecidedEvent`.
        error: why; its class has the status and the reason that the caller gets.
        at: when it was refused, in seconds since 1970.
    """

    policy: str
    caller: str
    error: RouterError
    at: float = field(default_factory=time.time, compare=False)


class AnswerOutcome(enum.StrEnum):
    """The ways in which the answer of a decided request can end."""

    #: The caller got the whole answer.
    ANSWERED = "answered"
    #: No candidate answered, or the answer broke off.
    FAILED = "failed"
    #: The caller went away before the end of the answer.
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class AnsweredEvent:
    """Says how the answer of a decided request ended.

    Attributes:
        decision: the decision record.
        outcome: how it ended.
        answered_by: the candidate that answered; empty if none did.
        attempts: everything that was tried, oldest first.
        total_s: seconds from the decision to the end of the answer.
        first_content_s: seconds from the decision to the first content of a stream; None if the answer came whole, or
            did not come.
        input_tokens, output_tokens: as the provider counted them; None if it did not say.
        cost_usd: the cost at the policy's prices; None if usage or prices are not known.
        error: why no candidate answered; None unless the outcome is `FAILED`.
        at: when it ended, in seconds since 1970.
    """

    decision: RoutingDecision
    outcome: AnswerOutcome
    answered_by: str
    attempts: tuple[Attempt, ...]
    total_s: float
    first_content_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    error: BaseException | None = None
    at: float = field(default_factory=time.time, compare=False)


@dataclass(frozen=True, slots=True)
class SettledEvent:
    """Says what an answer used that was given in the background, which is known only when somebody fetches it.

    Attributes:
        decision_id: the id of its decision.
        policy: the policy of the candidate, as it is served now.
        answered_by: the candidate that answered.
        outcome: how the answer ended.
        input_tokens, output_tokens, cost_usd: as in `AnsweredEvent`.
        charged_usd: the cost that was assumed until now.
        at: when it was fetched, in seconds since 1970.
    """

    decision_id: str
    policy: ArtifactRef
    answered_by: str
    outcome: AnswerOutcome
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    charged_usd: float
    at: float = field(default_factory=time.time, compare=False)


class Observer:
    """Is told what the service decides and what comes of it. One that overrides a method does something about that."""

    def decided(self, event: DecidedEvent) -> None:
        """Note that a request was decided."""

    def refused(self, event: RefusedEvent) -> None:
        """Note that a request was refused before it was decided."""

    def answered(self, event: AnsweredEvent) -> None:
        """Note that the answer of a decided request ended, well or badly."""

    def settled(self, event: SettledEvent) -> None:
        """Note what an answer used that had been given in the background. Any thread may call this."""


class Observers:
    """Tells several observers, one after the other. One that fails is logged, and the request and the others go on."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def plus(self, *observers: Observer) -> Observers:
        """Return observers that tell these ones, and the given ones after them."""
        return Observers(*self._observers, *observers)

    def decided(self, event: DecidedEvent) -> None:
        """Tell every observer that a request was decided."""
        for observer in self._observers:
            _tell(observer.decided, event)

    def refused(self, event: RefusedEvent) -> None:
        """Tell every observer that a request was refused."""
        for observer in self._observers:
            _tell(observer.refused, event)

    def answered(self, event: AnsweredEvent) -> None:
        """Tell every observer that the answer of a request ended."""
        for observer in self._observers:
            _tell(observer.answered, event)

    def settled(self, event: SettledEvent) -> None:
        """Tell every observer what an answer used that had been given in the background."""
        for observer in self._observers:
            _tell(observer.settled, event)


#: Tells nobody.
NO_OBSERVERS = Observers()


def _tell(method: Callable[[Event], None], event: Event) -> None:
    # An observer is no part of the answer: whatever goes wrong in it is its own bug, and no caller may pay for it.
    try:
        method(event)
    except Exception:
        log.exception("an observer failed; the request goes on")


class DeferredObserver(Observer):
    """Takes events at once, and tells other observers of them a moment later, many in a row, in a thread of its own.

    No request waits for what they do, and in a row each event takes them a fraction of the time that it takes between
    two requests, when the processor's caches hold other things. If too many events wait, further ones are dropped, and
    a warning says how many. Use it as a context; at its end everybody is told what still waits.

    Args:
        observers: whom it tells.
        name: what they do, as the name of the thread and in warnings, such as `metrics`.
        finish: is called each time when everybody was told.
    """

    def __init__(self, *observers: Observer, name: str, finish: Callable[[], None] = lambda: None) -> None:
        self._observers = Observers(*observers)
        self._name, self._finish = name, finish
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._n_dropped = 0
        self._telling, self._ends = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def decided(self, event: DecidedEvent) -> None:
        """Let a decision wait until the observers are told."""
        self._put(self._observers.decided, event)

    def refused(self, event: RefusedEvent) -> None:
        """Let a refusal wait until the observers are told."""
        self._put(self._observers.refused, event)

    def answered(self, event: AnsweredEvent) -> None:
        """Let the end of an answer wait until the observers are told."""
        self._put(self._observers.answered, event)

    def settled(self, event: SettledEvent) -> None:
        """Let what an answer used wait until the observers are told."""
        self._put(self._observers.settled, event)

    def tell(self) -> None:
        """Tell the observers everything that waits now."""
        self.read(lambda: None)

    def read(self, read: Callable[[], Found]) -> Found:
        """Tell the observers everything that waits now, and return what `read` returns while nobody is told more."""
        with self._telling:
            for _ in range(len(self._waiting)):
                tell, event = self._waiting.popleft()
                tell(event)
            self._finish()
            found = read()
        dropped, self._n_dropped = self._n_dropped, 0
        if dropped:
            log.warning("%s: %d events were dropped, because they came faster than they were used", self._name, dropped)
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(_END_S)

    def _put(self, tell: Callable[[Event], None], event: Event) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append((tell, event))
        else:
            self._n_dropped += 1

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._ends.wait(TELL_S)
            self.tell()
