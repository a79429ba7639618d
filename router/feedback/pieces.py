"""Define what a piece of feedback is (`FeedbackPiece`), which kinds there are, and what became of one (`Receipt`)."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from router.errors import InvalidRequestError
from router.quoting import quoted
from router.times import is_time_id

#: The longest name of a score and of a source, the longest idempotency key, and the longest id of a request.
MOST_NAME, MOST_KEY, MOST_REQUEST_ID = 64, 128, 256


class FeedbackKind(enum.StrEnum):
    """The kinds of thing that feedback says. They are kept apart and never averaged with each other."""

    SCORE = "score"
    VERDICT = "verdict"
    THUMB = "thumb"
    RETRY = "retry"
    EDIT = "edit"
    CHECK = "check"


class FeedbackAuthority(enum.StrEnum):
    """Who says so, from the lowest authority to the highest. If two disagree the higher one counts."""

    USER = "user"
    JUDGE = "judge"
    REVIEWER = "reviewer"
    VERIFIER = "verifier"


class FeedbackStatus(enum.StrEnum):
    """What became of a piece of feedback. docs/feedback.md describes them."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    DISPUTED = "disputed"
    PENDING = "pending"


#: Kinds whose value is 0 or 1 and nothing between.
TWO_OUTCOMES = frozenset({FeedbackKind.VERDICT, FeedbackKind.THUMB, FeedbackKind.CHECK, FeedbackKind.RETRY})

_USUAL = {FeedbackKind.CHECK: FeedbackAuthority.VERIFIER, FeedbackKind.VERDICT: FeedbackAuthority.REVIEWER}


@dataclass(frozen=True, slots=True)
class FeedbackPiece:
    """Holds one piece of feedback on the answer of one decided request.

    Attributes:
        kind: what kind of thing it says.
        value: from 0, bad, to 1, good.
        decision_id: the id of the decision; empty if `request_id` names it.
        request_id: the `x-request-id` of the request, as its caller sent it or got it back.
        name: which score or check it is; may be empty.
        authority: who says so; None takes the usual one of the kind.
        source: the person or system that says so; empty for the caller.
        idempotency_key: sent again with the same key, it counts once; empty for none.

    Raises InvalidRequestError for a value out of range and for names that are too long.
    """

    kind: FeedbackKind
    value: float
    decision_id: str = ""
    request_id: str = ""
    name: str = ""
    authority: FeedbackAuthority | None = None
    source: str = ""
    idempotency_key: str = ""

    def __post_init__(self) -> None:
        if bool(self.decision_id) == bool(self.request_id):
            got = "both" if self.decision_id else "none"
            raise InvalidRequestError(
                f"exactly one of decision_id and request_id must be given, got {got}.", field="decision_id"
            )
        if self.decision_id and not is_time_id(self.decision_id):
            raise InvalidRequestError(
                f"decision_id must be the id of a decision, got {quoted(self.decision_id)}.", field="decision_id"
            )
        for field, most in (
            ("request_id", MOST_REQUEST_ID),
            ("name", MOST_NAME),
            ("source", MOST_NAME),
            ("idempotency_key", MOST_KEY),
        ):
            if len(getattr(self, field)) > most:
                raise InvalidRequestError(f"{field} must have at most {most} characters.", field=field)
        self._check_value()

    def _check_value(self) -> None:
        if not math.isfinite(self.value) or not 0 <= self.value <= 1:
            raise InvalidRequestError(f"value must be from 0 to 1, got {quoted(self.value)}.", field="value")
        if self.kind in TWO_OUTCOMES and self.value not in (0, 1):
            raise InvalidRequestError(
                f"value must be 0 or 1 for the kind {self.kind.value}, got {quoted(self.value)}.", field="value"
            )
        if self.kind is FeedbackKind.RETRY and self.value:
            raise InvalidRequestError("value must be 0 or absent for the kind retry.", field="value")

    @property
    def said_by(self) -> FeedbackAuthority:
        """Return who says so."""
        return self.authority or _USUAL.get(self.kind, FeedbackAuthority.USER)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Says what became of a piece of feedback, once it is on the disk.

    Attributes:
        feedback_id: its id in the ledger.
        decision_id: the decision that it is about.
        status: what became of it.
        late: whether it came long after the decision (`router.feedback.desk.LATE_S`).
        escalate_to: after a failed check, the next stronger candidate that may answer; empty if there is none.
    """

    feedback_id: str
    decision_id: str
    status: FeedbackStatus
    late: bool = False
    escalate_to: str = ""
