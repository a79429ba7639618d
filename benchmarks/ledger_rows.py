"""Measure how many decisions a second one writer puts into a ledger, and how many bytes each takes; print JSON.

    python -m benchmarks.ledger_rows new.db
    python -m benchmarks.ledger_rows postgresql://elle@localhost/empty

The rows are those of real decisions by the embedded policy, written again under new ids. The ledger must be empty.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import sqlalchemy as sa

from benchmarks.bench_probe import commit, hardware
from benchmarks.serve.prompts import read_prompts
from router.deciding.pipeline import Router
from router.ledger.database import open_engine
from router.ledger.insertion import DatabaseSink
from router.ledger.recorder import Ledger
from router.ledger.records import LedgerRow
from router.ledger.settings import LedgerSettings
from router.observing.observer import Observers
from router.policies.loading import DEFAULT_POLICY, load_policies
from router.values import RouteQuery

ROWS, BATCH, DECISIONS = 20_000, 100, 150


def decision_rows() -> list[LedgerRow]:
    """Decide some prompts, and return the rows that a ledger writes of them."""
    rows: list[LedgerRow] = []

    def keep(_: DatabaseSink, batch: Sequence[LedgerRow]) -> int:
        rows.extend(batch)
        return 0

    with tempfile.TemporaryDirectory() as folder, patch.object(DatabaseSink, "write", keep):
        ledger = Ledger(LedgerSettings(f"{folder}/ledger.db"))
        router = Router.from_policies(load_policies([DEFAULT_POLICY]), observers=Observers(ledger))
        for number, prompt in enumerate(read_prompts(DECISIONS)):
            router.decide(RouteQuery.from_prompt(prompt, session_id=str(number)), caller="somebody")
        ledger.close()
    return [row for row in rows if "decision_id" in row.values]


def size(settings: LedgerSettings) -> int:
    """Return the bytes of the table of decisions, or of the whole SQLite file."""
    engine = open_engine(settings)
    if settings.is_sqlite:
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        engine.dispose()
        return Path(settings.place).stat().st_size
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT pg_total_relation_size('decisions')")).scalar_one()
    engine.dispose()
    return int(found)


def main() -> None:
    """Write the rows, and print what was found."""
    settings, rows = LedgerSettings(sys.argv[1]), decision_rows()
    many = [
        replace(rows[n % len(rows)], values={**rows[n % len(rows)].values, "decision_id": uuid.uuid4().hex[:26]})
        for n in range(ROWS)
    ]
    sink = DatabaseSink(settings)
    sink.migrate()
    begun, empty = time.perf_counter(), size(settings)
    for place in range(0, ROWS, BATCH):
        sink.write(many[place : place + BATCH])
    took_s = time.perf_counter() - begun
    sink.close()
    found = {"rows": ROWS, "rows_per_second": ROWS / took_s, "bytes_per_decision": (size(settings) - empty) / ROWS}
    head = {"commit": commit(), "hardware": hardware(), "load_average": os.getloadavg()[0]}
    print(json.dumps({**head, "database": settings.name, "rows_in_a_batch": BATCH, **found}, indent=2))


if __name__ == "__main__":
    main()
