"""What the holder of a user leaves for the next one, sealed, and until when."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A server of the version before saves none and hands none out. Nor does it drop one
    # that has become void, which its expiry ends.
    op.add_column("users", sa.Column("sealed_state", sa.LargeBinary(), nullable=True))
    op.add_column(
        "users",
        sa.Column("state_expires_at", sa.DateTime(timezone=True), nullable=True),
    )


def downgrade() -> None:
    op.drop_column("users", "state_expires_at")
    op.drop_column("users", "sealed_state")
