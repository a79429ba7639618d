"""Feed a canary with what a ledger says of its answers, and with labels of its decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from router.feedback.weighing import graded_losses
from router.observing.observer import AnswerOutcome
from router.rollout.canary_file import CanaryFile

if TYPE_CHECKING:
    from router.ledger.reader import Arrival, LoggedDecision

#: Seconds by which an answer may be seen late, because its row is still being written or the clock of its machine is
#: behind, and the most answers that are remembered for so long. Every process of the service reads the canary's file.
LATE_S, MOST_REMEMBERED = 120.0, 20_000


def take_labels(
    file: CanaryFile,
    decisions: Iterable[LoggedDecision],
    losses: Mapping[str, Mapping[str, float]],
    *,
    reference: str,
) -> int:
    """Feed a canary with the labels of its decisions, each once, and return how many were new.

    Args:
        file: the canary.
        decisions: decisions, oldest first; those that were fed before are passed over.
        losses: for each labelled decision the loss, 0 to 1, of each candidate whose answer was graded.
        reference: the candidate that losses are measured against.

    A decision of the canary is labelled if the answers of its candidate and of the reference were graded, by `losses`
    or by grades in the ledger. If both are the same candidate and it was graded, nothing was lost.
    """
    canary, n_new = file.canary, 0
    for one in decisions:
        if str(one.values["policy"]) != canary.plan.policy or one.decision_id in file.labelled:
            continue
        graded = {**graded_losses(one), **losses.get(one.decision_id, {})}
        loss = _loss(one.chosen, graded, reference)
        if loss is not None:
            file.labelled.add(one.decision_id)
            canary.label(loss)
            n_new += 1
    return n_new


def take_answers(file: CanaryFile, arrivals: Iterable[Arrival]) -> None:
    """Feed a canary with how answers ended, each once.

    arrivals: the answers that came into the ledger after `file.read_until`, in the order in which they came.

    Rows that are written at the same time can be seen in another order than that of their arrival. So the answers of
    the last LATE_S seconds are looked at again, and those that were counted are remembered for so long.
    """
    for one in arrivals:
        if one.decision_id in file.counted:
            continue
        file.counted[one.decision_id] = one.arrived
        answered = one.outcome == AnswerOutcome.ANSWERED
        if one.outcome != AnswerOutcome.ABANDONED:
            file.canary.ended(one.policy, failed=not answered, latency_s=one.total_s if answered else None)
    _forget(file)


def _forget(file: CanaryFile) -> None:
    """Forget which answers were counted long ago, and from then on look only at what came later."""
    by_arrival = sorted(file.counted.items(), key=lambda item: item[1])
    newest = by_arrival[-1][1] if by_arrival else 0.0
    surplus = len(by_arrival) - MOST_REMEMBERED
    for number, (decision_id, arrived) in enumerate(by_arrival):
        if number < surplus or arrived < newest - LATE_S:
            del file.counted[decision_id]
            file.read_until = max(file.read_until, arrived)


def _loss(chosen: str, losses: Mapping[str, float], reference: str) -> float | None:
    if chosen not in losses or reference not in losses:
        return 0.0 if chosen == reference and chosen in losses else None
    return losses[chosen] - losses[reference]
