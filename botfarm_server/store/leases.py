"""Leases, the queue of those that wait, and the grants of those that were met."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import (
    EndedState,
    Fence,
    Holder,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    Pool,
    UserId,
    Want,
)
from botfarm_server.domain.queueing import Grant, Waiter
from botfarm_server.store.dialects import for_update, notify_granted
from botfarm_server.store.tables import Row, grants, leases, queue_entries, users

MAXIMUM_NOTIFIED = 200
"""Lease ids in one notification: PostgreSQL takes 8,000 bytes, an id is 37."""


@dataclass(frozen=True, slots=True)
class LeaseUser:
    """A user of a lease, held still or once."""

    lease_id: LeaseId
    id: UserId
    login: str
    env: str
    domain: str
    fence: Fence


def _stored_want(want: Want) -> Row:
    return {
        "env": want.env,
        "domain": want.domain,
        "project_id": str(want.project_id) if want.project_id else None,
        "labels": dict(want.labels),
        "count": want.count,
        "user_id": str(want.user_id) if want.user_id else None,
    }


def _want(stored: Row) -> Want:
    project_id, user_id = stored["project_id"], stored["user_id"]
    return Want(
        env=stored["env"],
        domain=stored["domain"],
        project_id=UUID(project_id) if project_id else None,
        labels=stored["labels"],
        count=stored["count"],
        user_id=UserId(UUID(user_id)) if user_id else None,
    )


def _lease(row: Any) -> Lease:
    return Lease(
        id=LeaseId(row.id),
        state=row.state,
        wants=[_want(want) for want in row.wants],
        holder=Holder(
            run_id=row.run_id,
            worker_id=row.worker_id,
            test_id=row.test_id,
            host=row.host,
            job_url=row.job_url,
        ),
        ttl=row.ttl,
        created_at=row.created_at,
        queue_number=row.number,
        fence=row.fence,
        granted_at=row.granted_at,
        expires_at=row.expires_at,
        poll_by=row.poll_by,
        ended_at=row.ended_at,
        outcome=row.outcome,
        end_reason=row.end_reason,
    )


async def get(connection: AsyncConnection, lease_id: LeaseId) -> Lease | None:
    answer = await connection.execute(select(leases).where(leases.c.id == lease_id))
    row = answer.one_or_none()
    return _lease(row) if row is not None else None


async def lock_all(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> dict[LeaseId, Lease]:
    """The leases that exist of those named, locked in the order of their numbers."""
    query = select(leases).where(leases.c.id.in_(lease_ids)).order_by(leases.c.number)
    rows = await connection.execute(for_update(connection, query))
    return {lease.id: lease for lease in map(_lease, rows)}


async def insert_waiting(connection: AsyncConnection, lease: Lease) -> None:
    """Give a new lease its place at the end of the queue of each of its pools."""
    number = await _insert(connection, lease)
    pools = {want.pool for want in lease.wants}
    await connection.execute(
        insert(queue_entries),
        [
            {
                "env": pool.env,
                "domain": pool.domain,
                "number": number,
                "lease_id": lease.id,
            }
            for pool in pools
        ],
    )


async def insert_ended(connection: AsyncConnection, lease: Lease) -> None:
    """Record a lease that is over before it began, so that it cannot begin later."""
    await _insert(connection, lease)


async def insert_held(connection: AsyncConnection, lease: Lease, grant: Grant) -> Lease:
    """Record a new lease together with the users that it is granted at once."""
    fences = await _insert_grants(connection, grant)
    held = replace(lease, fence=Fence(max(fences.values())))
    await _insert(connection, held)
    await _hand_over(connection, grant, fences)
    return held


async def _insert(connection: AsyncConnection, lease: Lease) -> int:
    answer = await connection.execute(
        insert(leases).returning(leases.c.number),
        {
            "id": lease.id,
            "state": lease.state,
            "wants": [_stored_want(want) for want in lease.wants],
            "ttl": lease.ttl,
            **asdict(lease.holder),
            "fence": lease.fence,
            "created_at": lease.created_at,
            "poll_by": lease.poll_by,
            "granted_at": lease.granted_at,
            "expires_at": lease.expires_at,
            "ended_at": lease.ended_at,
            "outcome": lease.outcome,
            "end_reason": lease.end_reason,
        },
    )
    return cast("int", answer.scalar_one())


async def grant_waiting(
    connection: AsyncConnection,
    grant: Grant,
    *,
    now: datetime,
    expires_at: datetime | None,
) -> None:
    """Turn a waiter into a holder. The caller has the queue lock."""
    fences = await _insert_grants(connection, grant)
    changed = await connection.execute(
        update(leases)
        .where(leases.c.id == grant.lease_id, leases.c.state == "waiting")
        .values(
            state="held",
            granted_at=now,
            expires_at=expires_at,
            poll_by=None,
            fence=max(fences.values()),
        )
    )
    _expect(changed.rowcount, 1, "a waiter was granted that no longer waits")
    await leave_queue(connection, [grant.lease_id])
    await _hand_over(connection, grant, fences)


async def _insert_grants(
    connection: AsyncConnection, grant: Grant
) -> dict[UserId, Fence]:
    answer = await connection.execute(
        insert(grants).returning(grants.c.user_id, grants.c.fence),
        [
            {"lease_id": grant.lease_id, "user_id": user_id, "want": want}
            for user_id, want in grant.users.items()
        ],
    )
    return {UserId(row.user_id): Fence(row.fence) for row in answer}


async def _hand_over(
    connection: AsyncConnection, grant: Grant, fences: dict[UserId, Fence]
) -> None:
    for user_id, fence in fences.items():
        changed = await connection.execute(
            update(users)
            .where(
                users.c.id == user_id,
                users.c.lease_id.is_(None),
                users.c.quarantined_at.is_(None),
                users.c.fence < fence,
            )
            .values(lease_id=grant.lease_id, fence=fence, rest_until=None)
        )
        _expect(changed.rowcount, 1, "a user was granted that is not free")


async def extend(
    connection: AsyncConnection,
    lease_ids: Collection[LeaseId],
    *,
    now: datetime,
    expires_at: datetime | None,
) -> int:
    """Move the expiry of held leases; how many were still held and not lapsed."""
    changed = await connection.execute(
        update(leases)
        .where(
            leases.c.id.in_(lease_ids),
            leases.c.state == "held",
            or_(leases.c.expires_at.is_(None), leases.c.expires_at > now),
        )
        .values(expires_at=expires_at)
    )
    return changed.rowcount


async def keep_place(
    connection: AsyncConnection, lease_id: LeaseId, poll_by: datetime
) -> None:
    """Note that somebody asks about a waiter still."""
    await connection.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.state == "waiting")
        .values(poll_by=poll_by)
    )


async def end(
    connection: AsyncConnection,
    lease: Lease,
    state: EndedState,
    *,
    now: datetime,
    outcome: Outcome | None = None,
    reason: str | None = None,
) -> bool:
    """End a lease that is still as it was read; false if it changed meanwhile."""
    still = [leases.c.id == lease.id, leases.c.state == lease.state]
    if lease.state == "held":
        still += [
            leases.c.fence == lease.fence,
            # A renewal between the reading and this would have moved the expiry.
            leases.c.expires_at.is_not_distinct_from(lease.expires_at),
        ]
    changed = await connection.execute(
        update(leases)
        .where(*still)
        .values(
            state=state, ended_at=now, outcome=outcome, end_reason=reason, poll_by=None
        )
    )
    if changed.rowcount and lease.state == "waiting":
        await leave_queue(connection, [lease.id])
    return bool(changed.rowcount)


async def leave_queue(
    connection: AsyncConnection, lease_ids: Sequence[LeaseId]
) -> None:
    await connection.execute(
        delete(queue_entries).where(queue_entries.c.lease_id.in_(lease_ids))
    )


async def free_users(
    connection: AsyncConnection,
    lease_id: LeaseId,
    *,
    now: datetime,
    rest_until: datetime | None,
    dirty: bool,
) -> set[Pool]:
    """Take the users of an ended lease back; the pools that they belong to."""
    answer = await connection.execute(
        update(users)
        .where(users.c.lease_id == lease_id)
        .values(lease_id=None, released_at=now, rest_until=rest_until, dirty=dirty)
        .returning(users.c.env, users.c.domain)
    )
    return {Pool(row.env, row.domain) for row in answer}


async def lapsed(
    connection: AsyncConnection, now: datetime, *, limit: int
) -> list[Lease]:
    """Leases whose time is over but that are not ended yet, locked.

    A row that somebody else has locked is being renewed or ended: it is left out.
    """
    query = (
        select(leases).where(_has_lapsed(now)).order_by(leases.c.number).limit(limit)
    )
    rows = await connection.execute(for_update(connection, query, skip_locked=True))
    return [_lease(row) for row in rows]


async def any_lapsed(connection: AsyncConnection, now: datetime) -> bool:
    answer = await connection.execute(
        select(leases.c.id).where(_has_lapsed(now)).limit(1)
    )
    return answer.first() is not None


def _has_lapsed(now: datetime) -> ColumnElement[bool]:
    return or_(
        and_(leases.c.state == "held", leases.c.expires_at <= now),
        and_(leases.c.state == "waiting", leases.c.poll_by <= now),
    )


async def pools_waited_for(connection: AsyncConnection) -> set[Pool]:
    answer = await connection.execute(
        select(queue_entries.c.env, queue_entries.c.domain).distinct()
    )
    return {Pool(row.env, row.domain) for row in answer}


@dataclass(frozen=True, slots=True)
class QueuedWaiter:
    number: int
    ttl: float | None
    waiter: Waiter


async def waiters(
    connection: AsyncConnection,
    pools: Collection[Pool],
    *,
    after: int,
    limit: int,
) -> list[QueuedWaiter]:
    """The oldest waiters of the pools that came after number `after`."""
    oldest = (
        select(queue_entries.c.number)
        .distinct()
        .where(_in_pools(queue_entries, pools), queue_entries.c.number > after)
        .order_by(queue_entries.c.number)
        .limit(limit)
    )
    rows = await connection.execute(
        select(
            leases.c.number,
            leases.c.id,
            leases.c.wants,
            leases.c.created_at,
            leases.c.ttl,
        )
        .where(leases.c.number.in_(oldest))
        .order_by(leases.c.number)
    )
    return [
        QueuedWaiter(
            number=row.number,
            ttl=row.ttl,
            waiter=Waiter(
                id=LeaseId(row.id),
                wants=[_want(want) for want in row.wants],
                since=row.created_at,
            ),
        )
        for row in rows
    ]


def _in_pools(table: Any, pools: Collection[Pool]) -> ColumnElement[bool]:
    return tuple_(table.c.env, table.c.domain).in_(
        [(pool.env, pool.domain) for pool in pools]
    )


async def place(connection: AsyncConnection, lease: Lease) -> int:
    """1 for the oldest waiter of the lease's pools."""
    pools = {want.pool for want in lease.wants}
    answer = await connection.execute(
        select(func.count(queue_entries.c.lease_id.distinct())).where(
            _in_pools(queue_entries, pools), queue_entries.c.number < lease.queue_number
        )
    )
    return int(answer.scalar_one()) + 1


