"""The history of a lease that several tests had, one after the other."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Lease, LeaseId
from botfarm_server.store.lease_files import Use
from botfarm_server.store.leases import expect, insert_ended
from botfarm_server.store.tables import grants, leases


async def record_uses(
    connection: AsyncConnection, lease: Lease, uses: Sequence[Use], now: datetime
) -> Lease:
    """Record each use of a held lease but the last as a lease that was released.

    The lease itself becomes that of the last use, and the newest of them; it says when
    that use ended, if it has. SQLite alone has such leases, and there nobody else
    writes meanwhile.
    """
    *earlier, last = uses
    since = lease.granted_at or now
    for use in earlier:
        began, ended = _within(since, use.began, now), use.ended or now
        past = replace(
            _had_by(lease, use, began),
            id=LeaseId(uuid.uuid4()),
            state="released",
            ended_at=since if ended < began else _within(began, ended, now),
            outcome="passed",
        )
        if use is earlier[0]:
            past = replace(
                past, created_at=lease.created_at, granted_at=lease.granted_at
            )
        await insert_ended(connection, past)
        await connection.execute(
            insert(grants).from_select(
                ["lease_id", "user_id", "want"],
                select(literal(past.id), grants.c.user_id, grants.c.want).where(
                    grants.c.lease_id == lease.id
                ),
            )
        )
        since = past.ended_at or since
    if not earlier:
        return _ended(lease, last, now)
    told = _had_by(lease, last, _within(since, last.began, now))
    newest = select(func.max(leases.c.number) + 1).scalar_subquery()
    changed = await connection.execute(
        update(leases)
        .where(leases.c.id == lease.id, leases.c.state == "held")
        .values(
            number=newest,
            test_id=told.holder.test_id,
            created_at=told.created_at,
            granted_at=told.granted_at,
        )
    )
    expect(changed.rowcount, 1, "the uses were told of a lease that was not held")
    return _ended(told, last, now)


def _had_by(lease: Lease, use: Use, began: datetime) -> Lease:
    holder = replace(lease.holder, test_id=use.test_id)
    return replace(lease, holder=holder, created_at=began, granted_at=began)


def _ended(lease: Lease, last: Use, now: datetime) -> Lease:
    if last.ended is None:
        return lease
    began = lease.granted_at or now
    return replace(lease, ended_at=_within(began, last.ended, now))


def _within(first: datetime, told: datetime, last: datetime) -> datetime:
    """The time that a holder told, if it can be: its clock is not the database's.

    Nor is a use told as later than its lease ends in this transaction, though tests may
    have gone on since that instant was read: the next lease may begin then.
    """
    return max(first, min(told, last))
