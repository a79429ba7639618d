"""The steps of `elle ledger forget`: find the rows of a person or session in database and spool, and remove them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from router.asking.session_ids import ids_known_as
from router.errors import ConfigError
from router.ledger.records import Digester, LedgerRow, event_row
from router.ledger.settings import LedgerSettings
from router.ledger.spool import Spool


@dataclass(frozen=True, slots=True)
class RemovedRows:
    """Counts what was removed from a ledger.

    Attributes:
        decisions, outcomes, feedback: rows of the database.
        spooled: rows of the spool.
        busy_segments: parts of the spool that a service writes now, in which rows may be left.
    """

    decisions: int
    outcomes: int
    feedback: int
    spooled: int
    busy_segments: int


def forget_rows(
    settings: LedgerSettings,
    *,
    callers: Sequence[str] = (),
    sessions: Sequence[str] = (),
    decisions: Sequence[str] = (),
    author: str = "",
) -> RemovedRows:
    """Remove the decisions of callers and sessions, and single ones, with all answers to them and all feedback on them.

    What the callers said of the answers of others goes too. The audit trail of the ledger says how many rows went and
    who removed them, but not whose they were.

    Raises ConfigError if the ledger or its key cannot be used.
    """
    from router.ledger.insertion import DatabaseSink
    from router.ledger.opening import require_exists, require_installed
    from router.ledger.writer import LedgerDownError

    require_installed(settings)
    require_exists(settings)
    by_caller, by_session = _digests(settings, callers, sessions)
    spool = Spool(settings.spool_folder, settings.spool_bytes)
    with contextlib.closing(DatabaseSink(settings)) as sink:
        try:
            sink.migrate()
            ids = {*decisions, *sink.decisions_of(by_caller, by_session)}
            ids |= {
                str(row.values["decision_id"])
                for row in spool.waiting()
                if row.table == "decisions"
                and (row.values["caller"] in by_caller or row.values["session"] in by_session)
            }

            def must_go(row: LedgerRow) -> bool:
                is_said = row.table == "feedback" and row.values["caller"] in by_caller
                return row.values.get("decision_id") in ids or is_said

            # The spool comes first, so that nothing is brought back from it.
            spooled, busy = spool.remove(must_go)
            removed = sink.remove(ids, by_caller)
            counts = {**removed, "spooled": spooled}
            sink.write([event_row("rows_forgotten", counts, actor=author)])
        except LedgerDownError as error:
            raise ConfigError(settings.unusable(str(error))) from None
    return RemovedRows(**counts, busy_segments=busy)


def _digests(settings: LedgerSettings, callers: Sequence[str], sessions: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the keyed digests of callers and sessions, as the rows hold them."""
    if not callers and not sessions:
        return set(), set()
    digester = Digester(settings.existing_key())
    by_caller = {digest for one in callers if (digest := digester.of_name("caller", one)) is not None}
    known = {name for one in sessions for name in ids_known_as(one)}
    by_session = {digest for one in known if (digest := digester.of_name("session", one)) is not None}
    return by_caller, by_session
