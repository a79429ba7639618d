"""Define the tables of the ledger, which are the same in SQLite and in PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

#: The version of these tables: the number of the last file in `migrations/versions`.
VERSION = "0003"

#: The lengths of ids, of SHA-256 in hex, of our keyed digests, and of names.
ID, SHA, DIGEST, NAME = 32, 64, 32, 512

#: JSON, which PostgreSQL stores so that it can be searched.
Json = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")

#: A number in double precision on both databases.
Number: sa.Double[float] = sa.Double()

metadata = sa.MetaData()

#: One row for each decision. `decision_id` sorts by time. Digests of caller, session and prompt are keyed (HMAC).
decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("decision_id", sa.String(ID), primary_key=True),
    sa.Column("at", Number, nullable=False, doc="seconds since 1970"),
    sa.Column("request_id", sa.String(NAME), index=True, doc="the caller's x-request-id"),
    sa.Column("policy", sa.String(NAME), nullable=False),
    sa.Column("policy_version", sa.String(NAME), nullable=False),
    sa.Column("policy_digest", sa.String(SHA), nullable=False, doc="SHA-256 of the policy that decided"),
    sa.Column("probe_digest", sa.String(SHA), doc="SHA-256 of the probe that judged"),
    sa.Column("requested", sa.String(NAME), nullable=False),
    sa.Column("chosen", sa.String(NAME), nullable=False),
    sa.Column("reason", sa.String(NAME), nullable=False),
    sa.Column("threshold", Number),
    sa.Column("gain", Number),
    sa.Column("abstained", sa.Boolean, nullable=False),
    sa.Column("would_choose", sa.String(NAME), doc="what the rule would have chosen"),
    sa.Column("propensity", Number, nullable=False, doc="the probability with which this candidate was chosen"),
    sa.Column("escalated_from", sa.String(ID), doc="the decision whose answer was not good enough"),
    sa.Column("candidates", Json, nullable=False, doc="name, raw, risk, cost and eligible of each candidate"),
    sa.Column("difficulty", Number),
    sa.Column("leverage", Number),
    sa.Column("expected_cost_usd", Number, doc="of the chosen candidate"),
    sa.Column("caller", sa.String(DIGEST), doc="keyed digest"),
    sa.Column("session", sa.String(DIGEST), doc="keyed digest"),
    sa.Column("prompt_digest", sa.String(DIGEST), doc="keyed digest of the text that is judged"),
    sa.Column("task", sa.String(NAME)),
    sa.Column("language", sa.String(NAME), nullable=False),
    sa.Column("has_code", sa.Boolean, nullable=False),
    sa.Column("needs", Json, nullable=False),
    sa.Column("kinds", Json, doc="known, and name and share of the nearest"),
    sa.Column("score", Json, doc="name, value and fault of the caller's score"),
    sa.Column("overrides", Json, doc="what the caller asked beyond the policy"),
    sa.Column("in_tool_loop", sa.Boolean, nullable=False),
    sa.Column("input_tokens_estimate", sa.BigInteger, nullable=False),
    sa.Column("queue_s", Number, nullable=False),
    sa.Column("encode_s", Number, nullable=False),
    sa.Column("total_s", Number, nullable=False),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("prompt", sa.Text, doc="the text that is judged; only with --ledger-prompts"),
    sa.Column("encoder", sa.String(NAME), doc="the identity of the encoder that made the features"),
    sa.Column("features", sa.LargeBinary, doc="float16, little-endian; only with --ledger-features"),
)

#: One row for each answer of a decided request. A decision that nobody asked to answer has none.
outcomes = sa.Table(
    "outcomes",
    metadata,
    sa.Column("decision_id", sa.String(ID), primary_key=True),
    sa.Column("at", Number, nullable=False, doc="when the answer ended, in seconds since 1970"),
    sa.Column("outcome", sa.String(NAME), nullable=False, doc="answered, failed or abandoned"),
    sa.Column("answered_by", sa.String(NAME), nullable=False),
    sa.Column("fell_back", sa.Boolean, nullable=False),
    sa.Column("attempts", Json, nullable=False),
    sa.Column("total_s", Number, nullable=False),
    sa.Column("first_content_s", Number),
    sa.Column("input_tokens", sa.BigInteger),
    sa.Column("output_tokens", sa.BigInteger),
    sa.Column("cost_usd", Number),
    sa.Column("error", sa.String(NAME), doc="the name of the error; empty if there was none"),
    sa.Column("arrived", Number, doc="when the row came into the database: late if it was spooled"),
)

#: One row for each piece of feedback. Nothing is overwritten: which row counts is decided when they are read.
feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("feedback_id", sa.String(ID), primary_key=True),
    sa.Column("decision_id", sa.String(ID), nullable=False, index=True),
    sa.Column("at", Number, nullable=False, doc="when it came, in seconds since 1970"),
    sa.Column("kind", sa.String(NAME), nullable=False, doc="score, verdict, thumb, retry, edit or check"),
    sa.Column("value", Number, nullable=False, doc="0 is bad and 1 is good"),
    sa.Column("name", sa.String(NAME), nullable=False, doc="which score or check; may be empty"),
    sa.Column("authority", sa.String(NAME), nullable=False, doc="user, reviewer, judge or verifier"),
    sa.Column("source", sa.String(NAME), nullable=False, doc="the system or person that says so; may be empty"),
    sa.Column("caller", sa.String(DIGEST), doc="keyed digest"),
    sa.Column("verified", sa.Boolean, nullable=False, doc="whether the caller may grade this decision, as was checked"),
    sa.Column("candidate", sa.String(NAME), doc="whose answer it is about; NULL: the one that the caller got"),
)

#: The audit trail: what happened to the ledger and to the policies that are served.
events = sa.Table(
    "events",
    metadata,
    sa.Column("event_id", sa.String(ID), primary_key=True),
    sa.Column("at", Number, nullable=False, doc="seconds since 1970"),
    sa.Column("kind", sa.String(NAME), nullable=False, index=True),
    sa.Column("policy_digest", sa.String(SHA)),
    sa.Column("actor", sa.String(NAME), nullable=False, doc="who did it; may be empty"),
    sa.Column("detail", Json, nullable=False),
)
