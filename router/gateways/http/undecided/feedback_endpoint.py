"""Take feedback over HTTP: `POST /v1/feedback` (`answer_feedback`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from router.errors import InvalidRequestError
from router.feedback.pieces import FeedbackAuthority, FeedbackKind, FeedbackPiece
from router.feedback.service import take_feedback
from router.gateways.http.exchange import Exchange
from router.gateways.http.http_reply import JSON_HEADERS
from router.quoting import quoted

#: The header by which SDKs send a key of idempotency. A field of the body wins over it.
IDEMPOTENCY_HEADER = "idempotency-key"

#: Words that callers may write in place of 1 and 0.
_WORDS = {"up": 1.0, "good": 1.0, "passed": 1.0, "down": 0.0, "bad": 0.0, "failed": 0.0}

_TEXTS = ("decision_id", "request_id", "name", "source", "idempotency_key")
_FIELDS = frozenset({*_TEXTS, "kind", "value", "authority"})


async def answer_feedback(exchange: Exchange, chunks: Sequence[bytes]) -> None:
    """Keep the feedback of a body, and send its receipt. Raises RouterError.

    chunks: the body of the request, in the pieces in which it arrived.
    """
    piece = await exchange.read_as(chunks, lambda body: _piece(body, exchange.headers))
    receipt = await take_feedback(exchange.engine.desk, piece, exchange.whose["caller"])
    await exchange.reply.whole(200, JSON_HEADERS, asdict(receipt))


def _piece(body: Mapping[str, Any], headers: Mapping[str, str]) -> FeedbackPiece:
    if unknown := sorted(body.keys() - _FIELDS):
        raise InvalidRequestError(
            f"the body may hold {', '.join(sorted(_FIELDS))}, got {quoted(unknown[0])}.", field=unknown[0][:64]
        )
    texts = {name: _text(body, name) for name in _TEXTS}
    texts["idempotency_key"] = texts["idempotency_key"] or headers.get(IDEMPOTENCY_HEADER, "")
    kind = _one_of(FeedbackKind, body, "kind")
    authority = _one_of(FeedbackAuthority, body, "authority") if body.get("authority") is not None else None
    return FeedbackPiece(kind, _value(kind, body.get("value")), authority=authority, **texts)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str | None):
        raise InvalidRequestError(f"{name} must be text, got {quoted(value)}.", field=name)
    return value or ""


def _one_of(names: type[FeedbackKind] | type[FeedbackAuthority], body: Mapping[str, Any], field: str) -> Any:
    value = body.get(field)
    if value not in [one.value for one in names]:
        raise InvalidRequestError(f"{field} must be one of {', '.join(names)}, got {quoted(value)}.", field=field)
    return names(value)


def _value(kind: FeedbackKind, value: Any) -> float:
    if value is None and kind is FeedbackKind.RETRY:
        return 0.0
    if isinstance(value, str) and value in _WORDS:
        return _WORDS[value]
    if not isinstance(value, bool | int | float):
        raise InvalidRequestError(
            f"value must be a number from 0 to 1, true or false, or one of {', '.join(_WORDS)}, got {quoted(value)}.",
            field="value",
        )
    try:
        return float(value)
    except OverflowError:
        return float("inf")
