"""All that differs between PostgreSQL and SQLite."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Executable,
    Select,
    String,
    Table,
    all_,
    any_,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

Statement = TypeVar("Statement", bound=Executable)

QUEUE_LOCK = 0x626F7466
"""The key of the advisory lock that orders the queue ("botf"); any constant would do.

PostgreSQL drops it with the transaction, through PgBouncer too.
"""

TIMELINE_SHIFT = 40
"""Bits of a fence below PostgreSQL's timeline: a trillion grants for each. A fence is
exact in JSON, which knows 53 bits, up to timeline 8,191."""

GRANTED_CHANNEL = "botfarm_granted"

ROW_TIMEOUT = 2.0
"""Seconds that who has the queue lock waits for a row: all others wait with it. A
renewal has its rows for milliseconds, a replica that is paused in one for as long as
PostgreSQL lets it."""

_LOCK_AND_READ_CLOCK = text(
    # The select list runs from left to right: the clock is read once the lock is ours,
    # and what has a limit of its own from then on is not the wait for it.
    # now() would be the start of the transaction, long past if it had to wait.
    f"SELECT pg_advisory_xact_lock({QUEUE_LOCK}),"
    " set_config('lock_timeout', :row_timeout, true), clock_timestamp()"
)
_CLOCK = {
    "postgresql": "clock_timestamp()",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
}
_READ_CLOCK = {name: text(f"SELECT {clock}") for name, clock in _CLOCK.items()}


def database_url(given: str) -> URL:
    """The URL with the driver that the server uses.

    `postgres://`, `postgresql://` and `sqlite://` are what people have at hand.

    Raises:
        ValueError: it is no URL, or of a database that the server does not speak.

    """
    try:
        url = make_url(given)
    except ArgumentError:
        msg = "it is not a database URL"
        raise ValueError(msg) from None
    match url.drivername:
        case "postgres" | "postgresql" | "postgresql+asyncpg":
            return _with_renamed(url, "sslmode", "ssl").set(
                drivername="postgresql+asyncpg"
            )
        case "sqlite" | "sqlite+aiosqlite":
            if not url.database or url.database == ":memory:":
                msg = "SQLite needs a file: an in-memory database is lost with a crash"
                raise ValueError(msg)
            return url.set(drivername="sqlite+aiosqlite")
        case other:
            msg = f"{other!r} is neither postgresql nor sqlite"
            raise ValueError(msg)


def make_file(url: URL) -> None:
    """Make the file of a SQLite database, if there is none, for its owner alone.

    What SQLite writes beside it gets the same rights. Where it cannot be made, SQLite
    says so when it opens it.
    """
    path = Path(str(url.database))
    # Not opened if it is there: as that is closed, SQLite's locks on it would go.
    if not path.exists():
        with suppress(OSError):
            path.touch(mode=0o600)


def _with_renamed(url: URL, name: str, driver_name: str) -> URL:
    if name not in url.query:
        return url
    given = url.query[name]
    return url.difference_update_query([name]).update_query_dict({driver_name: given})


def listening_dsn(url: URL) -> str:
    """The same database as libpq writes it, for a connection outside the engine.

    Its `ssl` is called `sslmode` there, and what else the engine's driver takes would
    be read as a setting of the server.
    """
    plain = _with_renamed(url, "ssl", "sslmode").set(drivername="postgresql")
    unknown = set(plain.query) - {"host", "port", "sslmode"}
    return plain.difference_update_query(unknown).render_as_string(hide_password=False)


def is_sqlite(connection: AsyncConnection) -> bool:
    return connection.dialect.name == "sqlite"


def as_time(seconds_or_time: float | datetime) -> datetime:
    """What the clock query answered as an aware time."""
    if isinstance(seconds_or_time, datetime):
        return seconds_or_time
    return datetime.fromtimestamp(seconds_or_time, timezone.utc)


def clock(connection: AsyncConnection) -> ColumnElement[Any]:
    """A column `clock`: the database's clock when the row is read; see `as_time`."""
    return literal_column(_CLOCK[connection.dialect.name]).label("clock")


async def read_clock(connection: AsyncConnection) -> datetime:
    """The database's clock, now."""
    answer = await connection.execute(_READ_CLOCK[connection.dialect.name])
    return as_time(answer.scalar_one())


async def lock_queue(connection: AsyncConnection) -> datetime:
    """Take the lock that orders every grant, and read the clock behind it.

    It is the first lock of each transaction that takes it; rows come after. SQLite's
    `BEGIN IMMEDIATE` is that lock already.
    """
    if is_sqlite(connection):
        return await read_clock(connection)
    limit = {"row_timeout": f"{ROW_TIMEOUT}s"}
    answer = await connection.execute(_LOCK_AND_READ_CLOCK, limit)
    return as_time(answer.one()[2])


def for_update(
    connection: AsyncConnection,
    query: Select[Any],
    *,
    of: Table | None = None,
    skip_locked: bool = False,
) -> Select[Any]:
    """Lock the rows that `query` finds; under SQLite the whole database is locked."""
    if is_sqlite(connection):
        return query
    return query.with_for_update(of=of, skip_locked=skip_locked)


