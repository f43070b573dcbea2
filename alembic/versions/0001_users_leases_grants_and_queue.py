"""Users, leases, grants and the queue."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column(
            "wants",
            sa.JSON().with_variant(
                postgresql.JSONB(astext_type=sa.Text()), "postgresql"
            ),
            nullable=False,
        ),
        sa.Column("ttl", sa.Float(), nullable=True),
        sa.Column("run_id", sa.String(length=255), nullable=True),
        sa.Column("worker_id", sa.String(length=255), nullable=True),
        sa.Column("test_id", sa.Text(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=True),
        sa.Column("job_url", sa.Text(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("poll_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("end_reason", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (state IN ('waiting', 'held'))",
            name=op.f("ck_leases_ended"),
        ),
        sa.CheckConstraint(
            "state <> 'held' OR (granted_at IS NOT NULL AND fence IS NOT NULL)",
            name=op.f("ck_leases_held"),
        ),
        sa.CheckConstraint(
            "state <> 'waiting' OR (poll_by IS NOT NULL AND granted_at IS NULL)",
            name=op.f("ck_leases_waiting"),
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'held', 'released', 'cancelled', 'abandoned',"
            " 'expired', 'revoked')",
            name=op.f("ck_leases_state"),
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_leases")),
        sa.UniqueConstraint("id", name=op.f("uq_leases_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_leases_ended_at",
        "leases",
        ["ended_at"],
        unique=False,
        postgresql_where=sa.text("ended_at IS NOT NULL"),
        sqlite_where=sa.text("ended_at IS NOT NULL"),
    )
    op.create_index(
        "ix_leases_held_expires_at",
        "leases",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("state = 'held'"),
        sqlite_where=sa.text("state = 'held'"),
    )
    op.create_index(
        "ix_leases_live_run_id",
        "leases",
        ["run_id", "worker_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('waiting', 'held')"),
        sqlite_where=sa.text("state IN ('waiting', 'held')"),
    )
    op.create_index(
        "ix_leases_waiting_poll_by",
        "leases",
        ["poll_by"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
        sqlite_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "queue_entries",
        sa.Column("env", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["leases.id"],
            name=op.f("fk_queue_entries_lease_id_leases"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "env", "domain", "number", name=op.f("pk_queue_entries")
        ),
    )
    op.create_index(
        op.f("ix_queue_entries_lease_id"), "queue_entries", ["lease_id"], unique=False
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("login", sa.String(length=255), nullable=False),
        sa.Column("env", sa.String(length=255), nullable=False),
        sa.Column("domain", sa.String(length=255), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column(
            "labels",
            sa.JSON().with_variant(
                postgresql.JSONB(astext_type=sa.Text()), "postgresql"
            ),
            nullable=False,
        ),
        sa.Column("label_count", sa.Integer(), nullable=False),
        sa.Column("password_hash", sa.String(length=60), nullable=False),
        sa.Column("sealed_password", sa.LargeBinary(), nullable=True),
        sa.Column("sealed_secrets", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("dirty", sa.Boolean(), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rest_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarantined_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("quarantine_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["leases.id"],
            name=op.f("fk_users_lease_id_leases"),
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("env", "login", name=op.f("uq_users_env_login")),
    )
    op.create_index("ix_users_env_domain", "users", ["env", "domain"], unique=False)
    op.create_index(
        "ix_users_free",
        "users",
        ["env", "domain", "label_count", "released_at"],
        unique=False,
        postgresql_where=sa.text("lease_id IS NULL AND quarantined_at IS NULL"),
        sqlite_where=sa.text("lease_id IS NULL AND quarantined_at IS NULL"),
    )
    op.create_index(
        "ix_users_lease_id",
        "users",
        ["lease_id"],
        unique=False,
        postgresql_where=sa.text("lease_id IS NOT NULL"),
        sqlite_where=sa.text("lease_id IS NOT NULL"),
    )
    op.create_table(
        "grants",
        sa.Column(
            "fence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("lease_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("want", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["leases.id"],
            name=op.f("fk_grants_lease_id_leases"),
            ondelete="CASCADE",
            initially="DEFERRED",
            deferrable=True,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_grants_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("fence", name=op.f("pk_grants")),
        sa.UniqueConstraint(
            "lease_id", "user_id", name=op.f("uq_grants_lease_id_user_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_grants_user_id"), "grants", ["user_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_grants_user_id"), table_name="grants")
    op.drop_table("grants")
    op.drop_index(
        "ix_users_lease_id",
        table_name="users",
        postgresql_where=sa.text("lease_id IS NOT NULL"),
        sqlite_where=sa.text("lease_id IS NOT NULL"),
    )
    op.drop_index(
        "ix_users_free",
        table_name="users",
        postgresql_where=sa.text("lease_id IS NULL AND quarantined_at IS NULL"),
        sqlite_where=sa.text("lease_id IS NULL AND quarantined_at IS NULL"),
    )
    op.drop_index("ix_users_env_domain", table_name="users")
    op.drop_table("users")
    op.drop_index(op.f("ix_queue_entries_lease_id"), table_name="queue_entries")
    op.drop_table("queue_entries")
    op.drop_index(
        "ix_leases_waiting_poll_by",
        table_name="leases",
        postgresql_where=sa.text("state = 'waiting'"),
        sqlite_where=sa.text("state = 'waiting'"),
    )
    op.drop_index(
        "ix_leases_live_run_id",
        table_name="leases",
        postgresql_where=sa.text("state IN ('waiting', 'held')"),
        sqlite_where=sa.text("state IN ('waiting', 'held')"),
    )
    op.drop_index(
        "ix_leases_held_expires_at",
        table_name="leases",
        postgresql_where=sa.text("state = 'held'"),
        sqlite_where=sa.text("state = 'held'"),
    )
    op.drop_index(
        "ix_leases_ended_at",
        table_name="leases",
        postgresql_where=sa.text("ended_at IS NOT NULL"),
        sqlite_where=sa.text("ended_at IS NOT NULL"),
    )
    op.drop_table("leases")
