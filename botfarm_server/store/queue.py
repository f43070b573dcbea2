"""The queue of those that wait, pool by pool."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Delete,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Lease, LeaseId, Pool, Want
from botfarm_server.domain.queueing import Waiter
from botfarm_server.store.dialects import (
    built_once,
    is_among,
    is_not_one_of,
    notify_granted,
)
from botfarm_server.store.tables import leases, queue_entries
from botfarm_server.store.wants import kind_of, want_of

MAXIMUM_NOTIFIED = 200
"""Lease ids in one notification: PostgreSQL takes 8,000 bytes, an id is 37."""


async def enter(connection: AsyncConnection, lease: Lease) -> None:
    """Take the place that the lease's number gives, in each of its pools."""
    pools = {want.pool for want in lease.wants}
    kind = kind_of(lease.wants)
    await connection.execute(
        insert(queue_entries),
        [
            {
                "env": pool.env,
                "domain": pool.domain,
                "number": lease.queue_number,
                "lease_id": lease.id,
                "kind": kind,
            }
            for pool in pools
        ],
    )


@built_once
def _leave(connection: AsyncConnection) -> Delete:
    return delete(queue_entries).where(
        is_among(connection, queue_entries.c.lease_id, "lease_ids")
    )


async def leave(connection: AsyncConnection, lease_ids: Sequence[LeaseId]) -> None:
    await connection.execute(_leave(connection), {"lease_ids": list(lease_ids)})


async def has(connection: AsyncConnection, lease_id: LeaseId) -> bool:
    """Whether a waiter is in the queue: not so while its caller has left."""
    query = select(queue_entries.c.number).where(queue_entries.c.lease_id == lease_id)
    return (await connection.execute(query.limit(1))).first() is not None


_ASKED_POOL = (
    queue_entries.c.env == bindparam("env"),
    queue_entries.c.domain == bindparam("domain"),
)
_WAITED_FOR = select(queue_entries.c.number).where(*_ASKED_POOL).limit(1)


async def waited_for(connection: AsyncConnection, pools: Collection[Pool]) -> set[Pool]:
    """Which of the pools somebody waits for."""
    # One look into the index for each, however many wait.
    return {
        pool
        for pool in pools
        if (await connection.execute(_WAITED_FOR, asdict(pool))).first() is not None
    }


async def pools_waited_for(connection: AsyncConnection) -> set[Pool]:
    answer = await connection.execute(
        select(queue_entries.c.env, queue_entries.c.domain).distinct()
    )
    return {Pool(row.env, row.domain) for row in answer}


# Looked up for each: as a join it may read the history of leases.
_PROJECT = (
    select(leases.c.project_id)
    .where(leases.c.number == queue_entries.c.number)
    .scalar_subquery()
)
_PROJECTS = select(_PROJECT.label("project_id")).select_from(queue_entries).distinct()


async def projects_waited_for(connection: AsyncConnection) -> set[UUID | None]:
    """Whose users are waited for; `None` stands for any, or for those of several."""
    return {row.project_id for row in await connection.execute(_PROJECTS)}


@dataclass(frozen=True, slots=True)
class QueuedWaiter:
    number: int
    kind: UUID
    ttl: float | None
    poll_by: datetime
    waiter: Waiter


_KIND = func.coalesce(queue_entries.c.kind, queue_entries.c.lease_id)


def _oldest(*conditions: ColumnElement[bool]) -> Select[Any]:
    oldest = (
        select(queue_entries.c.number, _KIND.label("kind"))
        .distinct()
        .where(*conditions, queue_entries.c.number > bindparam("after"))
        .order_by(queue_entries.c.number)
        .limit(bindparam("most"))
        .subquery()
    )
    return (
        select(
            leases.c.number,
            leases.c.id,
            leases.c.wants,
            leases.c.created_at,
            leases.c.ttl,
            leases.c.poll_by,
            oldest.c.kind,
        )
        .join_from(leases, oldest, leases.c.number == oldest.c.number)
        .order_by(leases.c.number)
    )


_OLDEST_OF_POOL = _oldest(*_ASKED_POOL)


