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


async def waiting_with_users(connection: AsyncConnection) -> list[Lease]:
    """The leases in the queue whose parties hold users under other leases.

    A kept lease goes on whether its party waits or not.
    """
    held = leases.alias()
    party_holds = (
        select(held.c.number)
        .where(
            held.c.state == "held",
            held.c.kept_at.is_(None),
            held.c.run_id == leases.c.run_id,
            held.c.worker_id == leases.c.worker_id,
        )
        .exists()
    )
    in_queue = select(queue_entries.c.lease_id)
    rows = await connection.execute(
        select(leases)
        .where(leases.c.state == "waiting", leases.c.id.in_(in_queue), party_holds)
        .order_by(leases.c.number)
    )
    return [lease_of(row) for row in rows]


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
    named = [party for party in parties if isinstance(party, tuple)]
    rows = await connection.execute(
        select(
            *CANDIDATE,
            users.c.login,
            users.c.lease_id,
            *(leases.c.run_id, leases.c.worker_id, leases.c.test_id),
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
        user = Candidate(*row[: len(CANDIDATE)])
        test_id = present_test(told_of(connection, row.lease_id), row.test_id)
        possession = Possession(user, row.login, test_id)
        found[row.run_id, row.worker_id].append(possession)
    return found


async def logins(
    connection: AsyncConnection, of: Collection[Candidate]
) -> Mapping[object, str]:
    """The logins of users, by their ids."""
    rows = await connection.execute(
        select(users.c.id, users.c.login).where(users.c.id.in_([it.id for it in of]))
    )
    return {row.id: row.login for row in rows}
