"""Connections and transactions, over PostgreSQL and over SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.engine import Connection as SyncConnection
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from botfarm_server.domain.errors import DatabaseUnavailableError
from botfarm_server.store.dialects import lock_queue, make_file
from botfarm_server.store.sqlite_trips import OneTripCursor, WholeConnection

Connection = AsyncConnection
"""What the services carry from a transaction to the functions of the store."""

BUSY_TIMEOUT = 10.0
"""Seconds that SQLite waits for another process that writes."""
LOCK_TIMEOUT = 10.0
"""Seconds that a statement waits for a lock: a paused process must not stop all."""
STATEMENT_TIMEOUT = 30.0
IDLE_IN_TRANSACTION_TIMEOUT = 15.0
CONNECT_TIMEOUT = 5.0
IDLE = 1.0
"""Seconds after which a connection is looked at before it is used."""
PREPARED_STATEMENTS = 500
"""Kept for each connection: more than there are."""
POOL_TIMEOUT = 10.0
_AFTER_COMMIT = "botfarm_after_commit"


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


TIMEOUTS = {
    "statement_timeout": _milliseconds(STATEMENT_TIMEOUT),
    "lock_timeout": _milliseconds(LOCK_TIMEOUT),
    "idle_in_transaction_session_timeout": _milliseconds(IDLE_IN_TRANSACTION_TIMEOUT),
}
KEEPALIVES = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


class Database:
    """The engine and its kinds of transaction.

    `read` and `write` give a connection in a transaction of its own, which is
    committed when the block ends and rolled back when it raises. No connection is to
    be held across a wait.
    """

    def __init__(self, url: URL, *, pool_size: int, pooler: bool = False) -> None:
        """`pooler` says that a pooler gives connections out by the transaction."""
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine = (
            _sqlite_engine(url, pool_size)
            if self.is_sqlite
            else _postgresql_engine(url, pool_size, pooler=pooler)
        )
        self._pooler = pooler
        self._queue = asyncio.Lock()
        # SQLite has one writer at a time, and its busy handler sleeps in growing
        # steps: within this process writers queue here instead.
        self._writer: AbstractAsyncContextManager[Any] = (
            asyncio.Lock() if self.is_sqlite else nullcontext()
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that changes nothing.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.

        """
        with translated_errors():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def glance(self) -> AsyncIterator[AsyncConnection]:
        """For one statement that changes nothing: no trips to begin and to end.

        Behind a pooler the statement's limits are set in a transaction.

        Raises:
            DatabaseUnavailableError: the database cannot be used now.

        """
        if self.is_sqlite or self._pooler:
            async with self.read() as connection:
                yield connection
            return
        with translated_errors():
            async with self.engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may change rows; on SQLite it excludes other writers.

        Raises:
            DatabaseUnavailableError: the database cannot be used now. Whether a
                commit under way succeeded is then not known.

        """
        with translated_errors():
            async with self._writer, self.engine.connect() as connection:
                writing = await connection.execution_options(botfarm_write=True)
                committed: list[Callable[[], None]] = []
                writing.info[_AFTER_COMMIT] = committed
                async with writing.begin():
                    yield writing
                for follow in committed:
                    follow()

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[tuple[AsyncConnection, datetime]]:
        """A writing transaction that has the queue lock, and the time behind it.

        Whoever grants or frees users does so here: the lock is the first that the
        transaction takes, and the database's clock is read once it has it.

        Raises:
            DatabaseUnavailableError: as `write` does.

        """
        # The calls of this process queue before they take a connection: a hundred
        # that waited for the lock with one each would leave none to renew with.
        async with self._queue, self.write() as connection:
            yield connection, await lock_queue(connection)

    def checked_out(self) -> int:
        """How many connections are in use at this moment."""
        pool = self.engine.sync_engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    async def dispose(self) -> None:
        await self.engine.dispose()


def after_commit(connection: Connection, follow: Callable[[], None]) -> None:
    """Have something follow the commit of a writing transaction, if that comes.

    It must not raise: the transaction stands. If the process dies it does not follow.
    """
    connection.info[_AFTER_COMMIT].append(follow)


class translated_errors:  # noqa: N801 - reads as a statement, as `suppress` does
    """Tell driver errors that mean "not now" from those that are our own mistakes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if error is not None and (reason := _why_unavailable(error)) is not None:
            raise DatabaseUnavailableError(reason) from error


