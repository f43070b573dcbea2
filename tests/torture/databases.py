"""The database of a run, and what can be done to it from outside."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import asyncpg
from support.postgresql import PostgresqlServer

from botfarm_server.store import migrations
from botfarm_server.store.dialects import database_url

from .proxy import Upstream

MEMORY = Path("/dev/shm")
"""Where files need no disk: a crash of the database's processes loses nothing there."""
LISTENING = "query LIKE 'LISTEN%' OR application_name = ''"
"""The connection outside the engine, in the words of `pg_stat_activity`."""
POOLED = "application_name = 'botfarm' AND random() < 0.5"


class RunDatabase(Protocol):
    url: str
    """Straight to the database, past all proxies."""

    def start(self) -> None:
        """Make a database with the schema. Takes seconds: not for an event loop."""

    def stop(self) -> None: ...

    def upstream(self) -> Upstream | None:
        """What the servers' proxies lead to, if there can be any."""

    def url_through(self, port: int | None) -> str:
        """What a server connects to whose proxy has the port."""

    def log_lines(self) -> Sequence[str]:
        """What its log tells of that must never happen."""

    async def hold_transaction(self, seconds: float) -> None:
        """Keep a snapshot for so long, which holds back what cleans up."""


class PostgresqlDatabase:
    """A PostgreSQL server of the run's own."""

    BAD = ("deadlock detected", "PANIC", "FATAL:  sorry, too many")

    def __init__(self) -> None:
        # The path of a socket may have 107 bytes.
        name = f"torture-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        base = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
        self._directory = base / name
        self._server: PostgresqlServer | None = None
        self.url = ""

    @property
    def server(self) -> PostgresqlServer:
        assert self._server is not None, "it is not started"
        return self._server

    def start(self) -> None:
        self._server = PostgresqlServer(self._directory)
        self.url = self._server.create_database()
        migrations.upgrade(database_url(self.url))

    def stop(self) -> None:
        self.server.stop_own()

    def upstream(self) -> Upstream:
        return Upstream(socket=str(self._directory / ".s.PGSQL.5432"))

    def url_through(self, port: int | None) -> str:
        name = self.url.split("@/", 1)[1].split("?", 1)[0]
        if port is None:
            return f"postgresql://postgres:@/{name}?host={quote(str(self._directory))}"
        return f"postgresql://postgres@127.0.0.1:{port}/{name}?sslmode=disable"

    def log_lines(self) -> list[str]:
        log = (self._directory / "log").read_text(errors="replace")
        return [line for line in log.splitlines() if any(it in line for it in self.BAD)]

    async def hold_transaction(self, seconds: float) -> None:
        connection = await self._connect()
        try:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await connection.fetchval("SELECT count(*) FROM leases")
            await asyncio.sleep(seconds)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            pass  # the database was stopped meanwhile
        finally:
            connection.terminate()

    async def terminate(self, which: str) -> int:
        """End the connections for which the condition holds; how many."""
        connection = await self._connect()
        try:
            ended = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                f" datname = current_database() AND pid <> pg_backend_pid()"
                f" AND state IS NOT NULL AND ({which})"
            )
            return len(ended)
        finally:
            await connection.close()

    async def _connect(self) -> asyncpg.Connection:
        # By its name it is told from the servers' connections outside their pools.
        named = {"application_name": "torture"}
        return await asyncpg.connect(self.url, server_settings=named)

    async def crash(self, seconds: float) -> None:
        """`pg_ctl stop -m immediate`, and start again after so many seconds."""
        await asyncio.to_thread(self.server.control, "stop", "-m", "immediate")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.server.control, "start")


class SqliteDatabase:
    """A file, which all servers of the run open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"

    def start(self) -> None:
        migrations.upgrade(database_url(self.url))

    def stop(self) -> None:
        """The file goes with the run's folder."""

    def upstream(self) -> None:
        return None

    def url_through(self, port: int | None) -> str:
        return self.url

    def log_lines(self) -> list[str]:
        with closing(sqlite3.connect(self._path)) as connection:
            [[told]] = connection.execute("PRAGMA integrity_check").fetchall()
        return [] if told == "ok" else [f"integrity_check: {told}"]

    async def hold_transaction(self, seconds: float) -> None:
        with closing(sqlite3.connect(self._path, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM leases").fetchall()
            await asyncio.sleep(seconds)
