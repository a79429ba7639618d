"""Put grades of answers into a ledger, and take them out again as outcomes (`keep_grades`, `graded_outcomes`)."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from router.errors import ConfigError
from router.feedback.pieces import MOST_NAME, FeedbackAuthority, FeedbackKind
from router.feedback.weighing import graded_losses

if TYPE_CHECKING:
    from router.ledger.insertion import DatabaseSink
    from router.ledger.reader import LedgerReader, LoggedDecision, LoggedFeedback

#: Grades that are written in one transaction.
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Grade:
    """Says how good the answer of one candidate to a decided request was: from 0, bad, to 1, good."""

    decision_id: str
    candidate: str
    score: float


@dataclass(frozen=True, slots=True)
class KeptGrades:
    """Counts what became of grades.

    Attributes:
        kept: grades that the ledger has now; some of them may have been there before.
        unknown_decisions: ids of decisions that the ledger does not have.
        unknown_candidates: names of candidates that the policy of the decision does not have.
    """

    kept: int = 0
    unknown_decisions: tuple[str, ...] = ()
    unknown_candidates: tuple[str, ...] = ()


def keep_grades(
    grades: Iterable[Grade], reader: LedgerReader, sink: DatabaseSink, *, authority: FeedbackAuthority, source: str
) -> KeptGrades:
    """Write grades into a ledger as feedback that names its candidate. The same grade given again is kept once.

    A new grade of the same source takes the place of the old one when they are read. Raises ConfigError if `source` is
    too long, or if the ledger cannot be read or written.
    """
    from router.ledger.records import event_row, feedback_row
    from router.ledger.writer import LedgerDownError

    if len(source) > MOST_NAME:
        raise ConfigError(f"the name of a source must have at most {MOST_NAME} characters.")
    found, strangers, nobody = KeptGrades(), dict[str, None](), dict[str, None]()
    by_decision = itertools.groupby(sorted(grades, key=lambda one: one.decision_id), key=lambda one: one.decision_id)
    rows = []
    for decision_id, same in by_decision:
        decision = reader.decision(decision_id)
        if decision is None:
            strangers[decision_id] = None
            continue
        names = {one.candidate for one in decision.candidates}
        for grade in same:
            if grade.candidate in names:
                rows.append(feedback_row(_piece(grade, authority, source)))
            else:
                nobody[grade.candidate] = None
    try:
        for start in range(0, len(rows), _ROWS):
            sink.write(rows[start : start + _ROWS])
        if rows:
            sink.write([event_row("grades_kept", {"rows": len(rows), "source": source})])
    except LedgerDownError as error:
        raise ConfigError(f"the ledger takes no grades now ({error}); give them again later.") from None
    return replace(found, kept=len(rows), unknown_decisions=tuple(strangers), unknown_candidates=tuple(nobody))


def graded_outcomes(decisions: Iterable[LoggedDecision]) -> Iterator[dict[str, Any]]:
    """Yield the grades of decisions as rows of outcomes, for `elle recalibrate`: prompt_id, prompt, model and score.

    Decisions without grades, or without the text of their prompt, yield nothing.
    """
    for decision in decisions:
        if prompt := decision.values["prompt"]:
            for candidate, loss in graded_losses(decision).items():
                yield {"prompt_id": decision.decision_id, "prompt": prompt, "model": candidate, "score": 1 - loss}


def _piece(grade: Grade, authority: FeedbackAuthority, source: str) -> LoggedFeedback:
    from router.ledger.reader import LoggedFeedback

    key = "\0".join(("grade", grade.decision_id, grade.candidate, authority.value, source, repr(grade.score)))
    return LoggedFeedback(
        feedback_id=hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32],
        decision_id=grade.decision_id,
        at=time.time(),
        kind=FeedbackKind.SCORE.value,
        value=grade.score,
        name="",
        authority=authority.value,
        source=source,
        caller=None,
        verified=True,
        candidate=grade.candidate,
    )
