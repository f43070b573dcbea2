"""Sealed values of users, and how they begin: with the mark of the key that sealed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)

from botfarm_server.domain.models import UserId
from botfarm_server.store.engine import Connection
from botfarm_server.store.tables import users

COLUMNS = {
    "password": users.c.sealed_password,
    "secrets": users.c.sealed_secrets,
    "state": users.c.sealed_state,
}
"""By the name that each is bound to when it is sealed."""


@dataclass(frozen=True, slots=True)
class SealedUser:
    id: UserId
    sealed: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A sealed value, and the one that is to take its place."""

    user_id: UserId
    before: bytes = field(repr=False)
    after: bytes = field(repr=False)


def _mark(column: ColumnElement[bytes], mark_bytes: int) -> ColumnElement[bytes]:
    # Not as parameters: the same expression stands in GROUP BY.
    length: ColumnElement[int] = literal_column(str(mark_bytes))
    first: ColumnElement[int] = literal_column("1")
    return func.substr(column, first, length, type_=LargeBinary)


def _begins_otherwise(mark: bytes) -> ColumnElement[bool]:
    return or_(
        *(
            and_(column.is_not(None), _mark(column, len(mark)) != mark)
            for column in COLUMNS.values()
        )
    )


async def count_by_mark(
    connection: Connection, mark_bytes: int
) -> dict[bytes, dict[str, int]]:
    """How many values of each kind are sealed under each mark. Reads all users."""
    parts = []
    for name, column in COLUMNS.items():
        begins = _mark(column, mark_bytes)
        named: ColumnElement[str] = literal_column(f"'{name}'")
        counted = select(named, begins, func.count())
        parts.append(counted.where(column.is_not(None)).group_by(begins))
    found: dict[bytes, dict[str, int]] = {}
    for kind, mark, number in await connection.execute(union_all(*parts)):
        found.setdefault(bytes(mark), dict.fromkeys(COLUMNS, 0))[kind] = number
    return found


async def count_users_not_under(connection: Connection, mark: bytes) -> int:
    """How many users have a value that begins otherwise."""
    query = select(func.count()).select_from(users).where(_begins_otherwise(mark))
    return int((await connection.execute(query)).scalar_one())


async def users_not_under(
    connection: Connection, mark: bytes, *, after: UserId | None, limit: int
) -> list[SealedUser]:
    """Users that have a value that begins otherwise, in the order of their ids."""
    query = (
        select(users.c.id, *COLUMNS.values())
        .where(_begins_otherwise(mark))
        .order_by(users.c.id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(users.c.id > after)
    return [
        SealedUser(
            UserId(user_id),
            {
                name: sealed
                for name, sealed in zip(COLUMNS, values, strict=True)
                if sealed is not None and not sealed.startswith(mark)
            },
        )
        for user_id, *values in await connection.execute(query)
    ]


async def exchange(
    connection: Connection, kind: str, exchanges: Collection[Exchange]
) -> None:
    """Put values in the place of others. What was changed meanwhile is left alone."""
    if exchanges:
        await connection.execute(_EXCHANGES[kind], _bound(exchanges))


_EXCHANGES = {
    name: update(users)
    .where(
        users.c.id == bindparam("user_id"),
        column == bindparam("before", type_=LargeBinary),
    )
    .values({column: bindparam("after", type_=LargeBinary)})
    for name, column in COLUMNS.items()
}


def _bound(exchanges: Collection[Exchange]) -> Sequence[dict[str, object]]:
    return [
        {"user_id": it.user_id, "before": it.before, "after": it.after}
        for it in exchanges
    ]
