"""Whether the users that there are could ever meet what is asked for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from botfarm_server.domain.errors import (
    BotfarmError,
    NoSuchPoolError,
    PoolTooSmallError,
)
from botfarm_server.domain.matching import assign, matches
from botfarm_server.domain.models import Candidate, LeaseId, Pool, User, Want
from botfarm_server.store import candidates, queue, users
from botfarm_server.store.engine import Connection
from botfarm_server.store.users import StoredUser

NEAREST_POOLS = 5
MOST_KINDS, MOST_LOOKS = 1_000, 100
"""Kinds of waiters that one change goes through, and those of them that it looks for
users for; others hear of it when they ask again."""
FIRST_QUARANTINED = 3
"""How many users in quarantine a refusal names; the others are counted."""


Sizes = dict[UUID | None, dict[Pool, int]]
"""The sizes of the pools that the callers of a project know of."""


async def why_impossible(
    connection: Connection,
    wants: Sequence[Want],
    project_id: UUID | None,
    sizes: Sizes | None = None,
) -> BotfarmError | None:
    """Why no users in rotation could ever meet the wants, if so it is.

    To a caller of a project there are no users but that project's. `sizes` keeps what
    takes longest to find out, for the next question of the same transaction.
    """
    sizes = {} if sizes is None else sizes
    outside = outside_of(project_id, wants)
    asked = sum(want.count for want in wants)
    existing = await candidates.in_rotation_for(connection, wants, limit=asked)
    assignment = assign(wants, existing)
    if assignment.complete and not outside:
        return None
    unmatched = [
        want
        for want in wants
        if want in outside
        or not await candidates.in_rotation_for(connection, [want], limit=1)
    ]
    if unmatched:
        if project_id not in sizes:
            sizes[project_id] = await users.pool_sizes(connection, project_id)
        inside = [want for want in unmatched if want not in outside]
        return NoSuchPoolError(
            unmatched,
            _nearest(unmatched[0], sizes[project_id]),
            await candidates.quarantined_for(
                connection, inside, limit=FIRST_QUARANTINED
            ),
        )
    return PoolTooSmallError(
        wants,
        asked,
        len(assignment.taken),
        await candidates.quarantined_for(connection, wants, limit=FIRST_QUARANTINED),
    )


async def announce_hopeless(
    connection: Connection, lost: Collection[Candidate]
) -> list[LeaseId]:
    """Wake the calls that can no longer be met, now that users were taken from them.

    `lost` are the users that they had before. The calls ask again, and are refused with
    the reason. Returns their leases. Who waits in another process over one SQLite file
    hears of it when it asks again by itself.
    """
    pools = {user.pool for user in lost}
    hopeless: list[LeaseId] = []
    if not pools:
        return hopeless
    looks = 0
    for kind, wants in await queue.kinds(connection, pools, limit=MOST_KINDS):
        if looks < MOST_LOOKS and any(
            matches(want, user) for want in wants for user in lost
        ):
            looks += 1
            if not await _is_possible(connection, wants):
                hopeless += await queue.of_kind(connection, pools, kind)
    await queue.announce(connection, hopeless)
    return hopeless


async def _is_possible(connection: Connection, wants: Sequence[Want]) -> bool:
    asked = sum(want.count for want in wants)
    existing = await candidates.in_rotation_for(connection, wants, limit=asked)
    return assign(wants, existing).complete


def candidate_of(user: User | StoredUser) -> Candidate:
    """A user as the rules see it."""
    return Candidate(user.id, user.env, user.domain, user.project_id, user.labels)


def outside_of(project_id: UUID | None, wants: Sequence[Want]) -> list[Want]:
    """The wants of other projects than the caller's, if it has one."""
    if project_id is None:
        return []
    return [want for want in wants if want.project_id != project_id]


def _nearest(want: Want, sizes: dict[Pool, int]) -> list[dict[str, object]]:
    """The pools that share most with what was asked for, larger ones first."""

    def distance(pool: Pool) -> tuple[bool, bool, int]:
        return pool.env != want.env, pool.domain != want.domain, -sizes[pool]

    return [
        {"env": pool.env, "domain": pool.domain, "users": sizes[pool]}
        for pool in sorted(sizes, key=distance)[:NEAREST_POOLS]
    ]
