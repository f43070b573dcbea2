"""Users as they are stored, found and changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    not_,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.errors import DuplicateUserError
from botfarm_server.domain.models import (
    EVERY_USER,
    Fence,
    LeaseId,
    Pool,
    ReservationId,
    User,
    UserFilter,
    UserId,
    UserState,
)
from botfarm_server.store.dialects import built_once, is_among, labels_contain
from botfarm_server.store.lease_files import told_of
from botfarm_server.store.tables import Row, grants, leases, users


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user as it is stored: its password is hashed, and sealed where a key is."""

    id: UserId
    login: str
    env: str
    domain: str
    project_id: UUID | None
    labels: Mapping[str, str]
    password_hash: str = field(repr=False)
    sealed_password: bytes | None = field(repr=False)
    sealed_secrets: bytes | None = field(repr=False)
    reservation_id: ReservationId | None = None
    """The place that it was made for, if a suite made it."""


@dataclass(frozen=True, slots=True)
class LeasedRow:
    """A user of a held lease, with its sealed secrets."""

    id: UserId
    login: str
    project_id: UUID | None
    env: str
    domain: str
    labels: Mapping[str, str]
    fence: Fence
    dirty: bool
    sealed_password: bytes | None = field(repr=False)
    sealed_secrets: bytes | None = field(repr=False)
    sealed_state: bytes | None = field(repr=False)
    """`None` as well where it is apart."""
    state_is_apart: bool
    """Whether it has a state that is too large to be read with the lease."""
    state_expires_at: datetime | None
    want: int
    """The index of the want that it meets."""


STATES_TOGETHER = 1_048_576
"""Bytes of sealed states that are read with a lease, of which each of its users has an
equal part. They are held several times over until they are answered."""
SMALL_STATE = STATES_TOGETHER // 100
"""Bytes that each user of the largest lease may have."""


def _read_unless(state_is_apart: ColumnElement[bool]) -> Sequence[ColumnElement[Any]]:
    """The columns of a row, but for its want."""
    computed: Mapping[str, ColumnElement[Any]] = {
        "sealed_state": case((not_(state_is_apart), users.c.sealed_state)),
        "state_is_apart": state_is_apart,
    }
    return tuple(
        computed[it.name].label(it.name) if it.name in computed else users.c[it.name]
        for it in fields(LeasedRow)
        if it.name != "want"
    )


_STATE_BYTES = func.coalesce(func.length(users.c.sealed_state), 0)
_OF_THE_LEASE = grants.alias("of_the_lease")
_USERS_TOGETHER = (
    select(func.count())
    .select_from(_OF_THE_LEASE)
    .where(_OF_THE_LEASE.c.lease_id == users.c.lease_id)
    .scalar_subquery()
)
LEASED = _read_unless(
    and_(
        _STATE_BYTES > SMALL_STATE,  # the others need no count
        _STATE_BYTES * _USERS_TOGETHER > STATES_TOGETHER,
    )
)
HANDED_OVER = _read_unless(_STATE_BYTES > SMALL_STATE)
"""The same where nothing can be counted: what an UPDATE returns."""


BACK_IN_ROTATION: Mapping[str, Any] = {
    "quarantined_at": None,
    "quarantine_reason": None,
    "quarantined_by": None,
    "failed_tests": None,
}
"""The columns of a user that comes back from quarantine."""


NO_STATE: Mapping[str, Any] = {"sealed_state": None, "state_expires_at": None}
"""The columns of a user whose holder leaves nothing for the next one."""


def in_quarantine(now: datetime, reason: str, author: str | None) -> dict[str, Any]:
    """The columns of a user that is taken out of rotation."""
    return {
        "quarantined_at": now,
        "quarantine_reason": reason,
        "quarantined_by": author,
    }


def state_at(now: datetime) -> ColumnElement[UserState]:
    return case(
        (users.c.quarantined_at.is_not(None), literal("quarantined")),
        (users.c.lease_id.is_not(None), literal("held")),
        (users.c.rest_until > now, literal("resting")),
        else_=literal("free"),
    ).label("state")


