"""The steps of `elle ledger scores`: put the scores of a Langfuse export into a ledger, as feedback on decisions."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.feedback.pieces import MOST_NAME, FeedbackAuthority, FeedbackKind
from router.ledger.reader import LedgerReader, LoggedFeedback
from router.ledger.settings import LedgerSettings
from router.tuning.outcomes.adapters.collection import first
from router.tuning.outcomes.adapters.prompts import decode_json_text, mapping
from router.tuning.outcomes.adapters.traces.langfuse import raw_score
from router.tuning.outcomes.records import number_of, read_rows

#: Who gives a score, by the field `source` of Langfuse. A program that calls its API may be anybody's.
_AUTHORITIES = {"ANNOTATION": FeedbackAuthority.REVIEWER, "EVAL": FeedbackAuthority.JUDGE}

#: The end of the key under which LiteLLM's traces hold the header that names a decision.
_DECISION_KEY = "x-elle-decision-id"

#: How deep the metadata of an observation is searched, and rows that are written at once.
_DEPTH, _ROWS = 4, 500


@dataclass(frozen=True, slots=True)
class KeptScores:
    """Counts what became of the scores of an export.

    Attributes:
        kept: scores that the ledger has now; some of them may have been there before.
        left_out: scores that it does not have, by the reason.
    """

    kept: int
    left_out: Mapping[str, int]


def keep_langfuse_scores(files: Sequence[Path], ledger: str, *, score: str | None = None) -> KeptScores:
    """Put scores into a ledger. The same score given again is kept once, and a changed one takes its place.

    The trace of a score belongs to a decision if its id is that of the decision, or the `x-request-id` of one request
    only, or if an observation of the trace names the decision in its metadata, as LiteLLM's callback writes it.

    score: the name of the scores that are taken; None takes all.

    Raises ConfigError or DataError if the files or the ledger cannot be used.
    """
    from router.ledger.insertion import DatabaseSink
    from router.ledger.opening import migrate_ledger, opened_reader, require_exists
    from router.ledger.records import event_row, feedback_row
    from router.ledger.writer import LedgerDownError

    settings, left_out = LedgerSettings(ledger), Counter[str]()
    require_exists(settings)
    migrate_ledger(settings)
    found, named = _sorted_out(files)
    with opened_reader(settings) as reader, contextlib.closing(DatabaseSink(settings)) as sink:
        pieces = list(_pieces(found, named, reader, score, left_out))
        rows = [feedback_row(piece) for piece in pieces]
        try:
            for start in range(0, len(rows), _ROWS):
                sink.write(rows[start : start + _ROWS])
            if rows:
                sink.write([event_row("grades_kept", {"rows": len(rows), "source": "langfuse"})])
        except LedgerDownError as error:
            raise ConfigError(f"the ledger takes no scores now ({error}); give them again later.") from None
    return KeptScores(len(rows), dict(left_out))


def _sorted_out(files: Sequence[Path]) -> tuple[list[Mapping[str, Any]], dict[str, str]]:
    """Return the scores, and the decisions that observations name, by the ids of observations and traces."""
    scores: list[Mapping[str, Any]] = []
    named: dict[str, str] = {}
    for row in (row for file in files for row in read_rows(file)):
        values = row.values
        if not {"data_type", "dataType", "string_value", "stringValue", "value"}.isdisjoint(values):
            scores.append(values)
        elif decision := _named_in(mapping(values.get("metadata")), _DEPTH):
            named |= {str(one): decision for one in (values.get("id"), first(values, "trace_id", "traceId")) if one}
    return scores, named


def _named_in(value: Any, depth: int) -> str:
    value = decode_json_text(value)
    if depth and isinstance(value, Mapping):
        for key, inside in value.items():
            if str(key).lower().endswith(_DECISION_KEY) and isinstance(inside, str):
                return inside
            if found := _named_in(inside, depth - 1):
                return found
    return ""


def _pieces(
    scores: Sequence[Mapping[str, Any]],
    named: Mapping[str, str],
    reader: LedgerReader,
    wanted: str | None,
    left_out: Counter[str],
) -> Iterator[LoggedFeedback]:
    for values in scores:
        name = str(values.get("name") or "")
        if wanted is not None and name != wanted:
            left_out["they have another name"] += 1
        elif (value := _value(name, values)) is None:
            left_out["they are neither NUMERIC from 0 to 1 nor BOOLEAN"] += 1
        elif not (decision_id := _decision_of(values, named, reader)):
            left_out["their trace belongs to no decision of the ledger"] += 1
        else:
            yield _piece(values, name, value, decision_id)


def _value(name: str, values: Mapping[str, Any]) -> float | None:
    raw = raw_score(name, values)
    # The number beside a category is its index, and a number without a data type may be one.
    if raw.is_label or raw.may_be_index:
        return None
    number = float(raw.value) if isinstance(raw.value, bool) else number_of(raw.value)
    return number if number is not None and 0 <= number <= 1 else None


def _decision_of(values: Mapping[str, Any], named: Mapping[str, str], reader: LedgerReader) -> str:
    observation, trace = (str(first(values, *names) or "") for names in _PLACES)
    for name in (named.get(observation), named.get(trace), trace):
        if name and (decision := reader.decision_known_as(name)) is not None:
            return decision.decision_id
    return ""


_PLACES = (("observation_id", "observationId"), ("trace_id", "traceId"))


def _piece(values: Mapping[str, Any], name: str, value: float, decision_id: str) -> LoggedFeedback:
    authority = _AUTHORITIES.get(str(values.get("source") or "").upper(), FeedbackAuthority.USER)
    places = (str(first(values, *names) or "") for names in _PLACES)
    key = "\0".join(("langfuse", str(values.get("id") or ""), *places, name, repr(value)))
    return LoggedFeedback(
        feedback_id=hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32],
        decision_id=decision_id,
        at=time.time(),
        kind=FeedbackKind.SCORE.value,
        value=value,
        name=name[:MOST_NAME],
        authority=authority.value,
        source="langfuse",
        caller=None,
        verified=True,
    )
