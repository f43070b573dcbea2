"""Who acts as one, and waits while it has users: the stuff of knots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.deadlock import Party
from botfarm_server.domain.models import Candidate, Lease, LeaseId
from botfarm_server.store.candidates import CANDIDATE
from botfarm_server.store.lease_files import present_test, told_of
from botfarm_server.store.leases import lease_of
from botfarm_server.store.tables import leases, queue_entries, users


@dataclass(frozen=True, slots=True)
class Possession:
    """A user in rotation that a party has."""

    user: Candidate
    login: str
    test_id: str | None = None
    """Who has it at present; `None` for one that is kept for a waiter."""


_held = leases.alias()
_WAITS_WITH_USERS = and_(
    leases.c.state == "waiting",
    leases.c.id.in_(select(queue_entries.c.lease_id)),
    # A kept lease goes on whether its party waits or not.
    select(_held.c.number)
    .where(
        _held.c.state == "held",
        _held.c.kept_at.is_(None),
        _held.c.run_id == leases.c.run_id,
        _held.c.worker_id == leases.c.worker_id,
        _held.c.token_id.is_not_distinct_from(leases.c.token_id),
    )
    .exists(),
)
_WAITING_WITH_USERS = select(leases).where(_WAITS_WITH_USERS).order_by(leases.c.number)
_ANY_WAITING_WITH_USERS = select(leases.c.id).where(_WAITS_WITH_USERS).limit(1)


async def waiting_with_users(connection: AsyncConnection) -> list[Lease]:
    """The leases in the queue whose parties hold users under other leases."""
    return [lease_of(row) for row in await connection.execute(_WAITING_WITH_USERS)]


async def any_waits_with_users(connection: AsyncConnection) -> bool:
    """Whether there is such a lease."""
    return (await connection.execute(_ANY_WAITING_WITH_USERS)).first() is not None


async def waiters(
    connection: AsyncConnection, lease_ids: Collection[LeaseId]
) -> list[Lease]:
    """Those of the named leases that wait."""
    rows = await connection.execute(
        select(leases).where(leases.c.id.in_(lease_ids), leases.c.state == "waiting")
    )
    return [lease_of(row) for row in rows]


async def held_by(
    connection: AsyncConnection, parties: Collection[Party]
) -> Mapping[Party, Sequence[Possession]]:
    """The users in rotation that each of the named runs' workers holds and uses."""
    # Those of other tokens that have the same names are few, and left out below.
    named = {party[1:] for party in parties if isinstance(party, tuple)}
    rows = await connection.execute(
        select(
            *CANDIDATE,
            users.c.login,
            users.c.lease_id,
            *(leases.c.token_id, leases.c.run_id, leases.c.worker_id),
            leases.c.test_id,
        )
        .join_from(users, leases, users.c.lease_id == leases.c.id)
        .where(
            and_(
                tuple_(leases.c.run_id, leases.c.worker_id).in_(named),
                leases.c.state == "held",
                leases.c.kept_at.is_(None),
                users.c.quarantined_at.is_(None),
            )
        )
        .order_by(users.c.login)
    )
    found: defaultdict[Party, list[Possession]] = defaultdict(list)
    for row in rows:
        party = row.token_id, row.run_id, row.worker_id
        if party not in parties:
            continue
        user = Candidate(*row[: len(CANDIDATE)])
        test_id = present_test(told_of(connection, row.lease_id), row.test_id)
        possession = Possession(user, row.login, test_id)
        found[party].append(possession)
    return found


async def logins(
    connection: AsyncConnection, of: Collection[Candidate]
) -> Mapping[object, str]:
    """The logins of users, by their ids."""
    rows = await connection.execute(
        select(users.c.id, users.c.login).where(users.c.id.in_([it.id for it in of]))
    )
    return {row.id: row.login for row in rows}
