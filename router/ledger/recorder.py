"""Record what the service decides and what comes of it (`Ledger`, an observer), and the audit trail."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any

from router.ledger.insertion import DatabaseSink
from router.ledger.reader import LedgerReader
from router.ledger.records import Decided, Digester, LedgerRow, decision_row, event_row, outcome_row, settled_row
from router.ledger.settings import LedgerSettings
from router.ledger.spool import Spool
from router.ledger.writer import LedgerCounts, LedgerDownError, LedgerWriter
from router.observing.observer import AnsweredEvent, DecidedEvent, Observer, SettledEvent

log = logging.getLogger(__name__)


class Ledger(Observer):
    """The ledger of a serving process: an observer that records decisions and answers. Close it to write what waits.

    Attributes:
        settings: where it is kept and what it keeps.
        digester: makes the keyed digests of this ledger.
        writer: writes rows in a thread of its own.

    Raises ConfigError if the place is a folder, if the key cannot be used, or if a newer program made the tables. A
    database that cannot be reached is no error: rows are spooled until it can be.
    """

    def __init__(self, settings: LedgerSettings) -> None:
        settings.require_no_folder()
        self.settings = settings
        self.digester = Digester(settings.key())
        sink = DatabaseSink(settings)
        try:
            sink.migrate()
        except LedgerDownError as error:
            # The writer tries again.
            log.error("%s Until then rows go to the spool.", settings.unusable(str(error)))  # noqa: TRY400
        spool = Spool(settings.spool_folder, settings.spool_bytes)
        self.writer = LedgerWriter(sink, spool, queue_rows=settings.queue_rows, flush_s=settings.flush_s)
        self._reader: LedgerReader | None = None

    @property
    def counts(self) -> LedgerCounts:
        """Return what became of the rows since the process started."""
        return self.writer.counts

    @property
    def reader(self) -> LedgerReader:
        """Return a reader of the same database."""
        if self._reader is None:
            self._reader = LedgerReader(self.settings)
        return self._reader

    def decided(self, event: DecidedEvent) -> None:
        """Record a decision in the ledger."""
        decided = Decided.of(event, with_features=self.settings.keep_features)
        self.writer.put(functools.partial(self._decision_row, decided))

    def answered(self, event: AnsweredEvent) -> None:
        """Record how an answer ended."""
        self.writer.put(functools.partial(outcome_row, event))

    def settled(self, event: SettledEvent) -> None:
        """Record what an answer used in the row that it has already."""
        self.writer.put(functools.partial(settled_row, event))

    def note(self, kind: str, detail: Mapping[str, Any], *, policy_digest: str | None = None, actor: str = "") -> None:
        """Add a row to the audit trail. `detail` must be plain JSON and hold no text of prompts."""
        row = event_row(kind, detail, policy_digest=policy_digest, actor=actor)
        self.writer.put(lambda: row)

    def _decision_row(self, decided: Decided) -> LedgerRow:
        # The writer's thread makes all rows in a row, which takes a fraction of what it takes between two requests.
        return decision_row(decided, self.digester, with_prompt=self.settings.keep_prompts)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what waits, and close the database."""
        self.writer.close(timeout_s)
        if self._reader is not None:
            self._reader.close()
