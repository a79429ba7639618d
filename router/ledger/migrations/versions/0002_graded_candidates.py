"""Let feedback name the candidate whose answer it is about, because several may have answered the same request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column `candidate` to the feedback."""
    with op.batch_alter_table("feedback") as table:
        table.add_column(sa.Column("candidate", sa.String(512), nullable=True))
