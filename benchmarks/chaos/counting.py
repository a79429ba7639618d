"""Look up in the ledger what callers were told, and count what is lost, doubled or otherwise than they were told."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from benchmarks.chaos.load import Load, Reply
from router.ledger import tables

#: Seconds before a process is killed in which rows may be lost with it: a commit gathers rows for 0.1 s.
GRACE_S = 1.0

#: Seconds that the ledger gets to take over what its spool holds. A database that failed is tried every 10 s.
SETTLE_S = 40.0


@dataclass
class Kept:
    """Holds the contents of a ledger: its decisions and its feedback by their ids, and the ids of its answers."""

    decisions: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    outcomes: set[str] = field(default_factory=set)
    feedback: dict[str, str] = field(default_factory=dict)
    doubled: int = 0


def kept(url: str) -> Kept:
    """Read a ledger."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            said = tables.decisions.c
            columns = (said.decision_id, said.request_id, said.policy_digest, said.chosen, said.policy)
            rows = connection.execute(sa.select(*columns)).all()
            outcomes = connection.execute(sa.select(tables.outcomes.c.decision_id)).all()
            given = connection.execute(sa.select(tables.feedback.c.feedback_id, tables.feedback.c.decision_id)).all()
    finally:
        engine.dispose()
    requests = Counter(row.request_id for row in rows if row.request_id)
    graded = Counter(row.decision_id for row in given)
    return Kept(
        {row.decision_id: (row.policy, row.policy_digest, row.chosen) for row in rows},
        {row.decision_id for row in outcomes},
        {row.feedback_id: row.decision_id for row in given},
        sum(n - 1 for n in (*requests.values(), *graded.values()) if n > 1),
    )


def counted(load: Load, url: str, kills: Sequence[float], known: dict[str, str | None]) -> dict[str, Any]:
    """Compare what callers were told with the ledger, once it has taken everything or `SETTLE_S` have passed.

    Args:
        load: what callers were told.
        url: where the ledger is, for SQLAlchemy.
        kills: when processes were killed or stopped.
        known: see `Service.known`.
    """
    ends = time.monotonic() + SETTLE_S
    while True:
        is_last = time.monotonic() > ends
        try:
            found = compared(load, kept(url), kills, known)
            if is_last or not (found["lost_decisions"] or found["lost_outcomes"] or found["lost_feedback"]):
                return found
        except sa.exc.OperationalError:
            # A database that was killed recovers for a moment.
            if is_last:
                raise
        time.sleep(1.0)


def compared(load: Load, ledger: Kept, kills: Sequence[float], known: dict[str, str | None]) -> dict[str, Any]:
    """Compare what callers were told with what a ledger has; see `counted`."""
    missing = [reply for reply in load.replies if reply.decision_id not in ledger.decisions]
    unanswered = [
        reply for reply in load.replies if reply.method == "Complete" and reply.decision_id not in ledger.outcomes
    ]
    lost = [reply for reply in missing if reply.decision_id in load.accepted or not _near(reply, kills)]
    # The row of an answer comes after that of its decision, so feedback says nothing about it.
    lost_outcomes = [reply for reply in unanswered if not _near(reply, kills)]
    return {
        "decisions": len(load.replies),
        "outcomes": sum(reply.method == "Complete" for reply in load.replies),
        "feedback": len(load.feedback),
        "lost_decisions": len(lost),
        "lost_outcomes": len(lost_outcomes),
        "lost_feedback": sum(one not in ledger.feedback for one in load.feedback),
        "doubled": ledger.doubled,
        "other_version": sum(_is_of_another_version(reply, ledger, known) for reply in load.replies),
        "lost_with_the_process": len({reply.decision_id for reply in (*missing, *unanswered)})
        - len({reply.decision_id for reply in (*lost, *lost_outcomes)}),
    }


def _near(reply: Reply, kills: Sequence[float]) -> bool:
    return any(reply.at <= kill <= reply.at + GRACE_S for kill in kills)


def _is_of_another_version(reply: Reply, ledger: Kept, known: dict[str, str | None]) -> bool:
    """Return whether a reply, its row, and what the version that both name chooses, do not all agree."""
    if reply.digest not in known or known[reply.digest] not in (None, reply.chosen):
        return True
    row = ledger.decisions.get(reply.decision_id)
    return row is not None and row != (reply.policy, reply.digest, reply.chosen)
