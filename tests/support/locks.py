"""Whether a transaction stands still because another one has a lock."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any, Protocol

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL

from botfarm_server.store.dialects import listening_dsn
from botfarm_server.store.engine import Database


class LockWatch(Protocol):
    async def is_blocked(self) -> bool:
        """Whether the watched replica cannot go on until another one does."""
        ...

    async def close(self) -> None: ...


class PostgresqlLockWatch:
    """Asks PostgreSQL which backends of this database are held up by others."""

    QUERY = """
        SELECT EXISTS (
            SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'
            AND cardinality(pg_blocking_pids(pid)) > 0
        )"""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    @classmethod
    async def start(cls, url: URL) -> PostgresqlLockWatch:
        return cls(await asyncpg.connect(listening_dsn(url)))

    async def is_blocked(self) -> bool:
        return bool(await self._connection.fetchval(self.QUERY))

    async def deadlocks(self) -> int:
        """How many PostgreSQL has found in this database so far."""
        found: int = await self._connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        return found

    async def close(self) -> None:
        await self._connection.close()


class SqliteLockWatch:
    """Knows that a replica wants to write, and whether another writes already.

    SQLite does not tell who waits: its busy handler sleeps. But a replica that is at
    its BEGIN IMMEDIATE does not write, so if somebody does, it waits for that one.
    """

    def __init__(self, database: Database) -> None:
        self._path = str(database.url.database)
        self._begins = False
        engine = database.engine.sync_engine
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def _before(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        self._begins = statement == "BEGIN IMMEDIATE"

    def _after(self, *_: Any) -> None:
        self._begins = False

    async def is_blocked(self) -> bool:
        return self._begins and self._somebody_writes()

    def _somebody_writes(self) -> bool:
        with closing(sqlite3.connect(self._path, timeout=0)) as connection:
            connection.isolation_level = None
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
            return False

    async def close(self) -> None:
        """Nothing is open between two looks."""
