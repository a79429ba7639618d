"""Hold a decision to the limits of whoever asked for it: beyond them the cheapest candidate answers, or none."""

from __future__ import annotations

from router.identity.admission import current_admission
from router.policies.choice import Choice, cheapest_choice, is_strong
from router.policies.eligibility import Eligibility


def check_budget() -> None:
    """Raise LimitExceededError if the caller has used up the money of the day, and is to be refused then."""
    if (admission := current_admission.get()) is not None:
        admission.check_budget()


def within_limits(eligibility: Eligibility, choice: Choice) -> Choice:
    """Return the choice, or that of the cheapest candidate if the limits of the caller allow no stronger one.

    Counts the decision. Raises LimitExceededError if the request is refused instead.
    """
    admission = current_admission.get()
    if admission is None:
        return choice
    strong = is_strong(eligibility, choice)
    if strong:
        cheap = cheapest_choice(eligibility, choice)
        if not admission.permit_strong(can_be_cheap=cheap is not None) and cheap is not None:
            choice, strong = cheap, False
    admission.account.count_decision(strong=strong)
    return choice
