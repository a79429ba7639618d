"""Say which feedback on a decision counts (`opinions_of`): the newest of each source, and the highest authority.

Nothing is decided when feedback comes. It is weighed when it is read, so that late, changed and disputed feedback needs
no repair of what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from router.feedback.pieces import TWO_OUTCOMES, FeedbackAuthority, FeedbackKind

if TYPE_CHECKING:
    from router.ledger.reader import LoggedDecision, LoggedFeedback

#: Grades of one authority that lie further apart than this are disputed.
_FAR_APART = 0.5

_RANKS = {authority.value: rank for rank, authority in enumerate(FeedbackAuthority)}


@dataclass(frozen=True, slots=True)
class Opinion:
    """Holds what all feedback of one kind and name says about one decision.

    Attributes:
        kind: the kind of feedback.
        name: which score or check it is; may be empty.
        value: from 0 to 1: the mean of the newest pieces of the highest authority; None if they are disputed.
        authority: the highest authority that said anything.
        at: when the newest piece came, in seconds since 1970.
    """

    kind: FeedbackKind
    name: str
    value: float | None
    authority: FeedbackAuthority
    at: float


def opinions_of(decision: LoggedDecision) -> tuple[Opinion, ...]:
    """Return what the feedback on a decision says, one opinion for each kind and name."""
    caller = decision.values["caller"]
    # Feedback that came before its decision was in the ledger could not be checked then.
    allowed = [one for one in decision.feedback if one.verified or caller is None or one.caller == caller]
    return weighed([one for one in allowed if one.candidate is None])


def graded_losses(decision: LoggedDecision) -> dict[str, float]:
    """Return the loss, 0 to 1, of each candidate whose answer to this request was graded, as `elle ledger label` says.

    What callers say of the answer that they got does not count here, because who gives feedback unasked depends on how
    good the answer was.
    """
    graded: dict[str, list[LoggedFeedback]] = {}
    for piece in decision.feedback:
        if piece.candidate is not None and piece.verified:
            graded.setdefault(piece.candidate, []).append(piece)
    losses = {}
    for candidate, pieces in graded.items():
        values = [opinion.value for opinion in weighed(pieces)]
        if values[0] is not None:
            losses[candidate] = 1 - values[0]
    return losses


def weighed(pieces: Sequence[LoggedFeedback]) -> tuple[Opinion, ...]:
    """Return the opinions that pieces of feedback on one decision make, in the order of kind and name."""
    by_subject: dict[tuple[str, str], list[LoggedFeedback]] = {}
    for piece in sorted(pieces, key=lambda one: (one.at, one.feedback_id)):
        by_subject.setdefault((piece.kind, piece.name), []).append(piece)
    return tuple(_opinion(same) for _, same in sorted(by_subject.items()))


def _opinion(pieces: Sequence[LoggedFeedback]) -> Opinion:
    newest = {(one.authority, one.source, one.caller): one for one in pieces}
    top = max(_RANKS[one.authority] for one in newest.values())
    heard = [one for one in newest.values() if _RANKS[one.authority] == top]
    values = [one.value for one in heard]
    kind = FeedbackKind(heard[0].kind)
    spread = max(values) - min(values)
    is_disputed = spread > (0 if kind in TWO_OUTCOMES else _FAR_APART)
    return Opinion(
        kind=kind,
        name=heard[0].name,
        value=None if is_disputed else fmean(values),
        authority=FeedbackAuthority(heard[0].authority),
        at=max(one.at for one in heard),
    )
