"""Who holds which users, now and before."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Fence, Holder, LeaseId, TokenId, UserId
from botfarm_server.store.lease_files import present_test, told_of
from botfarm_server.store.tables import grants, leases, users


@dataclass(frozen=True, slots=True)
class LeaseUser:
    """A user of a lease, held still or once."""

    lease_id: LeaseId
    id: UserId
    login: str
    env: str
    domain: str
    fence: Fence


@dataclass(frozen=True, slots=True)
class HoldingRow:
    """A held user, its lease's holder and times."""

    user_id: UserId
    login: str
    project_id: UUID | None
    """The user's, now."""
    lease_id: LeaseId
    holder: Holder
    """Unknown where the user has been moved since to a project that is not the lease's:
    there nobody is to learn of it."""
    granted_at: datetime
    expires_at: datetime | None
    kept_at: datetime | None


def _holdings() -> Select[Any]:
    return select(
        users.c.id.label("user_id"),
        users.c.login,
        users.c.project_id,
        leases.c.id.label("lease_id"),
        leases.c.run_id,
        leases.c.worker_id,
        leases.c.test_id,
        leases.c.host,
        leases.c.job_url,
        leases.c.project_id.label("lease_project_id"),
        leases.c.granted_at,
        leases.c.expires_at,
        leases.c.kept_at,
    ).join_from(users, leases, users.c.lease_id == leases.c.id)


def _holding(connection: AsyncConnection, row: Any) -> HoldingRow:
    is_told = row.lease_project_id in {None, row.project_id}
    told = told_of(connection, LeaseId(row.lease_id))
    test_id = present_test(told, row.test_id)
    holder = Holder(row.run_id, row.worker_id, test_id, row.host, row.job_url)
    return HoldingRow(
        user_id=UserId(row.user_id),
        login=row.login,
        project_id=row.project_id,
        lease_id=LeaseId(row.lease_id),
        holder=holder if is_told else Holder(),
        granted_at=row.granted_at,
        expires_at=row.expires_at,
        kept_at=row.kept_at,
    )


async def holdings_where(
    connection: AsyncConnection, condition: ColumnElement[bool], *, limit: int
) -> list[HoldingRow]:
    """Held users that meet a condition on `users`, longest held first."""
    rows = await connection.execute(
        _holdings().where(condition).order_by(leases.c.granted_at).limit(limit)
    )
    return [_holding(connection, row) for row in rows]


async def holdings_of(
    connection: AsyncConnection, user_ids: Iterable[UserId]
) -> dict[UserId, HoldingRow]:
    """Who holds the named users now; a user that nobody holds is left out."""
    rows = await connection.execute(_holdings().where(users.c.id.in_(list(user_ids))))
    found = [_holding(connection, row) for row in rows]
    return {holding.user_id: holding for holding in found}


async def project_of(connection: AsyncConnection, user_id: UserId) -> UUID | None:
    """The project of a user; `None` as well where there is no such user."""
    query = select(users.c.project_id).where(users.c.id == user_id)
    found: UUID | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def token_that_holds(
    connection: AsyncConnection, user_id: UserId
) -> TokenId | None:
    """The token with which a user is held, if it is held with a stored one."""
    query = (
        select(leases.c.token_id)
        .join_from(users, leases, users.c.lease_id == leases.c.id)
        .where(users.c.id == user_id)
    )
    found: TokenId | None = (await connection.execute(query)).scalar_one_or_none()
    return found


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
