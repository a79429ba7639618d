"""Count what a ledger holds (`ledger_stats`): decisions, answers, costs and feedback."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from router.ledger.reader import LedgerReader
from router.ledger.tables import decisions, events, feedback, outcomes
from router.times import first_id_at


def ledger_stats(reader: LedgerReader, since: float | None = None) -> dict[str, Any]:
    """Return figures of the decisions made at this time or later, in seconds since 1970, as plain JSON.

    Shares are over decisions. Costs are of answers whose cost is known. Means of feedback are over all pieces;
    `router.feedback.weighing` says which of them count.
    """
    oldest = "" if since is None else first_id_at(since)
    wanted = decisions.c.decision_id >= oldest
    with reader.reading() as connection:
        return {
            **_of_decisions(connection, wanted),
            "by_policy": _counts(connection, wanted, decisions.c.policy, decisions.c.policy_digest),
            "by_candidate": _counts(connection, wanted, decisions.c.chosen),
            "by_reason": _counts(connection, wanted, decisions.c.reason),
            "answers": _of_answers(connection, outcomes.c.decision_id >= oldest),
            "feedback": _of_feedback(connection, feedback.c.decision_id >= oldest),
            "rows_dropped": _dropped(connection, oldest),
        }


def _of_decisions(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> dict[str, Any]:
    columns = (
        sa.func.count().label("decisions"),
        sa.func.min(decisions.c.at).label("first_at"),
        sa.func.max(decisions.c.at).label("last_at"),
        sa.func.avg(sa.cast(decisions.c.abstained, sa.Integer)).label("abstained_share"),
        sa.func.avg(sa.case((decisions.c.propensity < 1, 1), else_=0)).label("with_exploring_share"),
        sa.func.avg(decisions.c.total_s).label("mean_total_s"),
    )
    row = connection.execute(sa.select(*columns).where(wanted)).mappings().one()
    return {name: value if value is None or name == "decisions" else float(value) for name, value in row.items()}


def _counts(
    connection: sa.Connection, wanted: sa.ColumnElement[bool], *columns: sa.Column[Any]
) -> list[dict[str, Any]]:
    count = sa.func.count().label("decisions")
    query = sa.select(*columns, count).where(wanted).group_by(*columns).order_by(count.desc(), *columns)
    return [dict(row) for row in connection.execute(query).mappings()]


def _of_answers(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    columns = (
        outcomes.c.outcome,
        sa.func.count().label("answers"),
        sa.func.sum(sa.case((outcomes.c.fell_back, 1), else_=0)).label("fell_back"),
        sa.func.sum(outcomes.c.cost_usd).label("cost_usd"),
        sa.func.count(outcomes.c.cost_usd).label("with_known_cost"),
        sa.func.avg(outcomes.c.total_s).label("mean_total_s"),
    )
    query = sa.select(*columns).where(wanted).group_by(outcomes.c.outcome).order_by(outcomes.c.outcome)
    return [dict(row) for row in connection.execute(query).mappings()]


def _of_feedback(connection: sa.Connection, wanted: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    columns = (
        feedback.c.kind,
        feedback.c.authority,
        sa.func.count().label("pieces"),
        sa.func.avg(feedback.c.value).label("mean_value"),
    )
    by = (feedback.c.kind, feedback.c.authority)
    query = sa.select(*columns).where(wanted).group_by(*by).order_by(*by)
    return [dict(row) for row in connection.execute(query).mappings()]


def _dropped(connection: sa.Connection, oldest: str) -> int:
    query = sa.select(events.c.detail).where(events.c.kind == "rows_dropped", events.c.event_id >= oldest)
    return sum(int(detail["rows"]) for detail in connection.execute(query).scalars())
