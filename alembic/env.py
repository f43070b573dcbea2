"""Runs the migrations over the server's own database URL, on either database."""

from __future__ import annotations

import asyncio
from typing import Literal

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.schema import SchemaItem

from alembic import context
from botfarm_server.settings import load_settings
from botfarm_server.store.dialects import database_url
from botfarm_server.store.tables import ONLY_ON, UtcDateTime, metadata

MIGRATION_LOCK = 0x626F7467
"""Key of the advisory lock that lets one process migrate at a time."""


def url() -> URL:
    given = context.config.attributes.get("url")
    if given is not None:
        return given
    return database_url(load_settings().database_url)


def render_item(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our own column type as what it is in the database."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def configure(connection: Connection) -> None:
    def is_of_this_database(item: SchemaItem, *_: object) -> bool:
        return bool(item.info.get(ONLY_ON, dialect) == dialect)

    dialect = connection.dialect.name
    context.configure(
        include_object=is_of_this_database,
        connection=connection,
        target_metadata=metadata,
        render_as_batch=dialect == "sqlite",
        compare_type=True,
        render_item=render_item,
        compare_server_default=True,
        transaction_per_migration=False,
    )


def run(connection: Connection) -> None:
    sqlite = connection.dialect.name == "sqlite"
    if sqlite:
        # pysqlite would commit before each CREATE: a migration is all or nothing.
        raw = connection.connection.dbapi_connection
        if raw is None:
            raise RuntimeError("SQLite gave no connection")
        raw.isolation_level = None
        connection.exec_driver_sql("PRAGMA busy_timeout = 60000")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
    configure(connection)
    with context.begin_transaction():
        context.run_migrations()
    if sqlite:
        connection.exec_driver_sql("COMMIT")


async def run_online() -> None:
    engine = create_async_engine(url(), poolclass=NullPool)
    try:
        async with engine.connect() as connection, connection.begin():
            await connection.run_sync(run)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    context.configure(
        url=url(),
        target_metadata=metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(run_online())
