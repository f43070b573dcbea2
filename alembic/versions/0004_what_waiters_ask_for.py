"""What each waiter asks for, digested, beside its place in the queue."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("queue_entries", sa.Column("kind", sa.Uuid(), nullable=True))
    # Who waits already is of a kind of its own, and so never passed over with others.
    op.execute("UPDATE queue_entries SET kind = lease_id")
    with op.batch_alter_table("queue_entries") as batch:
        batch.alter_column("kind", existing_type=sa.Uuid(), nullable=False)


def downgrade() -> None:
    op.drop_column("queue_entries", "kind")
