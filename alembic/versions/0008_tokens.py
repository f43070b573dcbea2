"""Tokens, and whose a lease is."""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    time = sa.DateTime(timezone=True)
    op.create_table(
        "tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=True),
        sa.Column("last_used_at", time, nullable=True),
        sa.Column("revoked_at", time, nullable=True),
        sa.CheckConstraint(
            "role IN ('read', 'lease', 'admin')", name=op.f("ck_tokens_role")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    # Both are null in what a server of the version before writes: its leases are seen
    # and ended by tokens of all projects, and by admins.
    op.add_column("leases", sa.Column("token_id", sa.Uuid(), nullable=True))
    op.add_column("leases", sa.Column("project_id", sa.Uuid(), nullable=True))
    op.create_index(
        "ix_leases_project_id",
        "leases",
        ["project_id", "number"],
        postgresql_where=sa.text("project_id IS NOT NULL"),
        sqlite_where=sa.text("project_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_leases_project_id", table_name="leases")
    op.drop_column("leases", "project_id")
    op.drop_column("leases", "token_id")
    op.drop_table("tokens")