async def no_longer_waiting(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> set[LeaseId]:
    """Which of the named leases have been granted or have ended."""
    answer = await connection.execute(
        select(leases.c.id).where(
            leases.c.id.in_(lease_ids), leases.c.state != "waiting"
        )
    )
    return {LeaseId(row.id) for row in answer}


async def announce(connection: AsyncConnection, lease_ids: Sequence[LeaseId]) -> None:
    """Wake the calls that wait for these leases, on whichever replica they are."""
    for start in range(0, len(lease_ids), MAXIMUM_NOTIFIED):
        batch = lease_ids[start : start + MAXIMUM_NOTIFIED]
        await notify_granted(connection, " ".join(str(name) for name in batch))


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """A held user, its lease's holder and times."""

    user_id: UserId
    login: str
    lease_id: LeaseId
    holder: Holder
    granted_at: datetime
    expires_at: datetime | None


def _holdings() -> Select[Any]:
    return select(
        users.c.id.label("user_id"),
        users.c.login,
        leases.c.id.label("lease_id"),
        leases.c.run_id,
        leases.c.worker_id,
        leases.c.test_id,
        leases.c.host,
        leases.c.job_url,
        leases.c.granted_at,
        leases.c.expires_at,
    ).join_from(users, leases, users.c.lease_id == leases.c.id)


def _holding(row: Any) -> HoldingRow:
    return HoldingRow(
        user_id=UserId(row.user_id),
        login=row.login,
        lease_id=LeaseId(row.lease_id),
        holder=Holder(row.run_id, row.worker_id, row.test_id, row.host, row.job_url),
        granted_at=row.granted_at,
        expires_at=row.expires_at,
    )


async def holdings_where(
    connection: AsyncConnection, condition: ColumnElement[bool], *, limit: int
) -> list[HoldingRow]:
    """Held users that meet a condition on `users`, longest held first."""
    rows = await connection.execute(
        _holdings().where(condition).order_by(leases.c.granted_at).limit(limit)
    )
    return [_holding(row) for row in rows]


async def holdings_of(
    connection: AsyncConnection, user_ids: Iterable[UserId]
) -> dict[UserId, HoldingRow]:
    """Who holds the named users now; a user that nobody holds is left out."""
    rows = await connection.execute(_holdings().where(users.c.id.in_(list(user_ids))))
    return {holding.user_id: holding for holding in map(_holding, rows)}


async def users_of(
    connection: AsyncConnection, lease_ids: Collection[LeaseId]
) -> list[LeaseUser]:
    """The users that the leases were granted, in the order of their wants."""
    rows = await connection.execute(
        select(
            grants.c.lease_id,
            users.c.id,
            users.c.login,
            users.c.env,
            users.c.domain,
            grants.c.fence,
        )
        .join_from(grants, users, grants.c.user_id == users.c.id)
        .where(grants.c.lease_id.in_(lease_ids))
        .order_by(grants.c.want, grants.c.fence)
    )
    return [LeaseUser(*row) for row in rows]


async def find(
    connection: AsyncConnection,
    *,
    states: Sequence[LeaseState] | None = None,
    run_id: str | None = None,
    worker_id: str | None = None,
    user_id: UserId | None = None,
    before: int | None = None,
    limit: int,
) -> list[Lease]:
    """Leases, newest first."""
    query = select(leases).order_by(leases.c.number.desc()).limit(limit)
    if states is not None:
        query = query.where(leases.c.state.in_(states))
    if run_id is not None:
        query = query.where(leases.c.run_id == run_id)
    if worker_id is not None:
        query = query.where(leases.c.worker_id == worker_id)
    if user_id is not None:
        of_user = select(grants.c.lease_id).where(grants.c.user_id == user_id)
        query = query.where(leases.c.id.in_(of_user))
    if before is not None:
        query = query.where(leases.c.number < before)
    return [_lease(row) for row in await connection.execute(query)]


async def live_of_holder(
    connection: AsyncConnection, run_id: str, worker_id: str | None
) -> list[Lease]:
    """The waiting and held leases of a run or of one of its workers, locked."""
    query = (
        select(leases)
        .where(leases.c.run_id == run_id, leases.c.state.in_(["waiting", "held"]))
        .order_by(leases.c.number)
    )
    if worker_id is not None:
        query = query.where(leases.c.worker_id == worker_id)
    rows = await connection.execute(for_update(connection, query))
    return [_lease(row) for row in rows]


async def forget_ended(
    connection: AsyncConnection, before: datetime, *, limit: int
) -> int:
    """Delete the history that is older than `before`, at most `limit` leases."""
    old = (
        select(leases.c.number)
        .where(leases.c.ended_at.is_not(None), leases.c.ended_at < before)
        .order_by(leases.c.ended_at)
        .limit(limit)
    )
    gone = await connection.execute(delete(leases).where(leases.c.number.in_(old)))
    return gone.rowcount


def _expect(found: int, expected: int, otherwise: str) -> None:
    # The queue lock excludes this; should it ever happen, the transaction is undone.
    if found != expected:
        raise AssertionError(otherwise)
