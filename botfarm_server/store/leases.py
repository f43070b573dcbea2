"""Leases and grants: one conditional update for each change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Update,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import (
    EndedState,
    Holder,
    KnotMember,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    UserId,
)
from botfarm_server.store import queue
from botfarm_server.store.dialects import (
    built_once,
    for_update,
    is_among,
    is_one_of,
)
from botfarm_server.store.tables import Row, grants, leases, queue_entries
from botfarm_server.store.wants import stored_want, want_of


def lease_of(row: Any) -> Lease:
    return Lease(
        id=LeaseId(row.id),
        state=row.state,
        wants=[want_of(want) for want in row.wants],
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
        knot=(
            None
            if row.knot is None
            else [
                KnotMember(**{**it, "lease_id": UUID(it["lease_id"])})
                for it in row.knot
            ]
        ),
        kept_at=row.kept_at,
        token_id=row.token_id,
    )


_GET = select(leases).where(leases.c.id == bindparam("lease_id"))


async def get(connection: AsyncConnection, lease_id: LeaseId) -> Lease | None:
    answer = await connection.execute(_GET, {"lease_id": lease_id})
    row = answer.one_or_none()
    return lease_of(row) if row is not None else None


async def lock(connection: AsyncConnection, lease_id: LeaseId) -> Lease | None:
    """The lease, locked: it is what it says until the transaction ends.

    Renewals do not take the queue lock, so whoever ends a lease locks it first.
    """
    return (await lock_all(connection, [lease_id])).get(lease_id)


async def lock_or_skip(
    connection: AsyncConnection, lease_id: LeaseId
) -> tuple[Lease | None, bool]:
    """The lease, locked, or that another transaction has locked it: nobody waits."""
    query = for_update(connection, _GET, skip_locked=True)
    row = (await connection.execute(query, {"lease_id": lease_id})).one_or_none()
    if row is not None:
        return lease_of(row), False
    return None, await get(connection, lease_id) is not None


async def lock_all(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> dict[LeaseId, Lease]:
    """The leases that exist of those named, locked in the order of their numbers."""
    named = is_one_of(connection, leases.c.id, lease_ids)
    query = select(leases).where(named).order_by(leases.c.number)
    rows = await connection.execute(for_update(connection, query))
    return {lease.id: lease for lease in map(lease_of, rows)}


async def lock_held(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> dict[LeaseId, Lease]:
    """Those of the leases that are held, locked in the order of their numbers.

    For who has not the queue lock: whoever has it may lock waiters in another order.
    """
    query = (
        select(leases)
        .where(is_one_of(connection, leases.c.id, lease_ids), leases.c.state == "held")
        .order_by(leases.c.number)
    )
    rows = await connection.execute(for_update(connection, query))
    return {lease.id: lease for lease in map(lease_of, rows)}


async def get_all(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> dict[LeaseId, Lease]:
    """The leases that exist of those named."""
    query = select(leases).where(is_one_of(connection, leases.c.id, lease_ids))
    rows = await connection.execute(query)
    return {lease.id: lease for lease in map(lease_of, rows)}


async def in_use(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> set[LeaseId]:
    """Which of these leases somebody waits for, or holds for a test: not kept ones."""
    answer = await connection.execute(
        select(leases.c.id).where(
            is_one_of(connection, leases.c.id, lease_ids),
            leases.c.state.in_(["waiting", "held"]),
            leases.c.kept_at.is_(None),
        )
    )
    return {LeaseId(row.id) for row in answer}


@dataclass(frozen=True, slots=True)
class LiveLease:
    """Which worker waits for a lease, or holds it."""

    lease_id: LeaseId
    state: LeaseState
    token_id: UUID | None
    run_id: str | None
    worker_id: str | None


_LIVE_LEASE = (
    leases.c.id,
    leases.c.state,
    leases.c.token_id,
    leases.c.run_id,
    leases.c.worker_id,
)


async def live(
    connection: AsyncConnection, held: Collection[LeaseId]
) -> list[LiveLease]:
    """All that wait, and those of these that are held."""
    rows = await connection.execute(
        select(*_LIVE_LEASE).where(
            or_(
                leases.c.state == "waiting",
                and_(
                    leases.c.state == "held",
                    is_one_of(connection, leases.c.id, held),
                ),
            )
        )
    )
    return [LiveLease(*row) for row in rows]


async def insert_waiting(connection: AsyncConnection, lease: Lease) -> None:
    """Give a new lease its place at the end of the queue of each of its pools."""
    number = await _insert(connection, lease)
    await queue.enter(connection, replace(lease, queue_number=number))


async def insert_ended(connection: AsyncConnection, lease: Lease) -> None:
    """Record a lease that is over before it began, so that it cannot begin later."""
    await _insert(connection, lease)


async def date_end(
    connection: AsyncConnection, lease_id: LeaseId, now: datetime
) -> None:
    """Move the end of a lease that was over before it began."""
    await connection.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.state == "cancelled")
        .values(ended_at=now)
    )


INSERT_LEASES = insert(leases)
_INSERT_ONE = INSERT_LEASES.returning(leases.c.number)


async def _insert(connection: AsyncConnection, lease: Lease) -> int:
    answer = await connection.execute(_INSERT_ONE, row_of(lease))
    return cast("int", answer.scalar_one())


def row_of(lease: Lease) -> Row:
    return {
        "id": lease.id,
        "state": lease.state,
        "wants": [stored_want(want) for want in lease.wants],
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
        "token_id": lease.token_id,
        "project_id": lease.project_id,
    }


async def extend(
    connection: AsyncConnection,
    lease_ids: Collection[LeaseId],
    *,
    now: datetime,
    expires_at: datetime | None,
) -> int:
    """Move the expiry of held leases; how many were held still, not lapsed nor kept."""
    changed = await connection.execute(
        update(leases)
        .where(
            is_one_of(connection, leases.c.id, lease_ids),
            leases.c.state == "held",
            leases.c.kept_at.is_(None),
            or_(leases.c.expires_at.is_(None), leases.c.expires_at > now),
        )
        .values(expires_at=expires_at)
    )
    return changed.rowcount


async def keep(
    connection: AsyncConnection,
    lease_id: LeaseId,
    *,
    now: datetime,
    expires_at: datetime,
    outcome: Outcome,
) -> None:
    """Let a held lease, which the caller has locked, go on until then and no longer."""
    changed = await connection.execute(
        update(leases)
        .where(
            leases.c.id == lease_id,
            leases.c.state == "held",
            leases.c.kept_at.is_(None),
        )
        # Whoever keeps it knows of its grant, which is not to be taken back.
        .values(kept_at=now, expires_at=expires_at, outcome=outcome, poll_by=None)
    )
    expect(changed.rowcount, 1, "a lease was kept that was not locked")


async def keep_place(
    connection: AsyncConnection, lease_id: LeaseId, poll_by: datetime
) -> None:
    """Note that somebody asks about a waiter still."""
    await connection.execute(
        update(leases)
        .where(leases.c.id == lease_id, leases.c.state == "waiting")
        .values(poll_by=poll_by)
    )


@built_once
def _end(connection: AsyncConnection) -> Update:
    return (
        update(leases)
        .where(
            is_among(connection, leases.c.id, "lease_ids"),
            leases.c.state == bindparam("before"),
        )
        .values(
            state=bindparam("to"),
            ended_at=bindparam("at"),
            outcome=func.coalesce(
                bindparam("with_outcome", type_=leases.c.outcome.type),
                leases.c.outcome,  # of one that was kept
            ),
            end_reason=bindparam("reason"),
            poll_by=None,
            knot=bindparam("of_knot"),
        )
    )


async def end(
    connection: AsyncConnection,
    ended: Sequence[Lease],
    state: EndedState,
    *,
    now: datetime,
    outcome: Outcome | None = None,
    reason: str | None = None,
    knot: Sequence[KnotMember] | None = None,
) -> None:
    """End leases of one state, which the caller has locked.

    Those that are released have ended when their last tests did, if they say so.
    """
    before = ended[0].state
    by_time: defaultdict[datetime, list[LeaseId]] = defaultdict(list)
    for lease in ended:
        told = lease.ended_at if state == "released" else None
        by_time[told or now].append(lease.id)
    for at, names in by_time.items():
        changed = await connection.execute(
            _end(connection),
            {
                "lease_ids": names,
                "before": before,
                "to": state,
                "at": at,
                "with_outcome": outcome,
                "reason": reason,
                "of_knot": (
                    None
                    if knot is None
                    else [{**asdict(it), "lease_id": str(it.lease_id)} for it in knot]
                ),
            },
        )
        expect(changed.rowcount, len(names), "a lease was ended that was not locked")
    if before == "waiting":
        await queue.leave(connection, [it.id for it in ended])


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
    return [lease_of(row) for row in rows]


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


async def no_longer_waiting(
    connection: AsyncConnection, lease_ids: Collection[UUID]
) -> set[LeaseId]:
    """Which of the named leases have been granted or have ended."""
    answer = await connection.execute(
        select(leases.c.id).where(
            leases.c.id.in_(lease_ids),
            or_(
                leases.c.state != "waiting",
                leases.c.id.not_in(select(queue_entries.c.lease_id)),
            ),
        )
    )
    return {LeaseId(row.id) for row in answer}


async def find(
    connection: AsyncConnection,
    *,
    states: Sequence[LeaseState] | None = None,
    run_id: str | None = None,
    worker_id: str | None = None,
    user_id: UserId | None = None,
    project_id: UUID | None = None,
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
    if project_id is not None:
        query = query.where(leases.c.project_id == project_id)
    if before is not None:
        query = query.where(leases.c.number < before)
    return [lease_of(row) for row in await connection.execute(query)]


async def live_of_holder(
    connection: AsyncConnection,
    run_id: str,
    worker_id: str | None,
    may_end: Callable[[Lease], bool],
) -> tuple[list[Lease], set[LeaseId]]:
    """The waiting and held leases of a run or of one of its workers, locked.

    Without those that are kept, which are no longer its own, and those of others that
    use the same names, as `may_end` tells. Those that another transaction has locked
    are only named: nobody waits for them.
    """
    query = (
        select(leases)
        .where(
            leases.c.run_id == run_id,
            leases.c.state.in_(["waiting", "held"]),
            leases.c.kept_at.is_(None),
        )
        .order_by(leases.c.number)
    )
    if worker_id is not None:
        query = query.where(leases.c.worker_id == worker_id)
    found = [lease_of(row) for row in await connection.execute(query)]
    named = {lease.id for lease in found if may_end(lease)}
    if not named:
        return [], set()
    query = query.where(is_one_of(connection, leases.c.id, named))
    rows = await connection.execute(for_update(connection, query, skip_locked=True))
    locked = [lease_of(row) for row in rows]
    return locked, named - {lease.id for lease in locked}


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
    # Another replica forgets as well: what it has locked is left to it.
    old = for_update(connection, old, skip_locked=True)
    gone = await connection.execute(delete(leases).where(leases.c.number.in_(old)))
    return gone.rowcount


def expect(found: int, expected: int, otherwise: str) -> None:
    # The queue lock excludes this; should it ever happen, the transaction is undone.
    if found != expected:
        raise AssertionError(otherwise)
