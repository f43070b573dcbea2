"""Word from other processes that waiters were granted.

On PostgreSQL: LISTEN on a connection of its own, outside the pool. On SQLite: the
file's change counter, looked at while somebody waits. Both may lose a word; the
expiry loop makes up for it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Protocol
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy.engine import URL

from botfarm_server.domain.errors import DatabaseUnavailableError
from botfarm_server.domain.models import LeaseId
from botfarm_server.store.dialects import GRANTED_CHANNEL, listening_dsn
from botfarm_server.store.engine import CONNECT_TIMEOUT

PROBE_INTERVAL = 5.0
"""Seconds between two probes: a half-open connection stays silent for ever."""
PROBE_TIMEOUT = 5.0
RECONNECT_PAUSE = 1.0
FILE_INTERVAL = 0.02
"""Seconds between two looks at SQLite's change counter, which is in shared memory."""

_CUT = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    # A message that ends the session came while it was idle, and no end of the stream.
    asyncpg.InternalClientError,
    DatabaseUnavailableError,
)

_log = structlog.get_logger("botfarm.wakeups")


class Wakeups(Protocol):
    async def run(self) -> None:
        """Pass words on until cancelled."""
        ...


class PostgresqlWakeups:
    """LISTENs, and looks again after each reconnect, for what was said meanwhile."""

    def __init__(
        self,
        url: URL,
        *,
        on_granted: Callable[[list[LeaseId]], None],
        look_again: Callable[[], Awaitable[None]],
    ) -> None:
        self._dsn = listening_dsn(url)
        self._on_granted = on_granted
        self._look_again = look_again

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except _CUT as error:
                _log.warning("listening was cut", why=type(error).__name__)
            except Exception:  # noqa: BLE001 - deaf, every hand-on waits for the loop
                _log.exception("listening failed, and is tried again")
            await asyncio.sleep(RECONNECT_PAUSE)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT)
        try:
            # First listen, then look: the other order would leave a gap.
            await connection.add_listener(GRANTED_CHANNEL, self._heard)
            await self._look_again()
            while True:
                await asyncio.sleep(PROBE_INTERVAL)
                await connection.execute("SELECT 1", timeout=PROBE_TIMEOUT)
        finally:
            connection.terminate()

    def _heard(
        self, _connection: object, _pid: int, _channel: str, said: object
    ) -> None:
        self._on_granted([LeaseId(UUID(name)) for name in str(said).split()])


class SqliteWakeups:
    """Watches `PRAGMA data_version`, which changes with other processes' commits."""

    def __init__(
        self,
        path: str,
        *,
        until_occupied: Callable[[], Awaitable[None]],
        look_again: Callable[[], Awaitable[None]],
    ) -> None:
        self._path = path
        self._until_occupied = until_occupied
        self._look_again = look_again

    async def run(self) -> None:
        while True:
            try:
                await self._watch()
            except (sqlite3.Error, DatabaseUnavailableError) as error:
                _log.warning("watching was cut", why=str(error))
            except Exception:  # noqa: BLE001 - blind, every hand-on waits for the loop
                _log.exception("watching failed, and is tried again")
            await asyncio.sleep(RECONNECT_PAUSE)

    async def _watch(self) -> None:
        # The counter is the connection's own: it tells of commits by any other. It is
        # read from shared memory within microseconds, so no thread is worth it.
        with closing(sqlite3.connect(self._path, timeout=0)) as connection:
            version = None
            while True:
                await self._until_occupied()
                found = connection.execute("PRAGMA data_version").fetchone()
                if found != version:
                    version = found
                    await self._look_again()
                await asyncio.sleep(FILE_INTERVAL)
