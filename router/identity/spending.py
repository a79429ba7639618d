"""Charge the cost of each answer to the account of its caller (`Spending`)."""

from __future__ import annotations

from router.decision import RoutingDecision
from router.identity.accounts import current_admission
from router.observing.observer import AnsweredEvent, AnswerOutcome, DecidedEvent, RefusedEvent


class Spending:
    """Observes decisions and answers, and counts their cost on the account of whoever asked.

    From the decision to the end of the answer the expected cost of the chosen candidate counts, so that many requests
    at once cannot spend what one of them may. Then the real cost takes its place, as far as it is known.
    """

    def decided(self, event: DecidedEvent) -> None:
        """Count the expected cost of an answer that is to come."""
        admission = current_admission.get()
        if admission is not None and admission.pays:
            admission.reserve(_expected(event.decision, event.decision.chosen))

    def refused(self, event: RefusedEvent) -> None:
        """Do nothing, because what is not decided costs nothing."""

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
            admission.settle(_expected(event.decision, event.answered_by or event.decision.chosen))


def _expected(decision: RoutingDecision, candidate: str) -> float:
    return next((one.expected_cost_usd or 0.0 for one in decision.candidates if one.candidate == candidate), 0.0)
