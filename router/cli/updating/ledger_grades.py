"""The steps that bring grades into a ledger and out of it: `elle ledger label`, and labels for `elle recalibrate`."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from router.errors import ConfigError
from router.feedback.grades import Grade, KeptGrades, graded_outcomes, keep_grades
from router.feedback.pieces import FeedbackAuthority
from router.ledger.settings import LedgerSettings


def label_ledger(files: Sequence[Path], ledger: str, *, authority: FeedbackAuthority, source: str) -> KeptGrades:
    """Put the scores of outcomes into a ledger. Their `prompt_id` is the id of a decision.

    Raises ConfigError or DataError if the files or the ledger cannot be used.
    """
    from router.ledger.insertion import DatabaseSink
    from router.ledger.opening import migrate_ledger, opened_reader, require_exists
    from router.tuning.outcomes.datasets import read_outcomes

    outcomes = read_outcomes(*files)
    grades = [
        Grade(outcomes.ids[row], outcomes.models[column], float(outcomes.scores[row, column]))
        for row, column in np.argwhere(np.isfinite(outcomes.scores)).tolist()
    ]
    settings = LedgerSettings(ledger)
    require_exists(settings)
    migrate_ledger(settings)
    with opened_reader(settings) as reader, contextlib.closing(DatabaseSink(settings)) as sink:
        return keep_grades(grades, reader, sink, authority=authority, source=source)


@contextlib.contextmanager
def labels_of_ledger(ledger: str | None, since: float | None, beside: Path) -> Iterator[tuple[Path, ...]]:
    """Write the grades of a ledger into a file of outcomes, and yield it for a while; yield none without a ledger.

    The file holds prompts, so only its owner may read it. `beside`: what lies in the folder where it is made.

    Raises ConfigError if the ledger cannot be read, or holds no grade of a decision whose prompt it keeps.
    """
    if ledger is None:
        yield ()
        return
    from router.ledger.opening import opened_reader
    from router.ledger.reader import Span

    with (
        tempfile.NamedTemporaryFile("w", suffix=".jsonl", dir=beside.resolve().parent, encoding="utf-8") as file,
        opened_reader(LedgerSettings(ledger)) as reader,
    ):
        n_rows = 0
        for row in graded_outcomes(reader.decisions(Span(since=since))):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            n_rows += 1
        if not n_rows:
            raise ConfigError(
                "the ledger has no grade of a decision whose prompt it keeps; the service needs --ledger-prompts, and "
                "`elle ledger label` brings the grades."
            )
        file.flush()
        yield (Path(file.name),)