def _why_unavailable(error: BaseException) -> str | None:
    match error:
        case PoolTimeoutError():
            return "all its connections are busy"
        case DBAPIError(connection_invalidated=True):
            return "the connection was lost"
        case OperationalError() if isinstance(error.orig, sqlite3.OperationalError):
            return f"SQLite says {error.orig}"
        case DBAPIError() if type(error.orig) is sqlite3.DatabaseError:
            # "file is not a database", or a damaged one; mistakes have subclasses.
            return f"SQLite says {error.orig}"
        case OperationalError() | InterfaceError() | asyncpg.InternalClientError():
            # The last: the session was ended while it was idle, and the stream was not.
            return "the connection was refused or lost"
        case DBAPIError():
            return _why_by_state(error.orig)
        case asyncpg.PostgresError():
            # From a connection's start: SQLAlchemy 2.0 does not wrap those.
            return _why_by_state(error)
        case ConnectionError() | TimeoutError() | asyncio.TimeoutError():
            return "it does not answer"
        case OSError():
            return "it cannot be reached"
        case _:
            return None


_TRANSIENT_STATES = frozenset(
    {
        "08003",  # connection_does_not_exist: it was cut while it was made
        "08006",  # connection_failure
        "25P03",  # idle_in_transaction_session_timeout
        "25006",  # read_only_sql_transaction: a standby
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "53100",  # disk_full
        "53200",  # out_of_memory
        "53300",  # too_many_connections
        "55P03",  # lock_not_available
        "57014",  # query_canceled, by statement_timeout
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
    }
)


_REFUSING_STATES = frozenset(
    {
        "28000",  # invalid_authorization_specification
        "28P01",  # invalid_password
        "3D000",  # invalid_catalog_name: there is no such database
    }
)


def _why_by_state(error: BaseException | None) -> str | None:
    state: str | None = getattr(error, "sqlstate", None)
    if state in _TRANSIENT_STATES:
        return "it is overloaded or restarting"
    if state in _REFUSING_STATES:
        return f"it refuses the connection ({_first_line(error)})"
    return None


def _first_line(error: BaseException | None) -> str:
    """What PostgreSQL said, which names the user or the database, and no password."""
    said = (
        error if isinstance(error, asyncpg.PostgresError) else error and error.__cause__
    )
    return str(said).partition("\n")[0]


def _postgresql_engine(url: URL, pool_size: int, *, pooler: bool) -> AsyncEngine:
    connect_args: dict[str, Any] = {
        "timeout": CONNECT_TIMEOUT,
        "server_settings": {"application_name": "botfarm"},
    }
    if pooler:
        # A statement that was prepared in one transaction is not there in the next,
        # and a pooler takes no other settings for a session.
        connect_args |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: "",
        }
    else:
        connect_args["prepared_statement_cache_size"] = PREPARED_STATEMENTS
        connect_args["server_settings"] |= {**TIMEOUTS, **KEEPALIVES}
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # they would stand in error messages, and so in logs
        connect_args=connect_args,
    )
    _ping_idle(engine)
    if pooler:
        settings = ", ".join(
            f"set_config('{name}', '{milliseconds}', true)"
            for name, milliseconds in TIMEOUTS.items()
        )

        @event.listens_for(engine.sync_engine, "begin")
        def limit(connection: SyncConnection) -> None:
            connection.exec_driver_sql(f"SELECT {settings}")

    return engine


def _ping_idle(engine: AsyncEngine) -> None:
    """Look whether a connection lives that was not used for a while.

    SQLAlchemy's own `pool_pre_ping` does so at each use, which is a trip more for every
    transaction.
    """
    pool, dialect = engine.sync_engine.pool, engine.dialect

    @event.listens_for(pool, "checkin")
    def note(_: object, record: ConnectionPoolEntry) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(pool, "checkout")
    def ping(dbapi_connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        used = record.info.get("used")
        if used is None or time.monotonic() - used < IDLE:
            return
        try:
            dialect.do_ping(dbapi_connection)
        except dialect.loaded_dbapi.Error:
            raise DisconnectionError from None  # the pool makes a new one


def _sqlite_engine(url: URL, pool_size: int) -> AsyncEngine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT,
        hide_parameters=True,  # they would stand in error messages, and so in logs
        connect_args={"timeout": BUSY_TIMEOUT, "factory": WholeConnection},
    )

    @event.listens_for(engine.sync_engine, "do_connect")
    def prepare(*_: object) -> None:
        make_file(url)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(dbapi_connection: Any, _: object) -> None:
        driver = dbapi_connection.driver_connection
        driver.cursor = partial(OneTripCursor, driver)
        # The driver would begin transactions by itself, deferred; a read that turns
        # into a write then fails with BUSY_SNAPSHOT or, worse, overwrites.
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "foreign_keys = ON",
            f"busy_timeout = {_milliseconds(BUSY_TIMEOUT)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: SyncConnection) -> None:
        writes = connection.get_execution_options().get("botfarm_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
