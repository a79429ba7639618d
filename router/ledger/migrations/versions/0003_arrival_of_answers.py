"""Let each answer say when it came into the database: rows that were spooled come late, whenever they were made."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column `arrived` to the outcomes. Rows that are there have none."""
    with op.batch_alter_table("outcomes") as table:
        table.add_column(sa.Column("arrived", sa.Double(), nullable=True))


def downgrade() -> None:
    """Remove the column `arrived`."""
    with op.batch_alter_table("outcomes") as table:
        table.drop_column("arrived")
