"""Read a ledger in the order of time and in bounded memory (`LedgerReader`), for everything that learns from it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
import sqlalchemy as sa

from router.errors import ConfigError
from router.ledger.database import check_version, driver_words, open_engine
from router.ledger.settings import LedgerSettings
from router.ledger.tables import decisions, events, feedback, outcomes
from router.times import first_id_at

Logged = TypeVar("Logged", bound="_Logged")

#: Decisions that are read at a time.
_PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True)
class LoggedCandidate:
    """Holds one candidate of a logged decision; the attributes are those of `router.decision.CandidateRisk`."""

    candidate: str
    raw: float | None
    risk: float | None
    cost: float | None
    eligible: bool


class _Logged:
    """The base of rows that were read: their attributes are columns of a table in `router.ledger.tables`."""

    @classmethod
    def of(cls, row: sa.RowMapping) -> Self:
        """Return the value for a row."""
        names = (field.name for field in fields(cls))  # type: ignore[arg-type]
        return cls(**{name: row[name] for name in names})


@dataclass(frozen=True, slots=True)
class LoggedOutcome(_Logged):
    """Holds how the answer of a logged decision ended, as the table `outcomes` says."""

    decision_id: str
    at: float
    outcome: str
    answered_by: str
    fell_back: bool
    attempts: Sequence[Mapping[str, Any]]
    total_s: float
    first_content_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Arrival(_Logged):
    """Says how an answer ended, and when the ledger learned of it.

    Attributes:
        decision_id: the id of the decision.
        policy: the name of the policy that decided.
        outcome: answered, failed or abandoned.
        total_s: the seconds that the answer took.
        arrived: when the row came into the database, in seconds since 1970.
    """

    decision_id: str
    policy: str
    outcome: str
    total_s: float
    arrived: float


@dataclass(frozen=True, slots=True)
class LoggedFeedback(_Logged):
    """Holds one piece of feedback, as the table `feedback` says."""

    feedback_id: str
    decision_id: str
    at: float
    kind: str
    value: float
    name: str
    authority: str
    source: str
    caller: str | None
    verified: bool
    candidate: str | None = None


@dataclass(frozen=True, slots=True)
class LoggedEvent(_Logged):
    """Holds one entry of the audit trail, as the table `events` says."""

    event_id: str
    at: float
    kind: str
    policy_digest: str | None
    actor: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """Holds one decision with its answer and its feedback.

    Attributes:
        values: the columns of the table `decisions`.
        candidates: the candidates in the order of the policy.
        outcome: how the answer ended; None if nobody was asked to answer, or it has not ended.
        feedback: all feedback about the decision, oldest first.
    """

    values: Mapping[str, Any]
    candidates: tuple[LoggedCandidate, ...]
    outcome: LoggedOutcome | None
    feedback: tuple[LoggedFeedback, ...]

    @property
    def decision_id(self) -> str:
        """Return the id of the decision."""
        return str(self.values["decision_id"])

    @property
    def chosen(self) -> str:
        """Return the name of the chosen candidate."""
        return str(self.values["chosen"])

    @property
    def answered_by(self) -> str:
        """Return the name of the candidate that answered; empty if nobody did."""
        return self.outcome.answered_by if self.outcome is not None else ""

    @property
    def features(self) -> np.ndarray | None:
        """Return the features of the prompt in float32, or None if they were not kept."""
        data = self.values["features"]
        return None if data is None else np.frombuffer(data, dtype="<f2").astype(np.float32)


@dataclass(frozen=True, slots=True)
class Span:
    """Says which decisions are read.

    Attributes:
        since: decisions made at this time or later, in seconds since 1970; None reads from the first one.
        until: decisions made before this time; None reads to the last one.
        policy: the name of the policy; None reads all.
        policy_digest: the digest of the policy; None reads all.
    """

    since: float | None = None
    until: float | None = None
    policy: str | None = None
    policy_digest: str | None = None


class LedgerReader:
    """Reads the database of a ledger. It is thread-safe, and never keeps writers waiting. Close it when done.

    Raises ConfigError if the database cannot be read or has other tables.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        self._settings = settings
        self._engine = open_engine(settings)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, settings: LedgerSettings) -> Iterator[Self]:
        """Yield a reader whose tables are checked, and close it."""
        reader = cls(settings)
        try:
            with reader.reading():
                check_version(reader._engine)
            yield reader
        finally:
            reader.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Yield a connection to the database. Raises ConfigError, in one line, for what the database does not do."""
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.SQLAlchemyError as error:
            raise ConfigError(self._settings.unusable(driver_words(error))) from None

    def decisions(self, span: Span = Span()) -> Iterator[LoggedDecision]:
        """Yield decisions with their answers and feedback, oldest first."""
        after = ""
        while page := self._page(span, after):
            yield from page
            after = page[-1].decision_id

    def arrivals(self, policies: Collection[str], since: float, after: float) -> Iterator[Arrival]:
        """Yield how answers ended that came into the database after a time, in the order in which they came.

        An answer that waited in the spool comes late. So this, other than the time of a decision, says what is new.

        Args:
            policies: the names of the policies that decided.
            since: only decisions made at this time or later count, in seconds since 1970.
            after: the time, in seconds since 1970.
        """
        # Rows of before the column was made have no time of arrival.
        arrived = sa.func.coalesce(outcomes.c.arrived, outcomes.c.at).label("arrived")
        columns = (outcomes.c.decision_id, decisions.c.policy, outcomes.c.outcome, outcomes.c.total_s, arrived)
        joined = outcomes.join(decisions, decisions.c.decision_id == outcomes.c.decision_id)
        wanted = outcomes.c.decision_id >= first_id_at(since), decisions.c.policy.in_(policies), arrived > after
        query = sa.select(*columns).select_from(joined).where(*wanted).order_by(arrived, outcomes.c.decision_id)
        with self.reading() as connection:
            for row in connection.execution_options(yield_per=_PAGE_ROWS).execute(query).mappings():
                yield Arrival.of(row)

    def count(self, span: Span = Span()) -> int:
        """Return the number of decisions that `decisions` yields."""
        with self.reading() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(decisions).where(*_within(span))
            ).scalar_one()

    def decision(self, decision_id: str) -> LoggedDecision | None:
        """Return one decision by its id, or None if the ledger has no such decision."""
        return self._one(decisions.c.decision_id == decision_id)

    def decision_of_request(self, request_id: str, caller: str | None) -> LoggedDecision | None:
        """Return the newest decision of a caller about a request with this id, or None if there is none.

        caller: the keyed digest of the caller; None for callers without a credential.
        """
        return self._one(decisions.c.request_id == request_id, decisions.c.caller.is_not_distinct_from(caller))

    def decision_known_as(self, name: str) -> LoggedDecision | None:
        """Return the decision with this id, or of the only request with this id; None if there are none or several.

        This does not ask whose decision it is, so it is for the operator.
        """
        if (found := self._one(decisions.c.decision_id == name)) is not None:
            return found
        same = self._read(sa.select(decisions).where(decisions.c.request_id == name).limit(2))
        return same[0] if len(same) == 1 else None

    def feedback_by_id(self, feedback_id: str) -> LoggedFeedback | None:
        """Return one piece of feedback by its id, or None if the ledger has no such piece."""
        with self.reading() as connection:
            row = (
                connection.execute(sa.select(feedback).where(feedback.c.feedback_id == feedback_id)).mappings().first()
            )
        return None if row is None else LoggedFeedback.of(row)

    def events(self, *kinds: str, since: float = 0.0) -> Iterator[LoggedEvent]:
        """Yield the audit trail, oldest first; of these kinds only, if any are named."""
        wanted = [events.c.at >= since, *([events.c.kind.in_(kinds)] if kinds else [])]
        with self.reading() as connection:
            query = sa.select(events).where(*wanted).order_by(events.c.event_id)
            for row in connection.execution_options(yield_per=_PAGE_ROWS).execute(query).mappings():
                yield LoggedEvent.of(row)

    def explored_usd(self, since: float) -> dict[str, float]:
        """Return by policy what explored decisions from this time on have cost, or were expected to cost."""
        cost = sa.func.coalesce(outcomes.c.cost_usd, decisions.c.expected_cost_usd, 0.0)
        joined = decisions.outerjoin(outcomes, outcomes.c.decision_id == decisions.c.decision_id)
        query = sa.select(decisions.c.policy, sa.func.sum(cost)).select_from(joined)
        wanted = decisions.c.decision_id >= first_id_at(since), decisions.c.reason == "EXPLORED"
        spent: dict[str, float] = {}
        with self.reading() as connection:
            for name, usd in connection.execute(query.where(*wanted).group_by(decisions.c.policy)):
                policy = name.partition(":")[0]
                spent[policy] = spent.get(policy, 0.0) + usd
        return spent

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    def _page(self, span: Span, after: str) -> list[LoggedDecision]:
        query = sa.select(decisions).where(*_within(span), decisions.c.decision_id > after)
        return self._read(query.order_by(decisions.c.decision_id).limit(_PAGE_ROWS))

    def _one(self, *wanted: sa.ColumnElement[bool]) -> LoggedDecision | None:
        query = sa.select(decisions).where(*wanted).order_by(decisions.c.decision_id.desc()).limit(1)
        return next(iter(self._read(query)), None)

    def _read(self, query: sa.Select[Any]) -> list[LoggedDecision]:
        with self.reading() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
            ids = [row["decision_id"] for row in rows]
            answered = connection.execute(sa.select(outcomes).where(outcomes.c.decision_id.in_(ids))).mappings()
            ends = {row["decision_id"]: LoggedOutcome.of(row) for row in answered}
            said = sa.select(feedback).where(feedback.c.decision_id.in_(ids)).order_by(feedback.c.at)
            pieces: dict[str, list[LoggedFeedback]] = {}
            for row in connection.execute(said).mappings():
                pieces.setdefault(row["decision_id"], []).append(LoggedFeedback.of(row))
        return [
            LoggedDecision(
                values=row,
                candidates=tuple(LoggedCandidate(**one) for one in row["candidates"]),
                outcome=ends.get(row["decision_id"]),
                feedback=tuple(pieces.get(row["decision_id"], ())),
            )
            for row in rows
        ]


def _within(span: Span) -> list[sa.ColumnElement[bool]]:
    wanted: list[sa.ColumnElement[bool]] = []
    if span.since is not None:
        wanted.append(decisions.c.decision_id >= first_id_at(span.since))
    if span.until is not None:
        wanted.append(decisions.c.decision_id < first_id_at(span.until))
    if span.policy is not None:
        wanted.append(decisions.c.policy == span.policy)
    if span.policy_digest is not None:
        wanted.append(decisions.c.policy_digest == span.policy_digest)
    return wanted
