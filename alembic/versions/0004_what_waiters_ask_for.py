"""What each waiter asks for, digested, beside its place in the queue."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Without a value a waiter is of a kind of its own: so is who waits already, and who
    # is written by a server of the version before, which may go on for a while.
    op.add_column("queue_entries", sa.Column("kind", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("queue_entries", "kind")
