"""Places in pools, kept for users that are being made."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Pool, Reservation, ReservationId, TokenId
from botfarm_server.store.tables import reservations


async def add(connection: AsyncConnection, new: Reservation) -> None:
    await connection.execute(insert(reservations), asdict(new))


async def get(
    connection: AsyncConnection, reservation_id: ReservationId
) -> Reservation | None:
    query = select(reservations).where(reservations.c.id == reservation_id)
    row = (await connection.execute(query)).first()
    if row is None:
        return None
    return Reservation(*row)


async def remove(connection: AsyncConnection, reservation_id: ReservationId) -> None:
    await connection.execute(
        delete(reservations).where(reservations.c.id == reservation_id)
    )


async def remove_expired(connection: AsyncConnection, now: datetime) -> None:
    await connection.execute(
        delete(reservations).where(reservations.c.expires_at <= now)
    )


async def count(
    connection: AsyncConnection, pool: Pool, project_id: UUID | None
) -> int:
    """How many may become users of a pool, or of one project's part of it."""
    query = (
        select(func.count())
        .select_from(reservations)
        .where(reservations.c.env == pool.env, reservations.c.domain == pool.domain)
    )
    if project_id is not None:
        # A place that names no project may become a user of any.
        query = query.where(
            or_(
                reservations.c.project_id == project_id,
                reservations.c.project_id.is_(None),
            )
        )
    return int((await connection.execute(query)).scalar_one())


async def count_of(connection: AsyncConnection, token_id: TokenId | None) -> int:
    """How many a token has, or all together that have none of their own."""
    query = (
        select(func.count())
        .select_from(reservations)
        .where(reservations.c.token_id.is_not_distinct_from(token_id))
    )
    return int((await connection.execute(query)).scalar_one())
