"""Places in pools, kept for users that suites make."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reservations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("env", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations")),
    )
    op.add_column("users", sa.Column("reservation_id", sa.Uuid(), nullable=True))
    op.create_index(
        op.f("ix_users_reservation_id"), "users", ["reservation_id"], unique=True
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_users_reservation_id"), table_name="users")
    op.drop_column("users", "reservation_id")
    op.drop_table("reservations")
