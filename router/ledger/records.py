"""Turn what observers are told into rows of the ledger, and digest what must not be kept as it is."""

from __future__ import annotations

import functools
import hmac
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from router.decision import RoutingDecision
from router.errors import RouterError
from router.observing.observer import AnsweredEvent, DecidedEvent, SettledEvent
from router.plain_json import whole_text
from router.times import made_at, new_id
from router.values import NO_OVERRIDES, Overrides

if TYPE_CHECKING:
    from router.ledger.reader import LoggedFeedback

#: The tables of the ledger by name.
TableName = Literal["decisions", "outcomes", "feedback", "events"]

#: The longest text of a column of names, in characters.
_MOST_CHARACTERS = 512

#: The hexadecimal digits of a keyed digest.
_DIGEST_DIGITS = 32


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """Holds one row: the table that it belongs to, and its values by column."""

    table: TableName
    values: Mapping[str, Any]


class Digester:
    """Makes keyed digests (HMAC-SHA256, cut to 128 bits), by which equal things are recognised and nothing is revealed.

    Without the key nobody can try which prompt or credential a digest is of.
    """

    def __init__(self, key: bytes) -> None:
        # Every digest goes on with a copy of this, because to take in the key takes longer than to digest a prompt.
        self._keyed = hmac.new(key, digestmod="sha256")
        # The same few callers send most requests.
        self._short = functools.lru_cache(maxsize=4096)(self._digest)

    def of_name(self, kind: str, text: str) -> str | None:
        """Return the digest of a caller's key or a session's id; None for an empty text."""
        return self._short(kind, text) if text else None

    def of_prompt(self, text: str) -> str | None:
        """Return the digest of the text of a prompt; None for an empty text."""
        return self._digest("prompt", text) if text else None

    def _digest(self, kind: str, text: str) -> str:
        digest = self._keyed.copy()
        digest.update(f"{kind}\0{text}".encode(errors="surrogatepass"))
        return digest.hexdigest()[:_DIGEST_DIGITS]


class Decided(NamedTuple):
    """Holds what the row of a decision is made of, without the request itself, which may hold pictures.

    It is a tuple because the event loop makes it, and a frozen dataclass takes longer to make.

    Attributes:
        decision: the decision record.
        caller: the opaque key of whoever called; empty if the request had no credential.
        text: the text that was judged.
        request_id: the caller's id of the request; empty for none.
        overrides: what the caller asked beyond the policy.
        in_tool_loop: whether the request goes on with calls of tools.
        features: the features of the prompt; None if there are none, or if they are not kept.
        encoder: the identity of the encoder that made them; empty for none.
    """

    decision: RoutingDecision
    caller: str
    text: str
    request_id: str
    overrides: Overrides
    in_tool_loop: bool
    features: np.ndarray | None = None
    encoder: str = ""

    @classmethod
    def of(cls, event: DecidedEvent, *, with_features: bool) -> Decided:
        """Return what the row of a decision is made of. `with_features`: whether features are kept."""
        query, features = event.query, event.features if with_features else None
        encoder = "" if features is None else event.encoder
        return cls(
            event.decision,
            event.caller,
            event.text,
            query.request_id,
            query.overrides,
            event.in_tool_loop,
            features,
            encoder,
        )


