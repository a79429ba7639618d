"""Take feedback for a service that keeps a ledger (`FeedbackDesk`), and acknowledge it once it is on the disk."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from router.errors import ConfigError, InvalidRequestError, NotRecordedError, UnknownDecisionError
from router.feedback.pieces import FeedbackKind, FeedbackPiece, FeedbackStatus, Receipt
from router.feedback.weighing import weighed
from router.times import is_time_id, made_at, new_id

if TYPE_CHECKING:
    from router.ledger.reader import LoggedDecision, LoggedFeedback
    from router.ledger.recorder import Ledger

#: Feedback that comes more than this many seconds after the decision is late.
LATE_S = 7 * 86_400.0

#: A decision of the last seconds may be on its way into the ledger from another process.
_ON_ITS_WAY_S = 60.0

#: The most pieces of feedback on one decision.
MOST_PIECES = 100


@dataclass(frozen=True, slots=True)
class FeedbackGiver:
    """Says who gives feedback.

    Attributes:
        caller: the opaque key of whoever calls; empty if the call has no credential.
        may_grade_all: whether the caller may grade answers that others got. Others may grade their own only.
    """

    caller: str
    may_grade_all: bool = False


class FeedbackDesk:
    """Takes feedback, and finds decisions for requests that escalate.

    Args:
        ledger: the ledger of the service.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def take(self, piece: FeedbackPiece, grader: FeedbackGiver) -> Receipt:
        """Keep a piece of feedback, and return a receipt once it is on the disk.

        Raises UnknownDecisionError if the ledger has no such decision of this caller, NotRecordedError if nothing can
        be kept now, and InvalidRequestError for an idempotency key of other feedback.
        """
        digest = self._ledger.digester.of_name("caller", grader.caller)
        decision = await self._find(piece, digest)
        if decision is not None and not grader.may_grade_all and decision.values["caller"] not in (None, digest):
            raise _unknown("decision_id" if piece.decision_id else "request_id")
        row = _logged(piece, decision, digest, is_verified=decision is not None or grader.may_grade_all)
        if piece.idempotency_key and (known := await self._known(row.feedback_id)) is not None:
            if replace(row, at=known.at, verified=known.verified) != known:
                raise InvalidRequestError(
                    "idempotency_key was used for other feedback; give each piece a key of its own.",
                    field="idempotency_key",
                )
            return _receipt(row, decision, FeedbackStatus.DUPLICATE)
        if decision is not None and len(decision.feedback) >= MOST_PIECES:
            raise InvalidRequestError(
                f"this decision has {MOST_PIECES} pieces of feedback, which is the most; send no more about it."
            )
        await self._keep(row)
        return _receipt(row, decision, _status(row, decision))

    async def answerer_of(self, decision_id: str, caller: str) -> str:
        """Return the name of the candidate that answered a decision of this caller, or was chosen for it.

        Raises UnknownDecisionError, and NotRecordedError if the ledger cannot be read now.
        """
        if not is_time_id(decision_id):
            raise _unknown("escalated_from")
        digest = self._ledger.digester.of_name("caller", caller)
        decision = await self._look_up(FeedbackPiece(FeedbackKind.CHECK, 0, decision_id), digest, may_fail=False)
        if decision is None or decision.values["caller"] not in (None, digest):
            raise _unknown("escalated_from")
        return decision.answered_by or decision.chosen

    async def _find(self, piece: FeedbackPiece, digest: str | None) -> LoggedDecision | None:
        """Return the decision that feedback is about, or None if it may come into the ledger later."""
        try:
            decision = await self._look_up(piece, digest, may_fail=True)
        except ConfigError:
            if not piece.decision_id:
                raise _not_recorded() from None
            return None
        if decision is None:
            is_recent = bool(piece.decision_id) and abs(time.time() - made_at(piece.decision_id)) < _ON_ITS_WAY_S
            if not is_recent and not (piece.decision_id and self._ledger.counts.spool_bytes):
                raise _unknown("decision_id" if piece.decision_id else "request_id")
        return decision

    async def _look_up(self, piece: FeedbackPiece, digest: str | None, *, may_fail: bool) -> LoggedDecision | None:
        try:
            decision = await asyncio.to_thread(self._read, piece, digest)
            if decision is None:
                # It may wait in the memory of this process.
                await asyncio.wait([asyncio.wrap_future(self._ledger.writer.flush())])
                decision = await asyncio.to_thread(self._read, piece, digest)
        except ConfigError:
            if may_fail:
                raise
            raise _not_recorded() from None
        return decision

    def _read(self, piece: FeedbackPiece, digest: str | None) -> LoggedDecision | None:
        reader = self._ledger.reader
        if piece.decision_id:
            return reader.decision(piece.decision_id)
        # Answers carry the id of the decision as their x-request-id.
        own = reader.decision(piece.request_id) if is_time_id(piece.request_id) else None
        return own or reader.decision_of_request(piece.request_id, digest)

    async def _known(self, feedback_id: str) -> LoggedFeedback | None:
        try:
            return await asyncio.to_thread(self._ledger.reader.feedback_by_id, feedback_id)
        except ConfigError:
            # A row of the same id is kept once, whatever the database says now.
            return None

    async def _keep(self, piece: LoggedFeedback) -> None:
        from router.ledger.records import feedback_row
        from router.ledger.writer import LedgerDownError

        try:
            await asyncio.wrap_future(self._ledger.writer.put_durably(feedback_row(piece)))
        except LedgerDownError:
            raise _not_recorded() from None


