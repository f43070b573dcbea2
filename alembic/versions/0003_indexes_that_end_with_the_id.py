"""Indexes of users in the whole order in which they are read.

Users that were stored together have one `released_at`, and the first of them by id was
found by sorting all of them.
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IN_ROTATION = "lease_id IS NULL AND quarantined_at IS NULL"
POOL = ["env", "domain"]
FREE = [*POOL, "label_count", "released_at"]


def upgrade() -> None:
    _replace([*FREE, "id"], [*POOL, "id"])


def downgrade() -> None:
    _replace(FREE, POOL)


def _replace(free: list[str], pool: list[str]) -> None:
    op.drop_index("ix_users_free", table_name="users")
    op.create_index(
        "ix_users_free",
        "users",
        free,
        postgresql_where=sa.text(IN_ROTATION),
        sqlite_where=sa.text(IN_ROTATION),
    )
    op.drop_index("ix_users_env_domain", table_name="users")
    op.create_index("ix_users_env_domain", "users", pool)
