"""Counting all that is live, in statements that do not read the history."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import case, func, literal, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.census import (
    Census,
    CountedLeases,
    CountedUsers,
    CountedWaiters,
)
from botfarm_server.domain.models import Pool
from botfarm_server.store.tables import LIVE, leases, queue_entries, users
from botfarm_server.store.users import state_at

# As an index has it, word by word: all that live may be found there, and no others.
_LIVE = text(LIVE)
_NUMBER = func.count().label("number")


async def count(connection: AsyncConnection, now: datetime) -> Census:
    """Reads each user and each live lease once: of 50,000 users, 60 ms on SQLite."""
    return Census(
        await count_users(connection, now),
        await count_leases(connection),
        await count_waiters(connection, now),
    )


async def count_users(connection: AsyncConnection, now: datetime) -> list[CountedUsers]:
    # Grouped by the state itself, the time would have to be the same parameter twice.
    each = select(
        users.c.project_id, users.c.env, users.c.domain, state_at(now)
    ).subquery()
    rows = await connection.execute(select(*each.c, _NUMBER).group_by(*each.c))
    return [
        CountedUsers(row.project_id, Pool(row.env, row.domain), row.state, row.number)
        for row in rows
    ]


async def count_leases(connection: AsyncConnection) -> list[CountedLeases]:
    state = case((leases.c.kept_at.is_not(None), literal("kept")), else_=leases.c.state)
    each = select(leases.c.project_id, state.label("state")).where(_LIVE).subquery()
    rows = await connection.execute(select(*each.c, _NUMBER).group_by(*each.c))
    return [CountedLeases(row.project_id, row.state, row.number) for row in rows]


async def count_waiters(
    connection: AsyncConnection, now: datetime
) -> list[CountedWaiters]:
    groups = (leases.c.project_id, queue_entries.c.env, queue_entries.c.domain)
    rows = await connection.execute(
        select(*groups, _NUMBER, func.min(leases.c.created_at).label("since"))
        .join_from(queue_entries, leases, leases.c.number == queue_entries.c.number)
        .where(_LIVE)
        .group_by(*groups)
    )
    return [
        CountedWaiters(
            row.project_id,
            Pool(row.env, row.domain),
            row.number,
            max(0.0, (now - row.since).total_seconds()),
        )
        for row in rows
    ]
