"""Take the feedback of a call at any door (`take_feedback`): who may grade what, and what happens without a ledger."""

from __future__ import annotations

from router.errors import NoLedgerError
from router.feedback.desk import FeedbackDesk, FeedbackGiver
from router.feedback.pieces import FeedbackPiece, Receipt
from router.identity.principal import Scope, current_principal


async def take_feedback(desk: FeedbackDesk | None, piece: FeedbackPiece, caller: str) -> Receipt:
    """Keep a piece of feedback of a caller, and return its receipt.

    Whoever has a token with the scope `feedback` may grade every answer. If the service asks nobody for a token, each
    credential may grade its own answers only.

    Raises NoLedgerError if the service keeps no ledger, and what `FeedbackDesk.take` raises.
    """
    if desk is None:
        raise NoLedgerError("feedback needs a service that keeps a ledger; start it with --ledger.")
    principal = current_principal.get()
    return await desk.take(
        piece, FeedbackGiver(caller, may_grade_all=bool(principal.id) and Scope.FEEDBACK in principal.scopes)
    )