def _columns(now: datetime) -> Sequence[ColumnElement[Any]]:
    return (
        users.c.id,
        users.c.login,
        users.c.project_id,
        users.c.env,
        users.c.domain,
        users.c.labels,
        users.c.created_at,
        state_at(now),
        leases.c.granted_at.label("locktime"),
        users.c.lease_id,
        users.c.fence,
        users.c.dirty,
        users.c.quarantine_reason,
        users.c.quarantined_by,
    )


async def add(
    connection: AsyncConnection, new: Sequence[StoredUser], now: datetime
) -> None:
    """Store new users.

    Raises:
        DuplicateUserError: the login is taken within its env.

    """
    try:
        await connection.execute(insert(users), [_row(user, now) for user in new])
    except IntegrityError as error:
        # Of several it may be another: which one, each database tells in its own way.
        raise DuplicateUserError(new[0].login, new[0].env) from error


def _row(user: StoredUser, now: datetime) -> Row:
    return {
        "id": user.id,
        "login": user.login,
        "env": user.env,
        "domain": user.domain,
        "project_id": user.project_id,
        "labels": dict(user.labels),
        "label_count": len(user.labels),
        "password_hash": user.password_hash,
        "sealed_password": user.sealed_password,
        "sealed_secrets": user.sealed_secrets,
        "reservation_id": user.reservation_id,
        "created_at": now,
        "released_at": now,
        "fence": 0,
        "dirty": False,
    }


async def change(
    connection: AsyncConnection, user_id: UserId, changes: Mapping[str, Any]
) -> bool:
    """Set columns of a user; false if there is none."""
    values = dict(changes)
    if "labels" in values:
        values["label_count"] = len(values["labels"])
    changed = await connection.execute(
        update(users).where(users.c.id == user_id).values(**values)
    )
    return bool(changed.rowcount)


async def change_held(
    connection: AsyncConnection,
    user_id: UserId,
    lease_id: LeaseId,
    changes: Mapping[str, Any],
) -> bool:
    """Set columns of a user that a lease holds; false if it does not."""
    changed = await connection.execute(
        update(users)
        .where(users.c.id == user_id, users.c.lease_id == lease_id)
        .values(**changes)
    )
    return bool(changed.rowcount)


async def remove(connection: AsyncConnection, user_id: UserId) -> bool:
    """Delete a user that nobody holds; false if there is none such."""
    gone = await connection.execute(
        delete(users).where(users.c.id == user_id, users.c.lease_id.is_(None))
    )
    return bool(gone.rowcount)


async def rest_all(connection: AsyncConnection, until: datetime) -> None:
    """Hand no user on before `until`."""
    await connection.execute(update(users).values(rest_until=until))


async def get(
    connection: AsyncConnection, user_id: UserId, now: datetime
) -> User | None:
    found = await find(connection, now, user_id=user_id)
    return found[0] if found else None


async def find(
    connection: AsyncConnection,
    now: datetime,
    wanted: UserFilter = EVERY_USER,
    *,
    user_id: UserId | None = None,
    reservation_id: ReservationId | None = None,
    after: tuple[str, str] | None = None,
    limit: int | None = None,
) -> list[User]:
    """Users in the order of env and login."""
    given = {
        "id": user_id,
        "reservation_id": reservation_id,
        "env": wanted.env,
        "domain": wanted.domain,
        "project_id": wanted.project_id,
        "login": wanted.login,
    }
    query = (
        select(*_columns(now))
        .select_from(users)
        .outerjoin(leases, users.c.lease_id == leases.c.id)
        .where(
            *(users.c[name] == text for name, text in given.items() if text is not None)
        )
        .order_by(users.c.env, users.c.login)
    )
    if wanted.state is not None:
        query = query.where(state_at(now) == wanted.state)
    if wanted.labels:
        query = query.where(labels_contain(connection, users.c.labels, wanted.labels))
    if after is not None:
        query = query.where(tuple_(users.c.env, users.c.login) > after)
    if limit is not None:
        query = query.limit(limit)
    return [_user(connection, row) for row in await connection.execute(query)]


