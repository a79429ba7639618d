"""Run the migrations on the connection that `router.ledger.database` hands over. Alembic imports this file."""

from __future__ import annotations

from alembic import context

from router.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table in place.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
