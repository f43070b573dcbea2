"""Leases that are kept for a person to look at."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A server of the version before writes none, and ends a kept one with its run.
    column = sa.Column("kept_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("leases", column)


def downgrade() -> None:
    op.drop_column("leases", "kept_at")