def _user(connection: AsyncConnection, row: Any) -> User:
    told = None if row.lease_id is None else told_of(connection, row.lease_id)
    typed = {"id": UserId(row.id), "fence": Fence(row.fence)}
    idle = told is not None and told.is_between_tests
    return User(**{**row._mapping, **typed, "idle": idle})  # noqa: SLF001 - a row's public mapping


async def password_hash(connection: AsyncConnection, user_id: UserId) -> str | None:
    query = select(users.c.password_hash).where(users.c.id == user_id)
    found: str | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def stored(
    connection: AsyncConnection, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StoredUser]:
    """What is stored under the given pairs of env and login."""
    columns = [users.c[name] for name in StoredUser.__slots__]
    rows = await connection.execute(
        select(*columns).where(tuple_(users.c.env, users.c.login).in_(list(keys)))
    )
    return {(row.env, row.login): StoredUser(*row) for row in rows}


async def count(
    connection: AsyncConnection, pool: Pool, project_id: UUID | None
) -> int:
    """How many a pool has, or one project's part of it, in rotation or not."""
    query = (
        select(func.count())
        .select_from(users)
        .where(users.c.env == pool.env, users.c.domain == pool.domain)
    )
    if project_id is not None:
        query = query.where(users.c.project_id == project_id)
    return int((await connection.execute(query)).scalar_one())


async def pool_sizes(
    connection: AsyncConnection, project_id: UUID | None = None
) -> dict[Pool, int]:
    """How many users each pool has in rotation, of a project if one is named."""
    query = (
        select(users.c.env, users.c.domain, func.count())
        .where(users.c.quarantined_at.is_(None))
        .group_by(users.c.env, users.c.domain)
    )
    if project_id is not None:
        query = query.where(users.c.project_id == project_id)
    rows = await connection.execute(query)
    return {Pool(env, domain): size for env, domain, size in rows}


@built_once
def _leased(connection: AsyncConnection) -> Select[Any]:
    return (
        select(*LEASED, grants.c.want, users.c.lease_id)
        .join_from(
            users,
            grants,
            and_(
                grants.c.user_id == users.c.id,
                grants.c.lease_id == users.c.lease_id,
            ),
        )
        .where(is_among(connection, users.c.lease_id, "lease_ids"))
        .order_by(grants.c.want, grants.c.fence)
    )


async def leased(
    connection: AsyncConnection, lease_ids: Collection[LeaseId]
) -> dict[LeaseId, list[LeasedRow]]:
    """The users that each live lease holds, in the order of its wants."""
    rows = await connection.execute(_leased(connection), {"lease_ids": list(lease_ids)})
    found: dict[LeaseId, list[LeasedRow]] = {}
    for *columns, lease_id in rows:
        found.setdefault(lease_id, []).append(LeasedRow(*columns))
    return found


async def kept_state(
    connection: AsyncConnection, lease_id: LeaseId, user_id: UserId
) -> tuple[UUID | None, bytes | None, datetime | None] | None:
    """The project of a user that a lease holds, its sealed state and until when."""
    query = select(
        users.c.project_id, users.c.sealed_state, users.c.state_expires_at
    ).where(users.c.id == user_id, users.c.lease_id == lease_id)
    found = (await connection.execute(query)).one_or_none()
    return None if found is None else (found[0], found[1], found[2])


async def not_listed(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> list[UserId]:
    """Users whose env and login are not among the given pairs.

    Those that suites made are in no list, and are left out.
    """
    query = select(users.c.id).where(users.c.reservation_id.is_(None))
    if keys:
        query = query.where(tuple_(users.c.env, users.c.login).not_in(list(keys)))
    return [UserId(row.id) for row in await connection.execute(query)]


async def put_aside(
    connection: AsyncConnection, keys: Collection[tuple[str, str]], *, reason: str
) -> list[UserId]:
    """Those of the given pairs that are in quarantine for this reason."""
    query = select(users.c.id).where(
        users.c.quarantine_reason == reason,
        tuple_(users.c.env, users.c.login).in_(list(keys)),
    )
    return [UserId(row.id) for row in await connection.execute(query)]
