"""Users in the hands of leases: how they come there, and are taken back."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Insert,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from botfarm_server.domain.models import (
    Fence,
    Lease,
    LeaseId,
    Pool,
    UserId,
)
from botfarm_server.domain.queueing import Grant
from botfarm_server.store import queue
from botfarm_server.store.dialects import (
    as_time,
    built_once,
    clock,
    for_update,
    is_among,
    is_one_of,
    next_fence,
)
from botfarm_server.store.leases import INSERT_LEASES, expect, lease_of, row_of
from botfarm_server.store.tables import grants, leases, users
from botfarm_server.store.users import (
    HANDED_OVER,
    LEASED,
    NO_STATE,
    LeasedRow,
    leased,
)


@dataclass(frozen=True, slots=True)
class HeldUser:
    """A user of a held lease, as its end needs to know it."""

    id: UserId
    lease_id: LeaseId
    pool: Pool
    login: str
    project_id: UUID | None
    failed_tests: Sequence[str]
    in_rotation: bool


_HELD_USER = tuple(
    users.c[name].label(f"user_{name}")
    for name in (
        "id",
        "env",
        "domain",
        "login",
        "project_id",
        "failed_tests",
        "quarantined_at",
    )
)


def _held_user(row: Any, lease_id: LeaseId) -> HeldUser:
    return HeldUser(
        id=UserId(row.user_id),
        lease_id=lease_id,
        pool=Pool(row.user_env, row.user_domain),
        login=row.user_login,
        project_id=row.user_project_id,
        failed_tests=row.user_failed_tests or (),
        in_rotation=row.user_quarantined_at is None,
    )


@built_once
def _lock_with_users(connection: AsyncConnection) -> Select[Any]:
    named = leases.alias("named")
    query = for_update(
        connection,
        select(leases, *_HELD_USER)
        .outerjoin(users, users.c.lease_id == leases.c.id)
        .where(is_among(connection, leases.c.id, "lease_ids"))
        .order_by(leases.c.number),
        of=leases,
        skip_locked=True,
    )
    locked = query.cte("locked")
    # Row by row, the clock is read once the row is locked.
    return (
        select(named.c.id.label("named"), locked, clock(connection))
        .outerjoin_from(named, locked, locked.c.id == named.c.id)
        .where(is_among(connection, named.c.id, "lease_ids"))
    )


@dataclass
class LockedLeases:
    """Leases that a transaction has locked, and what it needs to know with them."""

    now: datetime
    """The time behind all these locks."""
    found: dict[LeaseId, Lease] = field(default_factory=dict)
    users: list[HeldUser] = field(default_factory=list)
    """Those that the leases hold."""
    elsewhere: set[LeaseId] = field(default_factory=set)
    """Leases that exist, and that another transaction has locked."""


async def lock_with_users(
    connection: AsyncConnection, lease_ids: Collection[UUID], now: datetime
) -> LockedLeases:
    """The leases that exist of those named, locked unless another one has them.

    Nobody is waited for: the queue would wait as well. The caller has the queue lock
    since `now`. A renewal may have had a row for a while after that, and an end that
    were dated before it would make its answer untrue.
    """
    locked = LockedLeases(now)
    for row in await connection.execute(
        _lock_with_users(connection), {"lease_ids": list(lease_ids)}
    ):
        if row.id is None:
            locked.elsewhere.add(LeaseId(row.named))
            continue
        locked.found[row.id] = lease_of(row)
        if row.user_id is not None:
            locked.users.append(_held_user(row, row.id))
        locked.now = max(locked.now, as_time(row.clock))
    return locked


async def users_held(
    connection: AsyncConnection, lease_ids: Collection[LeaseId]
) -> list[HeldUser]:
    """The users that the leases hold."""
    rows = await connection.execute(
        select(*_HELD_USER, users.c.lease_id).where(
            is_one_of(connection, users.c.lease_id, lease_ids)
        )
    )
    return [_held_user(row, row.lease_id) for row in rows]


async def insert_held(
    connection: AsyncConnection, new: Sequence[tuple[Lease, Grant]]
) -> list[tuple[Lease, list[LeasedRow]]]:
    """Record new leases together with the users that they are granted at once."""
    rows = await _hand_over(connection, [grant for _, grant in new])
    held = [
        (replace(lease, fence=_fence(rows[lease.id])), rows[lease.id])
        for lease, _ in new
    ]
    await connection.execute(INSERT_LEASES, [row_of(lease) for lease, _ in held])
    return held


@built_once
def _held_with_users(connection: AsyncConnection) -> Select[Any]:
    return (
        select(
            leases,
            clock(connection),
            *(column.label(f"user_{column.name}") for column in LEASED),
            grants.c.want.label("user_want"),
        )
        .join_from(leases, grants, grants.c.lease_id == leases.c.id)
        .join(
            users,
            and_(users.c.id == grants.c.user_id, users.c.lease_id == leases.c.id),
        )
        .where(leases.c.id == bindparam("lease_id"), leases.c.state == "held")
        .order_by(grants.c.want, grants.c.fence)
    )


async def held_with_users(
    connection: AsyncConnection, lease_id: LeaseId
) -> tuple[Lease, list[LeasedRow], datetime] | None:
    """A held lease, what it holds and the time, in one look; `None` if it is not."""
    query = _held_with_users(connection)
    rows = (await connection.execute(query, {"lease_id": lease_id})).all()
    if not rows:
        return None
    held = [
        LeasedRow(
            **{it.name: getattr(row, f"user_{it.name}") for it in fields(LeasedRow)}
        )
        for row in rows
    ]
    return lease_of(rows[0]), held, as_time(rows[0].clock)


_GRANT_WAITING = (
    update(leases)
    .where(leases.c.id == bindparam("lease_id"), leases.c.state == "waiting")
    .values(
        state="held",
        granted_at=bindparam("at"),
        expires_at=bindparam("until"),
        fence=bindparam("under"),
    )
)


async def grant_waiting(
    connection: AsyncConnection,
    given: Sequence[tuple[Grant, datetime | None]],
    *,
    now: datetime,
) -> None:
    """Turn waiters into holders until a time each. The caller has the queue lock."""
    rows = await _hand_over(connection, [grant for grant, _ in given])
    for grant, expires_at in given:
        changed = await connection.execute(
            _GRANT_WAITING,
            {
                "lease_id": grant.lease_id,
                "at": now,
                "until": expires_at,
                "under": _fence(rows[grant.lease_id]),
            },
        )
        expect(changed.rowcount, 1, "a waiter was granted that no longer waits")
    await queue.leave(connection, [grant.lease_id for grant, _ in given])


@built_once
def _draw_fences(connection: AsyncConnection) -> Insert:
    return insert(grants).values(next_fence(connection))


@built_once
def _hand_users_over(connection: AsyncConnection) -> ReturningUpdate[Any]:
    return (
        update(users)
        .where(
            users.c.id == grants.c.user_id,
            is_among(connection, grants.c.lease_id, "lease_ids"),
            users.c.lease_id.is_(None),
            users.c.quarantined_at.is_(None),
            users.c.fence < grants.c.fence,
        )
        .values(lease_id=grants.c.lease_id, fence=grants.c.fence, rest_until=None)
        .returning(*HANDED_OVER, users.c.lease_id)
    )


async def _hand_over(
    connection: AsyncConnection, given: Sequence[Grant]
) -> dict[LeaseId, list[LeasedRow]]:
    """Draw fences, and put the users into the hands of the leases."""
    await connection.execute(
        _draw_fences(connection),
        [
            {"lease_id": grant.lease_id, "user_id": user_id, "want": want}
            for grant in given
            for user_id, want in grant.users.items()
        ],
    )
    lease_ids = [grant.lease_id for grant in given]
    handed = await connection.execute(
        _hand_users_over(connection), {"lease_ids": lease_ids}
    )
    wants = {user_id: want for grant in given for user_id, want in grant.users.items()}
    found: dict[LeaseId, list[LeasedRow]] = {}
    for *columns, lease_id in handed:
        row = LeasedRow(*(*columns, wants[columns[0]]))
        found.setdefault(lease_id, []).append(row)
    expect(
        sum(map(len, found.values())), len(wants), "a user was granted that is not free"
    )
    for rows in found.values():
        rows.sort(key=lambda row: (row.want, row.fence))
    with_large_states = {
        lease_id
        for lease_id, rows in found.items()
        if any(row.state_is_apart for row in rows)
    }
    if with_large_states:
        found |= await leased(connection, with_large_states)
    return found


def _fence(rows: Sequence[LeasedRow]) -> Fence:
    return max(row.fence for row in rows)


async def claim(connection: AsyncConnection, lease_id: LeaseId) -> None:
    """Note that the holder of a lease that had to wait knows of its grant."""
    await connection.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.poll_by.is_not(None))
        .values(poll_by=None)
    )


async def take_back(
    connection: AsyncConnection, lease: Lease, poll_by: datetime
) -> None:
    """Undo a grant that nobody has seen: the lease waits again, outside the queue.

    The caller has the queue lock and the lease. Its fences are not used again.
    """
    changed = await connection.execute(
        update(leases)
        .where(leases.c.id == lease.id, leases.c.state == "held")
        .values(
            state="waiting",
            granted_at=None,
            expires_at=None,
            fence=None,
            poll_by=poll_by,
        )
    )
    expect(changed.rowcount, 1, "a grant was taken back that was not locked")
    await connection.execute(
        update(users).where(users.c.lease_id == lease.id).values(lease_id=None)
    )
    await connection.execute(delete(grants).where(grants.c.lease_id == lease.id))


@built_once
def _free_users(connection: AsyncConnection) -> Update:
    rest_until = bindparam("until", type_=users.c.rest_until.type)
    rest_after = bindparam("after", type_=users.c.rest_until.type)
    return (
        update(users)
        .where(is_among(connection, users.c.lease_id, "lease_ids"))
        .values(
            lease_id=None,
            released_at=bindparam("at"),
            # After a restore even a held user has a rest before it.
            rest_until=case(
                (users.c.rest_until > rest_after, users.c.rest_until),
                else_=rest_until,
            ),
            dirty=bindparam("is_dirty"),
        )
    )


@built_once
def _free_dirty_users(connection: AsyncConnection) -> Update:
    # Nobody knows what was done to it, its session included.
    return _free_users(connection).values(**NO_STATE)


async def free_users(
    connection: AsyncConnection,
    held: Sequence[HeldUser],
    *,
    now: datetime,
    rest_until: datetime | None,
    dirty: bool,
) -> None:
    """Take the users of ended leases back."""
    changed = await connection.execute(
        (_free_dirty_users if dirty else _free_users)(connection),
        {
            "lease_ids": list({user.lease_id for user in held}),
            "at": now,
            "until": rest_until,
            "after": rest_until or now,
            "is_dirty": dirty,
        },
    )
    expect(changed.rowcount, len(held), "a user was freed that was not held")
