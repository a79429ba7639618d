"""The row of an answer in the background is written over once its end is known, in whatever order the rows come."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from router.attempts import Attempt, AttemptOutcome
from router.decision import ArtifactRef
from router.ledger.database import open_engine
from router.ledger.insertion import DatabaseSink
from router.ledger.records import LedgerRow, outcome_row, settled_row
from router.ledger.settings import LedgerSettings
from router.ledger.tables import outcomes
from router.observing.observer import AnsweredEvent, AnswerOutcome, SettledEvent
from router.times import new_id
from tests.postgres import missing, running_postgres
from tests.router.ledger.rows import sqlite_ledger
from tests.router.observing.events import decision_of


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=pytest.mark.skipif(bool(missing()), reason=missing()))]
)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LedgerSettings]:
    if request.param == "sqlite":
        yield sqlite_ledger(tmp_path)
        return
    (tmp_path / "key").write_text("0" * 32)
    with running_postgres() as server:
        yield LedgerSettings(server.url, key_file=tmp_path / "key", spool_dir=tmp_path / "spool")


def pair(decision_id: str) -> tuple[LedgerRow, LedgerRow]:
    """Return the row of an answer that has begun, and the row that says what it used."""
    decision = decision_of(decision_id=decision_id)
    attempts = (Attempt("small", AttemptOutcome.TIMED_OUT), Attempt("large", AttemptOutcome.ANSWERED))
    begun = AnsweredEvent(decision, AnswerOutcome.ABANDONED, "large", attempts, 0.5, first_content_s=0.25, at=100.0)
    ended = SettledEvent(decision_id, ArtifactRef("p", "1", "d"), "large", AnswerOutcome.ANSWERED, 110, 2, 0.5, 0.1)
    return outcome_row(begun), settled_row(ended)


def test_the_later_of_two_answers_counts_and_the_first_says_who_gave_it(settings: LedgerSettings) -> None:
    orders = [order for n in (2, 3) for order in itertools.product((0, 1), repeat=n) if set(order) == {0, 1}]
    ids = {new_id(): order for order in orders}
    pairs = {decision_id: pair(decision_id) for decision_id in ids}
    sink = DatabaseSink(settings)
    for step in range(3):
        rows = [pairs[one][order[step]] for one, order in ids.items() if step < len(order)]
        random.Random(step).shuffle(rows)
        sink.write(rows)
    sink.close()
    engine = open_engine(settings)
    with engine.connect() as connection:
        found: list[Any] = list(connection.execute(sa.select(outcomes)).mappings())
    engine.dispose()
    assert len(found) == len(orders)
    for row in found:
        begun, ended = (one.values for one in pairs[row["decision_id"]])
        assert [row[name] for name in ("at", "outcome", "cost_usd")] == [ended["at"], "answered", 0.5]
        assert [row[name] for name in ("input_tokens", "output_tokens", "error")] == [110, 2, None]
        first = begun if ids[row["decision_id"]][0] == 0 else ended
        assert (row["answered_by"], row["attempts"], row["total_s"]) == ("large", first["attempts"], first["total_s"])


def test_two_rows_of_one_answer_may_come_in_one_statement(settings: LedgerSettings) -> None:
    begun, ended = pair(new_id())
    sink = DatabaseSink(settings)
    assert sink.write([ended, begun, ended, begun]) == 0
    sink.close()
    engine = open_engine(settings)
    with engine.connect() as connection:
        [row] = connection.execute(sa.select(outcomes)).mappings()
    engine.dispose()
    assert row["cost_usd"] == 0.5
