"""Watch one answer from the decision to its end, and tell the observers how it ended (`watched`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

from router.answering.completion import Completion, Usage
from router.attempts import Delivery
from router.decision import RoutingDecision
from router.errors import DispatchError
from router.observing.observer import AnsweredEvent, AnswerOutcome, Observers


class AnswerWatch:
    """Notes the steps of one answer: who gave it, when its first content came, and what it used."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._delivery: Delivery | None = None
        self._usage: Usage | None = None
        self._first_content_s: float | None = None

    def note(self, step: Completion, *, streamed: bool = False) -> None:
        """Note a whole answer, or one step of a streamed one."""
        if step.delivery is not None:
            self._delivery = step.delivery
            self._first_content_s = time.monotonic() - self._started if streamed else None
        self._usage = step.usage or self._usage

    def event(self, decision: RoutingDecision, outcome: AnswerOutcome, error: BaseException | None) -> AnsweredEvent:
        """Return what observers are told when the answer has ended."""
        delivery, usage = self._delivery, self._usage
        failed = error.attempts if isinstance(error, DispatchError) else ()
        return AnsweredEvent(
            decision,
            outcome,
            answered_by=delivery.answered_by if delivery else "",
            attempts=failed or (delivery.attempts if delivery else ()),
            total_s=time.monotonic() - self._started,
            first_content_s=self._first_content_s,
            input_tokens=usage.input_tokens if usage else None,
            output_tokens=usage.output_tokens if usage else None,
            cost_usd=usage.cost_usd if usage else None,
            error=error,
        )


@contextlib.contextmanager
def watched(observers: Observers, decision: RoutingDecision) -> Iterator[AnswerWatch]:
    """Watch the answer of a decision while the context lasts, and tell the observers how it ended."""
    watch = AnswerWatch()
    try:
        yield watch
    except (GeneratorExit, asyncio.CancelledError):
        observers.answered(watch.event(decision, AnswerOutcome.ABANDONED, None))
        raise
    except BaseException as error:
        observers.answered(watch.event(decision, AnswerOutcome.FAILED, error))
        raise
    observers.answered(watch.event(decision, AnswerOutcome.ANSWERED, None))
