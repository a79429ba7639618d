"""Convert between protobuf messages and the values of `router.feedback.pieces`."""

from __future__ import annotations

from collections.abc import Mapping

from router.errors import InvalidRequestError
from router.feedback.pieces import FeedbackAuthority, FeedbackKind, FeedbackPiece, FeedbackStatus, Receipt
from router.pb import router_service_pb2 as pb

_KINDS: Mapping[FeedbackKind, pb.FeedbackKind.ValueType] = {
    kind: pb.FeedbackKind.Value(f"FEEDBACK_KIND_{kind.name}") for kind in FeedbackKind
}
_AUTHORITIES: Mapping[FeedbackAuthority, pb.FeedbackAuthority.ValueType] = {
    one: pb.FeedbackAuthority.Value(f"FEEDBACK_AUTHORITY_{one.name}") for one in FeedbackAuthority
}
_STATUSES: Mapping[FeedbackStatus, pb.FeedbackStatus.ValueType] = {
    one: pb.FeedbackStatus.Value(f"FEEDBACK_STATUS_{one.name}") for one in FeedbackStatus
}
_KINDS_BY_NUMBER = {number: kind for kind, number in _KINDS.items()}
_AUTHORITIES_BY_NUMBER = {number: one for one, number in _AUTHORITIES.items()}
_STATUSES_BY_NUMBER = {number: one for one, number in _STATUSES.items()}


def piece_from_wire(request: pb.FeedbackRequest) -> FeedbackPiece:
    """Return the piece of feedback that a message carries. Raises InvalidRequestError for one that makes no sense."""
    kind = _KINDS_BY_NUMBER.get(request.kind)
    if kind is None:
        raise InvalidRequestError(f"kind must be one of {', '.join(FeedbackKind)}, got none of them.", field="kind")
    authority = _AUTHORITIES_BY_NUMBER.get(request.authority)
    if authority is None and request.authority != pb.FEEDBACK_AUTHORITY_UNSPECIFIED:
        # That of a newer client may be lower than the usual one, which must not count in its place.
        raise InvalidRequestError(
            f"authority must be one of {', '.join(FeedbackAuthority)}, got none of them.", field="authority"
        )
    return FeedbackPiece(
        kind=kind,
        value=request.value,
        decision_id=request.decision_id,
        request_id=request.request_id,
        name=request.name,
        authority=authority,
        source=request.source,
        idempotency_key=request.idempotency_key,
    )


def piece_to_wire(piece: FeedbackPiece) -> pb.FeedbackRequest:
    """Return the message with which a client sends a piece of feedback."""
    return pb.FeedbackRequest(
        decision_id=piece.decision_id,
        request_id=piece.request_id,
        kind=_KINDS[piece.kind],
        value=piece.value,
        name=piece.name,
        authority=_AUTHORITIES[piece.authority] if piece.authority else pb.FEEDBACK_AUTHORITY_UNSPECIFIED,
        source=piece.source,
        idempotency_key=piece.idempotency_key,
    )


def receipt_to_wire(receipt: Receipt) -> pb.FeedbackResponse:
    """Return the message that carries a receipt."""
    return pb.FeedbackResponse(
        feedback_id=receipt.feedback_id,
        decision_id=receipt.decision_id,
        status=_STATUSES[receipt.status],
        late=receipt.late,
        escalate_to=receipt.escalate_to,
    )


def receipt_from_wire(message: pb.FeedbackResponse) -> Receipt:
    """Return the receipt that a message carries; a status of a newer service counts as accepted."""
    return Receipt(
        feedback_id=message.feedback_id,
        decision_id=message.decision_id,
        status=_STATUSES_BY_NUMBER.get(message.status, FeedbackStatus.ACCEPTED),
        late=message.late,
        escalate_to=message.escalate_to,
    )