def _logged(
    piece: FeedbackPiece, decision: LoggedDecision | None, digest: str | None, *, is_verified: bool
) -> LoggedFeedback:
    from router.ledger.reader import LoggedFeedback

    key = f"{digest}\0{piece.idempotency_key}".encode(errors="surrogatepass")
    return LoggedFeedback(
        feedback_id=hashlib.sha256(key).hexdigest()[:32] if piece.idempotency_key else new_id(),
        decision_id=decision.decision_id if decision is not None else piece.decision_id,
        at=time.time(),
        kind=piece.kind.value,
        value=float(piece.value),
        name=piece.name,
        authority=piece.said_by.value,
        source=piece.source,
        caller=digest,
        verified=is_verified,
    )


def _status(row: LoggedFeedback, decision: LoggedDecision | None) -> FeedbackStatus:
    if decision is None:
        return FeedbackStatus.PENDING
    same = [one for one in decision.feedback if (one.kind, one.name) == (row.kind, row.name)]
    (opinion,) = weighed([*same, row])
    return FeedbackStatus.ACCEPTED if opinion.value is not None else FeedbackStatus.DISPUTED


def _receipt(row: LoggedFeedback, decision: LoggedDecision | None, status: FeedbackStatus) -> Receipt:
    is_late = row.at - made_at(row.decision_id) > LATE_S
    has_failed = row.kind == FeedbackKind.CHECK and row.value == 0
    stronger = _next_above(decision) if has_failed and decision is not None else ""
    return Receipt(row.feedback_id, row.decision_id, status, is_late, stronger)


def _next_above(decision: LoggedDecision) -> str:
    """Return the next candidate above the one that answered which could have answered the request; empty for none."""
    answerer = decision.answered_by or decision.chosen
    names = [one.candidate for one in decision.candidates]
    above = decision.candidates[names.index(answerer) + 1 :] if answerer in names else ()
    return next((one.candidate for one in above if one.eligible), "")


def _unknown(field: str) -> UnknownDecisionError:
    return UnknownDecisionError(
        "the ledger has no such decision of this caller. Send the id of a decision, from the header "
        "`x-elle-decision-id` or the record, with the credential of its request; old decisions may have been deleted "
        "(--ledger-keep-days).",
        field=field,
    )


def _not_recorded() -> NotRecordedError:
    return NotRecordedError("the ledger cannot be used now, and nothing was kept; send the same again later.")
