"""Feed a canary with what a ledger says of its answers, and with labels of its decisions (`take_evidence`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from router.feedback.weighing import graded_losses
from router.observing.observer import AnswerOutcome
from router.rollout.canary_file import CanaryFile

if TYPE_CHECKING:
    from router.ledger.reader import LoggedDecision

#: Seconds after which a decision is in the ledger, whichever process made it. Younger ones are left for the next time.
SETTLE_S = 5.0

#: Seconds for which the end of an answer is waited for, and the most decisions whose answers are waited for.
WAIT_S, MOST_WAITING = 3600.0, 100_000


def take_evidence(
    file: CanaryFile,
    decisions: Iterable[LoggedDecision],
    losses: Mapping[str, Mapping[str, float]],
    *,
    reference: str,
    now: float,
) -> int:
    """Feed a canary, decision by decision in their order, and return the number of labels that were new.

    Args:
        file: the canary.
        decisions: decisions of both policies, oldest first; those that were fed before are passed over.
        losses: for each labelled decision the loss, 0 to 1, of each candidate whose answer was graded.
        reference: the candidate that losses are measured against.
        now: the time in seconds since 1970. Decisions younger than SETTLE_S are left for the next time.

    A decision of the canary is labelled if the answers of its candidate and of the reference were graded, by `losses`
    or by grades in the ledger. If both are the same candidate and it was graded, nothing was lost. A decision whose
    answer has not ended is looked at again for WAIT_S seconds.
    """
    canary, n_new = file.canary, 0
    until = file.read_until
    for one in decisions:
        policy, at = str(one.values["policy"]), float(one.values["at"])
        if policy == canary.plan.policy and one.decision_id not in file.labelled:
            graded = {**graded_losses(one), **losses.get(one.decision_id, {})}
            loss = _loss(one.chosen, graded, reference)
            if loss is not None:
                file.labelled.add(one.decision_id)
                canary.label(loss)
                n_new += 1
        if at > now - SETTLE_S or (at < file.read_until and one.decision_id not in file.waiting):
            continue
        until = max(until, at)
        if one.outcome is None:
            _wait_for(one.decision_id, file.waiting, is_lost=at < now - WAIT_S)
            continue
        file.waiting.pop(one.decision_id, None)
        answered = one.outcome.outcome == AnswerOutcome.ANSWERED
        if one.outcome.outcome != AnswerOutcome.ABANDONED:
            canary.ended(policy, failed=not answered, latency_s=one.outcome.total_s if answered else None)
    # The time of the last decision itself has been read.
    file.read_until = max(until, file.read_until) + (1e-6 if until > file.read_until else 0.0)
    return n_new


def _wait_for(decision_id: str, waiting: dict[str, None], *, is_lost: bool) -> None:
    if is_lost:
        waiting.pop(decision_id, None)
        return
    waiting[decision_id] = None
    while len(waiting) > MOST_WAITING:
        # The oldest ones are most likely decisions that nobody wanted answered.
        del waiting[next(iter(waiting))]


def _loss(chosen: str, losses: Mapping[str, float], reference: str) -> float | None:
    if chosen not in losses or reference not in losses:
        return 0.0 if chosen == reference and chosen in losses else None
    return losses[chosen] - losses[reference]
