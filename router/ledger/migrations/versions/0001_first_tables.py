"""Make the tables of the first version: decisions, outcomes, feedback and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID, _SHA, _NAME = sa.String(32), sa.String(64), sa.String(512)
_NUMBER: sa.Double[float] = sa.Double()
_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    """Make the four tables and their indices."""
    _make_decisions()
    _make_events()
    _make_feedback()
    _make_outcomes()


def _make_decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("decision_id", _ID, nullable=False),
        sa.Column("at", _NUMBER, nullable=False),
        sa.Column("request_id", _NAME),
        sa.Column("policy", _NAME, nullable=False),
        sa.Column("policy_version", _NAME, nullable=False),
        sa.Column("policy_digest", _SHA, nullable=False),
        sa.Column("probe_digest", _SHA),
        sa.Column("requested", _NAME, nullable=False),
        sa.Column("chosen", _NAME, nullable=False),
        sa.Column("reason", _NAME, nullable=False),
        sa.Column("threshold", _NUMBER),
        sa.Column("gain", _NUMBER),
        sa.Column("abstained", sa.Boolean(), nullable=False),
        sa.Column("would_choose", _NAME),
        sa.Column("propensity", _NUMBER, nullable=False),
        sa.Column("escalated_from", _ID),
        sa.Column("candidates", _JSON, nullable=False),
        sa.Column("difficulty", _NUMBER),
        sa.Column("leverage", _NUMBER),
        sa.Column("expected_cost_usd", _NUMBER),
        sa.Column("caller", _ID),
        sa.Column("session", _ID),
        sa.Column("prompt_digest", _ID),
        sa.Column("task", _NAME),
        sa.Column("language", _NAME, nullable=False),
        sa.Column("has_code", sa.Boolean(), nullable=False),
        sa.Column("needs", _JSON, nullable=False),
        sa.Column("kinds", _JSON),
        sa.Column("score", _JSON),
        sa.Column("overrides", _JSON),
        sa.Column("in_tool_loop", sa.Boolean(), nullable=False),
        sa.Column("input_tokens_estimate", sa.BigInteger(), nullable=False),
        sa.Column("queue_s", _NUMBER, nullable=False),
        sa.Column("encode_s", _NUMBER, nullable=False),
        sa.Column("total_s", _NUMBER, nullable=False),
        sa.Column("cached", sa.Boolean(), nullable=False),
        sa.Column("prompt", sa.Text()),
        sa.Column("encoder", _NAME),
        sa.Column("features", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("decision_id"),
    )
    op.create_index(op.f("ix_decisions_request_id"), "decisions", ["request_id"], unique=False)


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("at", _NUMBER, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("policy_digest", _SHA),
        sa.Column("actor", _NAME, nullable=False),
        sa.Column("detail", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index(op.f("ix_events_kind"), "events", ["kind"], unique=False)


def _make_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("feedback_id", _ID, nullable=False),
        sa.Column("decision_id", _ID, nullable=False),
        sa.Column("at", _NUMBER, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("value", _NUMBER, nullable=False),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("authority", _NAME, nullable=False),
        sa.Column("source", _NAME, nullable=False),
        sa.Column("caller", _ID),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("feedback_id"),
    )
    op.create_index(op.f("ix_feedback_decision_id"), "feedback", ["decision_id"], unique=False)


def _make_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("decision_id", _ID, nullable=False),
        sa.Column("at", _NUMBER, nullable=False),
        sa.Column("outcome", _NAME, nullable=False),
        sa.Column("answered_by", _NAME, nullable=False),
        sa.Column("fell_back", sa.Boolean(), nullable=False),
        sa.Column("attempts", _JSON, nullable=False),
        sa.Column("total_s", _NUMBER, nullable=False),
        sa.Column("first_content_s", _NUMBER),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
        sa.Column("cost_usd", _NUMBER),
        sa.Column("error", _NAME),
        sa.PrimaryKeyConstraint("decision_id"),
    )


def downgrade() -> None:
    """Remove the tables and everything in them."""
    for name in ("outcomes", "feedback", "events", "decisions"):
        op.drop_table(name)
