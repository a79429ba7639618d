"""Charge the cost of each answer to the account of its caller: `Spending`, and `charging` for what is not decided."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from router.errors import DispatchError
from router.identity.admission import current_admission
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, Observer, SettledEvent


class Spending(Observer):
    """Observes decisions and answers, and counts their cost on the account of whoever asked.

    From the decision to the end of the answer the expected cost of the chosen candidate counts, so that many requests
    at once cannot spend what one of them may. Then the real cost takes its place, as far as it is known.
    """

    def decided(self, event: DecidedEvent) -> None:
        """Count the expected cost of an answer that is to come."""
        admission = current_admission.get()
        if admission is not None and admission.pays:
            admission.reserve(event.decision.expected_usd(event.decision.chosen) or 0.0)

    def answered(self, event: AnsweredEvent) -> None:
        """Count the real cost in place of the expected one."""
        admission = current_admission.get()
        if admission is None or not admission.pays:
            return
        if event.cost_usd is not None:
            admission.settle(event.cost_usd)
        elif event.outcome is AnswerOutcome.FAILED:
            admission.settle(0.0)
        else:
            # An answer whose end nobody saw is paid for too.
            admission.settle(event.decision.expected_usd(event.answered_by or event.decision.chosen) or 0.0)

    def settled(self, event: SettledEvent) -> None:
        """Count the real cost of an answer in place of what was counted when it seemed to have ended."""
        admission = current_admission.get()
        if admission is not None and admission.pays and event.cost_usd is not None:
            admission.account.spend(event.cost_usd - event.charged_usd)


@contextlib.contextmanager
def charging(expected_usd: float) -> Iterator[Callable[[float | None], None]]:
    """Charge an answer that is not decided, such as an embedding, to whoever asked.

    While the context lasts the expected cost counts. What is yielded takes the real one, or None if nobody knows it. An
    answer that fails costs nothing.

    Raises LimitExceededError if the budget of the day is used up: no cheaper candidate could answer instead.
    """
    admission = current_admission.get()
    if admission is None or not admission.pays:
        yield lambda _: None
        return
    admission.require_budget()
    admission.reserve(expected_usd)
    try:
        yield lambda real_usd: admission.settle(expected_usd if real_usd is None else real_usd)
    except DispatchError:
        admission.settle(0.0)
        raise
