"""Holders that wait for each other: the youngest wait of each knot gives way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from botfarm_server.domain.deadlock import Claim, Party, find_knots, party_of
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import (
    Candidate,
    Holder,
    KnotMember,
    Lease,
    LeaseId,
)
from botfarm_server.domain.wording import describe_want
from botfarm_server.services.ending import Cause, Ending, end_leases, hand_on_from
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.possibility import users_of
from botfarm_server.services.reclaiming import reclaim
from botfarm_server.store import candidates, leases, parties, queue
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.parties import Possession

OF_ANOTHER_PROJECT = "an account of another project"
MOST_MEMBERS = 10
"""Waiters of a knot that are told, the youngest of them: each has a lease's wants."""
MOST_TOLD = 10
"""Accounts that are told of each, and wants."""
LONGEST_WANT = 500
"""Characters of a want that are told, whose labels may have 10,000."""

Possessions = Mapping[Party, Sequence[Possession]]


async def break_knots(
    database: Database, times: LeaseTimes
) -> tuple[list[Ending], dict[LeaseId, float]]:
    """End the youngest wait of every knot; the endings, and who was granted thereby.

    A farm in which nobody waits while it holds users costs one small read.
    """
    async with database.read() as connection:
        if not await parties.any_waits_with_users(connection):
            return [], {}
    async with database.queue() as (connection, now):
        # Of a holder that stands still, or has died, since somebody waits.
        endings = await reclaim(connection, now=now, times=times)
        waiting, having, kept, granted = await _entangled(connection, now, times)
        claims = [_claim(lease, kept) for lease in waiting.values()]
        others = await _users_of_nobody(connection, waiting.values(), having)
        for knot in find_knots(claims, _users(having), others):
            told_to = waiting[knot[-1].lease_id].project_id
            told = knot[-MOST_MEMBERS:]
            members = [_member(waiting[it.lease_id], having, told_to) for it in told]
            youngest = await leases.lock(connection, knot[-1].lease_id)
            if youngest is None or youngest.state != "waiting":
                raise AssertionError("a waiter changed behind the queue lock")
            cause = Cause("cancelled", reason="deadlock", knot=members)
            endings += await end_leases(
                connection, [youngest], cause, now=now, times=times
            )
        if endings:
            granted |= await hand_on_from(connection, endings, now=now, times=times)
            # Its call may wait at another replica.
            await queue.announce(connection, [it.lease.id for it in endings])
    return endings, granted


async def _entangled(
    connection: Connection, now: datetime, times: LeaseTimes
) -> tuple[
    dict[LeaseId, Lease],
    Possessions,
    Mapping[LeaseId, Sequence[Candidate]],
    dict[LeaseId, float],
]:
    """The waiters whose parties have users, and what those have.

    What is kept for a waiter is as good as held by it: nobody else gets it.
    """
    kept: dict[LeaseId, Sequence[Candidate]] = {}
    pools = await queue.pools_waited_for(connection)
    granted = await hand_on(connection, pools, now=now, times=times, kept=kept)
    found = await parties.waiting_with_users(connection)
    found += await parties.waiters(connection, kept.keys() - {it.id for it in found})
    waiting = {lease.id: lease for lease in found}
    owners = {lease.id: party_of(lease) for lease in found}
    having: defaultdict[Party, list[Possession]] = defaultdict(list)
    held = await parties.held_by(connection, set(owners.values()))
    for party, possessions in held.items():
        having[party] += possessions
    every = [user for its in kept.values() for user in its]
    logins = await parties.logins(connection, every)
    for lease_id, its in kept.items():
        having[owners[lease_id]] += [Possession(it, logins[it.id]) for it in its]
    return waiting, having, kept, granted


def _claim(lease: Lease, kept: Mapping[LeaseId, Sequence[Candidate]]) -> Claim:
    return Claim(
        lease_id=lease.id,
        number=lease.queue_number or 0,
        party=party_of(lease),
        wants=lease.wants,
        within_reach=kept.get(lease.id, ()),
    )


async def _users_of_nobody(
    connection: Connection, waiting: Collection[Lease], having: Possessions
) -> list[Candidate]:
    """Users in rotation that could meet the wants, and that none of the parties has.

    So many that enough are left without those that the parties have.
    """
    had = {it.user.id for possessions in having.values() for it in possessions}
    most = max((users_of(lease.wants) for lease in waiting), default=0)
    rotating = await candidates.in_rotation_for(
        connection,
        [want for lease in waiting for want in lease.wants],
        limit=most + len(had),
    )
    return [user for user in rotating if user.id not in had]


def _users(having: Possessions) -> dict[Party, list[Candidate]]:
    return {party: [it.user for it in its] for party, its in having.items()}


def _member(lease: Lease, having: Possessions, told_to: UUID | None) -> KnotMember:
    """A waiter of a knot, without what a caller of one project must not see.

    Who holds a user of the project is named to it, as to anybody who waits for that.
    """
    every = having.get(party_of(lease), ())
    its_projects = {lease.project_id, *(it.user.project_id for it in every)}
    has = every[:MOST_TOLD]
    holder = lease.holder if told_to in {None, *its_projects} else Holder()
    is_told = [told_to in {None, it.user.project_id} for it in has]
    return KnotMember(
        lease_id=lease.id,
        test_id=holder.test_id,
        worker_id=holder.worker_id,
        run_id=holder.run_id,
        host=holder.host,
        has=[
            it.login if told else OF_ANOTHER_PROJECT
            for it, told in zip(has, is_told, strict=True)
        ],
        waits_for=[
            describe_want(want)[:LONGEST_WANT]
            if told_to is None or want.project_id in {None, told_to}
            else OF_ANOTHER_PROJECT
            for want in lease.wants[:MOST_TOLD]
        ],
        leased_for=[
            it.test_id if told else None for it, told in zip(has, is_told, strict=True)
        ],
    )