def is_one_of(
    connection: AsyncConnection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Whether the column has one of the values, as one statement for any number.

    The text of an `IN` changes with the number of its values, and with it the statement
    that PostgreSQL has to prepare.
    """
    if is_sqlite(connection):
        return column.in_(values)
    return column == any_(literal(list(values), ARRAY(column.type)))


def is_not_one_of(
    connection: AsyncConnection, column: ColumnElement[Any], values: Collection[Any]
) -> ColumnElement[bool]:
    """Whether the column has none of the values, in the manner of `is_one_of`."""
    if is_sqlite(connection):
        return column.not_in(values)
    return column != all_(literal(list(values), ARRAY(column.type)))


def is_among(
    connection: AsyncConnection, column: ColumnElement[Any], name: str
) -> ColumnElement[bool]:
    """As `is_one_of`, of a list that the statement is given under a name."""
    if is_sqlite(connection):
        return column.in_(bindparam(name, expanding=True))
    return column == any_(bindparam(name, type_=ARRAY(column.type)))


def built_once(
    build: Callable[[AsyncConnection], Statement],
) -> Callable[[AsyncConnection], Statement]:
    """Keep a statement without values in it, one for each kind of database.

    To build one takes longer than to execute it, and what SQLAlchemy works out about
    its result is worked out anew for each that was built.
    """
    built: dict[str, Statement] = {}

    @wraps(build)
    def statement(connection: AsyncConnection) -> Statement:
        name = connection.dialect.name
        if name not in built:
            built[name] = build(connection)
        return built[name]

    return statement


def labels_contain(
    connection: AsyncConnection,
    column: ColumnElement[Any],
    labels: Mapping[str, str],
) -> ColumnElement[bool]:
    """Whether each of `labels` is among the stored ones, with the same value."""
    if not is_sqlite(connection):
        return type_coerce(column, JSONB).contains(dict(labels))
    return _LabelsContain(column, literal(json.dumps(dict(labels)), String))


class _LabelsContain(FunctionElement[bool]):
    """The same for SQLite, as one text for any number of labels.

    To build it of expressions takes four times as long, and as much memory for each of
    the statements that SQLAlchemy keeps; a row takes 0.6 instead of 0.3 microseconds.
    """

    type = Boolean()
    inherit_cache = True


@compiles(_LabelsContain, "sqlite")
def _compile_labels_contain(
    element: _LabelsContain, compiler: SQLCompiler, **options: Any
) -> str:
    stored, wanted = (compiler.process(it, **options) for it in element.clauses)
    return (  # both are expressions, with parameters for their values
        f"NOT EXISTS (SELECT 1 FROM json_each({wanted}) AS wanted WHERE"  # noqa: S608
        f" NOT EXISTS (SELECT 1 FROM json_each({stored}) AS stored"
        " WHERE stored.key = wanted.key AND stored.value = wanted.value))"
    )


_LEAD = (
    # A standby that is promoted begins a new timeline, and so does a recovery to a
    # point in time: what the old one had granted and lost is below.
    "((('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))"
    f"::bit(32)::bigint - 1) << {TIMELINE_SHIFT})"
)
_NEXT_FENCE: ColumnElement[int] = literal_column(
    f"({_LEAD} + nextval('grants_fence_seq'))", BigInteger
)


def next_fence(connection: AsyncConnection) -> Mapping[str, ColumnElement[int]]:
    """The column of a new grant that its fence is, where the database must be told.

    SQLite numbers the rows by itself.
    """
    return {} if is_sqlite(connection) else {"fence": _NEXT_FENCE}


async def raise_fences(connection: AsyncConnection, by: int) -> None:
    """Let the next fence be higher by `by` than it would have been."""
    if is_sqlite(connection):
        # The row is there once a grant was made.
        await connection.execute(
            text("UPDATE sqlite_sequence SET seq = seq + :by WHERE name = 'grants'"),
            {"by": by},
        )
        await connection.execute(
            text(
                "INSERT INTO sqlite_sequence (name, seq) SELECT 'grants', :by"
                " WHERE NOT EXISTS"
                " (SELECT 1 FROM sqlite_sequence WHERE name = 'grants')"
            ),
            {"by": by},
        )
    else:
        highest = literal_column("(SELECT max(fence) FROM users)", BigInteger)
        # What users have may come from a cluster with more timelines than this one.
        above = func.greatest(
            literal_column("last_value", BigInteger),
            highest - literal_column(_LEAD, BigInteger),
        )
        sequence: ColumnElement[str] = literal_column("'grants_fence_seq'")
        await connection.execute(
            select(func.setval(sequence, above + by)).select_from(
                table("grants_fence_seq")
            )
        )


async def notify_granted(connection: AsyncConnection, payload: str) -> None:
    """Tell the other replicas what became of waiters, once this transaction commits.

    PostgreSQL serialises commits that notify, so it is called only for those that had
    to wait. On SQLite the other processes watch the file.
    """
    if not is_sqlite(connection):
        await connection.execute(select(func.pg_notify(GRANTED_CHANNEL, payload)))
