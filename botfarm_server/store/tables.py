"""The tables, with every invariant that a constraint can hold.

`users.lease_id` is the one truth about who has a user: a single column, so a second
holder has no place to stand. What was granted when, with which fence, is kept in
`grants`; a waiter's places in the queues of its pools are in `queue_entries`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time. SQLite has no such type: it gets UTC as text that sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "only aware times are stored"
            raise ValueError(msg)
        value = value.astimezone(timezone.utc)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self, value: datetime | None, dialect: Dialect
    ) -> datetime | None:
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc)
        return value


# SQLite numbers rows by itself only in a column of type INTEGER.
SerialNumber = BigInteger().with_variant(Integer, "sqlite")
Document = JSON().with_variant(JSONB, "postgresql")
NullableDocument = JSON(none_as_null=True).with_variant(
    JSONB(none_as_null=True), "postgresql"
)

ONLY_ON = "dialect"
"""Key of an index's `info`: the one kind of database that has it, for Alembic."""

LIVE = "state IN ('waiting', 'held')"

leases: Table = Table(
    "leases",
    metadata,
    # The order of arrival: drawn under the queue lock, never used twice.
    Column("number", SerialNumber, primary_key=True, autoincrement=True),
    Column("id", Uuid, nullable=False),
    Column("state", String(16), nullable=False),
    Column("wants", Document, nullable=False),
    Column("ttl", Float),
    Column("run_id", String(255)),
    Column("worker_id", String(255)),
    Column("test_id", Text),
    Column("host", String(255)),
    Column("job_url", Text),
    Column("fence", BigInteger),
    Column("created_at", UtcDateTime, nullable=False),
    Column("poll_by", UtcDateTime),
    Column("granted_at", UtcDateTime),
    Column("expires_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("outcome", String(16)),
    Column("end_reason", Text),
    Column("knot", NullableDocument),
    # Null in all that an older server writes, which keeps none.
    Column("kept_at", UtcDateTime),
    # Whose it is. No foreign key: SQLite would have to copy the table to add one, and
    # tokens are never deleted.
    Column("token_id", Uuid),
    # The project that all its wants name; null where they name several or none.
    Column("project_id", Uuid),
    UniqueConstraint("id"),
    CheckConstraint(
        "state IN ('waiting', 'held', 'released', 'cancelled', 'abandoned',"
        " 'expired', 'revoked')",
        name="state",
    ),
    CheckConstraint(
        "state <> 'waiting' OR (poll_by IS NOT NULL AND granted_at IS NULL)",
        name="waiting",
    ),
    CheckConstraint(
        "state <> 'held' OR (granted_at IS NOT NULL AND fence IS NOT NULL)",
        name="held",
    ),
    CheckConstraint(
        "(ended_at IS NULL) = (state IN ('waiting', 'held'))", name="ended"
    ),
    Index(
        "ix_leases_waiting_poll_by",
        "poll_by",
        postgresql_where=text("state = 'waiting'"),
        sqlite_where=text("state = 'waiting'"),
    ),
    Index(
        "ix_leases_held_expires_at",
        "expires_at",
        postgresql_where=text("state = 'held'"),
        sqlite_where=text("state = 'held'"),
    ),
    Index(
        "ix_leases_live_run_id",
        "run_id",
        "worker_id",
        postgresql_where=text(LIVE),
        sqlite_where=text(LIVE),
    ),
    Index(
        "ix_leases_project_id",
        "project_id",
        "number",
        postgresql_where=text("project_id IS NOT NULL"),
        sqlite_where=text("project_id IS NOT NULL"),
    ),
    Index(
        "ix_leases_ended_at",
        "ended_at",
        postgresql_where=text("ended_at IS NOT NULL"),
        sqlite_where=text("ended_at IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

IN_ROTATION = "lease_id IS NULL AND quarantined_at IS NULL"

users: Table = Table(
    "users",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("login", String(255), nullable=False),
    Column("env", String(255), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("project_id", Uuid),
    Column("labels", Document, nullable=False),
    # Users with fewer labels are needed by fewer wants, so a broad want takes them.
    Column("label_count", Integer, nullable=False),
    Column("password_hash", String(60), nullable=False),
    Column("sealed_password", LargeBinary),
    Column("sealed_secrets", LargeBinary),
    # What its holder left for the next one.
    Column("sealed_state", LargeBinary),
    Column("state_expires_at", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column(
        "lease_id",
        Uuid,
        # A grant is written before its lease, in one transaction: the lease
        # carries the fence that the grant has drawn.
        ForeignKey("leases.id", deferrable=True, initially="DEFERRED"),
    ),
    Column("fence", BigInteger, nullable=False),
    Column("dirty", Boolean, nullable=False),
    Column("released_at", UtcDateTime, nullable=False),
    Column("rest_until", UtcDateTime),
    Column("quarantined_at", UtcDateTime),
    Column("quarantine_reason", Text),
    Column("quarantined_by", Text),
    # The tests that failed in a row with this user, each once.
    Column("failed_tests", NullableDocument),
    # Where a suite made the user: a place that was reserved becomes one user.
    Column("reservation_id", Uuid),
    UniqueConstraint("env", "login"),
    Index(None, "reservation_id", unique=True),
    Index(
        "ix_users_free",
        "env",
        "domain",
        "label_count",
        "released_at",
        # Users stored together share a time, and a tie of many would be sorted.
        "id",
        postgresql_where=text(IN_ROTATION),
        sqlite_where=text(IN_ROTATION),
    ),
    Index("ix_users_env_domain", "env", "domain", "id"),
    Index(None, "project_id"),
    # SQLite has no index for "contains": there a pool is read through.
    Index(
        "ix_users_labels",
        "labels",
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        info={ONLY_ON: "postgresql"},
    ).ddl_if(dialect="postgresql"),
    Index(
        "ix_users_lease_id",
        "lease_id",
        postgresql_where=text("lease_id IS NOT NULL"),
        sqlite_where=text("lease_id IS NOT NULL"),
    ),
)

reservations: Table = Table(
    "reservations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("env", String(255), nullable=False),
    Column("domain", String(255), nullable=False),
    Column("project_id", Uuid),
    Column("expires_at", UtcDateTime, nullable=False),
    # Whose it is. No foreign key: tokens are never deleted.
    Column("token_id", Uuid),
)

grants: Table = Table(
    "grants",
    metadata,
    # The row's own number is the fence: it grows with each grant, under the queue
    # lock, and no number is used twice.
    Column("fence", SerialNumber, primary_key=True, autoincrement=True),
    Column(
        "lease_id",
        Uuid,
        ForeignKey(
            "leases.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"
        ),
        nullable=False,
    ),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("want", Integer, nullable=False),
    UniqueConstraint("lease_id", "user_id"),
    Index(None, "user_id"),
    sqlite_autoincrement=True,
)

queue_entries: Table = Table(
    "queue_entries",
    metadata,
    Column("env", String(255), primary_key=True),
    Column("domain", String(255), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column(
        "lease_id",
        Uuid,
        ForeignKey("leases.id", ondelete="CASCADE"),
        nullable=False,
    ),
    # What the lease asks for, digested, the same in all its entries: who can use none
    # of the free users is passed over together with all that ask for the same. Null
    # where an older server wrote it, which is a kind of its own.
    Column("kind", Uuid),
    Index(None, "lease_id"),
)

tokens: Table = Table(
    "tokens",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("project_id", Uuid),
    # SHA-256 in hexadecimal digits; the token itself is not kept.
    Column("hash", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    UniqueConstraint("hash"),
    CheckConstraint("role IN ('read', 'lease', 'admin')", name="role"),
)

# No foreign keys: what an event tells of may be gone, and the event is to stay.
audit_events: Table = Table(
    "audit_events",
    metadata,
    Column("number", SerialNumber, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("caller", String(16), nullable=False),
    Column("token_id", Uuid),
    Column("name", String(255)),
    Column("role", String(16), nullable=False),
    Column("address", String(255)),
    Column("action", String(32), nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("subject", Text),
    Column("project_id", Uuid),
    Column("before", NullableDocument),
    Column("after", NullableDocument),
    Column("reason", Text),
    CheckConstraint("(caller = 'token') = (token_id IS NOT NULL)", name="token"),
    Index(None, "at"),
    Index(None, "subject_id", "number"),
    Index(
        "ix_audit_events_project_id",
        "project_id",
        "number",
        postgresql_where=text("project_id IS NOT NULL"),
        sqlite_where=text("project_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

Row = dict[str, Any]
