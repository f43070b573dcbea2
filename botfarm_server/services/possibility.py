"""Whether the users that there are could ever meet what is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from botfarm_server.domain.errors import (
    BotfarmError,
    NoSuchPoolError,
    PoolTooSmallError,
)
from botfarm_server.domain.matching import assign
from botfarm_server.domain.models import Pool, Want
from botfarm_server.store import users
from botfarm_server.store.engine import Connection

NEAREST_POOLS = 5


async def why_impossible(
    connection: Connection, wants: Sequence[Want]
) -> BotfarmError | None:
    """Why no users in rotation could ever meet the wants, if so it is."""
    asked = sum(want.count for want in wants)
    existing = await users.in_rotation_for(connection, wants, limit=asked)
    assignment = assign(wants, existing)
    if assignment.complete:
        return None
    unmatched = [
        want
        for want in wants
        if not await users.in_rotation_for(connection, [want], limit=1)
    ]
    if unmatched:
        sizes = await users.pool_sizes(connection)
        return NoSuchPoolError(unmatched, _nearest(unmatched[0], sizes))
    return PoolTooSmallError(wants, asked, len(assignment.taken))


def _nearest(want: Want, sizes: dict[Pool, int]) -> list[dict[str, object]]:
    """The pools that share most with what was asked for, larger ones first."""

    def distance(pool: Pool) -> tuple[bool, bool, int]:
        return pool.env != want.env, pool.domain != want.domain, -sizes[pool]

    return [
        {"env": pool.env, "domain": pool.domain, "users": sizes[pool]}
        for pool in sorted(sizes, key=distance)[:NEAREST_POOLS]
    ]