async def waiters(
    connection: AsyncConnection,
    pools: Collection[Pool],
    *,
    after: int,
    limit: int,
    besides: Collection[UUID] = (),
    projects: Collection[UUID | None] = (None,),
) -> list[QueuedWaiter]:
    """The oldest waiters of the pools that came after number `after`.

    Those of the kinds `besides` are left out, and those that wait for users of one
    project, unless it is among `projects` or these are any, which `None` stands for.
    """
    given: dict[str, Any] = {"after": after, "most": limit}
    if len(pools) == 1 and not besides and None in projects:
        (pool,) = pools
        query = _OLDEST_OF_POOL
        given |= asdict(pool)
    else:
        query = _oldest(
            _in_pools(queue_entries, pools),
            is_not_one_of(connection, _KIND, besides),
            *_wanting(projects),
        )
    rows = await connection.execute(query, given)
    return [
        QueuedWaiter(
            number=row.number,
            kind=row.kind,
            ttl=row.ttl,
            poll_by=row.poll_by,
            waiter=Waiter(
                id=LeaseId(row.id),
                wants=[want_of(want) for want in row.wants],
                since=row.created_at,
            ),
        )
        for row in rows
    ]


def _wanting(projects: Collection[UUID | None]) -> list[ColumnElement[bool]]:
    named = [project_id for project_id in projects if project_id is not None]
    if not named or len(named) < len(projects):
        return []
    return [func.coalesce(_PROJECT, named[0]).in_(named)]


async def kinds(
    connection: AsyncConnection, pools: Collection[Pool], *, limit: int
) -> list[tuple[UUID, list[Want]]]:
    """What is waited for in the pools, the oldest first, each kind once."""
    oldest = (
        select(_KIND.label("kind"), func.min(queue_entries.c.number).label("number"))
        .where(_in_pools(queue_entries, pools))
        .group_by(_KIND)
        .order_by(func.min(queue_entries.c.number))
        .limit(limit)
        .subquery()
    )
    rows = await connection.execute(
        select(oldest.c.kind, leases.c.wants)
        .join_from(oldest, leases, leases.c.number == oldest.c.number)
        .order_by(oldest.c.number)
    )
    return [(row.kind, [want_of(want) for want in row.wants]) for row in rows]


async def of_kind(
    connection: AsyncConnection, pools: Collection[Pool], kind: UUID
) -> list[LeaseId]:
    """The waiters of a kind that wait in one of the pools."""
    query = (
        select(queue_entries.c.lease_id)
        .distinct()
        .where(_in_pools(queue_entries, pools), _KIND.in_([kind]))
    )
    rows = await connection.execute(query)
    return [LeaseId(row.lease_id) for row in rows]


def _in_pools(table: Any, pools: Collection[Pool]) -> ColumnElement[bool]:
    return tuple_(table.c.env, table.c.domain).in_(
        [(pool.env, pool.domain) for pool in pools]
    )


async def place(connection: AsyncConnection, lease: Lease) -> int:
    """1 for the oldest waiter of the lease's pools.

    Waiters of another project never get what a lease of one project waits for, and are
    not counted.

    It counts those before it, so it costs as many as they are: behind 10,000 some 4 ms,
    against 0.5 ms behind none. Only a call that has waited in vain asks for it.
    """
    pools = {want.pool for want in lease.wants}
    before = select(func.count(queue_entries.c.lease_id.distinct())).where(
        _in_pools(queue_entries, pools), queue_entries.c.number < lease.queue_number
    )
    if lease.project_id is not None:
        before = before.join(leases, leases.c.id == queue_entries.c.lease_id).where(
            or_(leases.c.project_id.is_(None), leases.c.project_id == lease.project_id)
        )
    return int((await connection.execute(before)).scalar_one()) + 1


async def announce(connection: AsyncConnection, lease_ids: Sequence[LeaseId]) -> None:
    """Wake the calls that wait for these leases, on whichever replica they are."""
    for start in range(0, len(lease_ids), MAXIMUM_NOTIFIED):
        batch = lease_ids[start : start + MAXIMUM_NOTIFIED]
        await notify_granted(connection, " ".join(str(name) for name in batch))
