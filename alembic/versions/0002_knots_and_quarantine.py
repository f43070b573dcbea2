"""Knots of waiters, who put a user in quarantine, and failures in a row."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    document = sa.JSON().with_variant(
        postgresql.JSONB(astext_type=sa.Text()), "postgresql"
    )
    op.add_column("leases", sa.Column("knot", document, nullable=True))
    op.add_column("users", sa.Column("failed_tests", document, nullable=True))
    op.add_column("users", sa.Column("quarantined_by", sa.Text(), nullable=True))
    if op.get_context().dialect.name == "postgresql":
        op.create_index(
            "ix_users_labels",
            "users",
            ["labels"],
            postgresql_using="gin",
            postgresql_ops={"labels": "jsonb_path_ops"},
        )
    op.create_index("ix_users_project_id", "users", ["project_id"])


def downgrade() -> None:
    op.drop_index("ix_users_project_id", table_name="users")
    if op.get_context().dialect.name == "postgresql":
        op.drop_index("ix_users_labels", table_name="users")
    op.drop_column("users", "quarantined_by")
    op.drop_column("users", "failed_tests")
    op.drop_column("leases", "knot")