def decision_row(decided: Decided, digester: Digester, *, with_prompt: bool) -> LedgerRow:
    """Return the row of a decision. `with_prompt`: whether the text that was judged is kept, besides its digest."""
    decision, features = decided.decision, decided.features
    timings, kinds = decision.timings, decision.kinds
    values = {
        "decision_id": decision.decision_id,
        "at": made_at(decision.decision_id),
        "request_id": _text(decided.request_id) or None,
        "policy": _text(decision.policy.name),
        "policy_version": _text(decision.policy.version),
        "policy_digest": decision.policy.digest,
        "probe_digest": decision.probe.digest if decision.probe else None,
        "requested": _text(decision.requested),
        "chosen": _text(decision.chosen),
        "reason": decision.reason.value,
        "threshold": decision.threshold,
        "gain": decision.gain,
        "abstained": decision.abstained,
        "would_choose": _text(decision.would_choose) or None,
        "propensity": decision.propensity,
        "escalated_from": decision.escalated_from or None,
        "candidates": [
            {
                "candidate": one.candidate,
                "raw": one.raw,
                "risk": one.risk,
                "cost": one.expected_cost_usd,
                "eligible": one.eligible,
            }
            for one in decision.candidates
        ],
        "difficulty": decision.difficulty,
        "leverage": decision.leverage,
        "expected_cost_usd": decision.expected_usd(decision.chosen),
        "caller": digester.of_name("caller", decided.caller),
        "session": digester.of_name("session", decision.session_id),
        "prompt_digest": digester.of_prompt(decided.text),
        "task": _text(decision.task) or None,
        "language": _text(decision.language),
        "has_code": decision.has_code,
        "needs": list(decision.needs),
        "kinds": {"known": kinds.known, "nearest": [[one.name, one.share] for one in kinds.nearest]} if kinds else None,
        "score": asdict(decision.score) if decision.score else None,
        "overrides": _overrides(decided.overrides),
        "in_tool_loop": decided.in_tool_loop,
        "input_tokens_estimate": decision.input_tokens_estimate,
        "queue_s": timings.queue_s,
        "encode_s": timings.encode_s,
        "total_s": timings.total_s,
        "cached": timings.cached,
        "prompt": _cleaned(decided.text) if with_prompt else None,
        "encoder": decided.encoder or None,
        "features": None if features is None else features.astype("<f2").tobytes(),
    }
    return LedgerRow("decisions", values)


def outcome_row(event: AnsweredEvent) -> LedgerRow:
    """Return the row of an answer."""
    error = event.error
    values = {
        "decision_id": event.decision.decision_id,
        "at": event.at,
        "outcome": event.outcome.value,
        "answered_by": _text(event.answered_by),
        "fell_back": event.answered_by not in {"", event.decision.chosen},
        "attempts": [
            {
                "candidate": one.candidate,
                "outcome": one.outcome.value,
                "http_status": one.http_status,
                "duration_s": one.duration_s,
            }
            for one in event.attempts
        ],
        "total_s": event.total_s,
        "first_content_s": event.first_content_s,
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cost_usd": event.cost_usd,
        # The message of an error may quote the request. Its name says enough.
        "error": None if error is None else error.reason if isinstance(error, RouterError) else type(error).__name__,
    }
    return LedgerRow("outcomes", values)


def settled_row(event: SettledEvent) -> LedgerRow:
    """Return the row of an answer that ended in the background. It replaces the row that says that the answer began."""
    values = {
        "decision_id": event.decision_id,
        "at": event.at,
        "outcome": event.outcome.value,
        "answered_by": _text(event.answered_by),
        "fell_back": False,
        "attempts": [],
        "total_s": max(0.0, event.at - made_at(event.decision_id)),
        "input_tokens": event.input_tokens,
        "output_tokens": event.output_tokens,
        "cost_usd": event.cost_usd,
    }
    return LedgerRow("outcomes", values)


def feedback_row(piece: LoggedFeedback) -> LedgerRow:
    """Return the row of a piece of feedback."""
    values = asdict(piece)
    return LedgerRow("feedback", values | {"name": _text(piece.name), "source": _text(piece.source)})


def event_row(kind: str, detail: Mapping[str, Any], *, policy_digest: str | None = None, actor: str = "") -> LedgerRow:
    """Return a row of the audit trail. `detail` must be plain JSON and hold no text of prompts."""
    values = {
        "event_id": new_id(),
        "at": time.time(),
        "kind": _text(kind),
        "policy_digest": policy_digest,
        "actor": _text(actor),
        "detail": dict(detail),
    }
    return LedgerRow("events", values)


def _overrides(overrides: Overrides) -> dict[str, Any] | None:
    """Return the overrides that were given, or None for none."""
    if overrides is NO_OVERRIDES or overrides == NO_OVERRIDES:
        return None
    return {name: value for name, value in asdict(overrides).items() if value not in (None, (), "")}


@functools.lru_cache(maxsize=1024)
def _text(text: str) -> str:
    # Names of policies and candidates, reasons and languages are the same few texts in every row.
    return _cleaned(text[:_MOST_CHARACTERS])


def _cleaned(text: str) -> str:
    """Return a text as both databases can keep it: PostgreSQL takes no NUL, and neither takes half a surrogate."""
    return whole_text(text).replace("\0", "�")
