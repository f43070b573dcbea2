"""Whether the users that there are could ever meet what is asked for."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from uuid import UUID

from botfarm_server.domain.errors import (
    BotfarmError,
    NoSuchPoolError,
    PoolTooSmallError,
)
from botfarm_server.domain.matching import assign, matches
from botfarm_server.domain.models import (
    Candidate,
    LeaseId,
    Pool,
    Quarantined,
    User,
    UserId,
    Want,
)
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


class Existing:
    """The users that there are, as a transaction that changes none of them sees them.

    It asks once for what any number of the leases want alike.
    """

    def __init__(
        self, connection: Connection, leases: Iterable[Sequence[Want]] = ()
    ) -> None:
        self._connection = connection
        self._most: dict[Hashable, int] = {}
        """For how many users a lease asks that has the want, at most."""
        self._found: dict[Hashable, Sequence[Candidate]] = {}
        self._numbers: dict[Hashable, int] = {}
        self._quarantined: dict[Hashable, Quarantined] = {}
        for wants in leases:
            asked = users_of(wants)
            for want in wants:
                known = self._most.get(want.criteria, 0)
                self._most[want.criteria] = max(known, asked)

    async def for_any(self, wants: Sequence[Want]) -> list[Candidate]:
        """Users in rotation that could meet the wants of a lease: enough of them."""
        found: dict[UserId, Candidate] = {}
        asked = users_of(wants)
        await self._look_for(wants)
        for want in wants:
            meeting = self._found[want.criteria]
            found |= {user.id: user for user in meeting[:asked]}
        return list(found.values())

    async def has_any(self, want: Want) -> bool:
        """Whether any user in rotation could meet the want."""
        await self._look_for([want])
        return bool(self._found[want.criteria])

    async def number(self, want: Want) -> int:
        """How many users in rotation could meet the want."""
        if want.criteria not in self._numbers:
            await self._look_for([want])
            meeting = self._found[want.criteria]
            are_all = len(meeting) < self._most[want.criteria]
            self._numbers[want.criteria] = (
                len(meeting)
                if are_all
                else await candidates.count_in_rotation(self._connection, want)
            )
        return self._numbers[want.criteria]

    async def quarantined(self, wants: Sequence[Want]) -> Quarantined:
        """Those in quarantine that meet any of the wants."""
        key = frozenset(want.criteria for want in wants)
        if key not in self._quarantined:
            self._quarantined[key] = await candidates.quarantined_for(
                self._connection, wants, limit=FIRST_QUARANTINED
            )
        return self._quarantined[key]

    async def _look_for(self, wants: Sequence[Want]) -> None:
        unknown = [want for want in wants if want.criteria not in self._found]
        if not unknown:
            return
        found = await candidates.in_rotation_for(
            self._connection,
            unknown,
            limit=max(self._most[want.criteria] for want in unknown),
        )
        for want in unknown:
            self._found[want.criteria] = [it for it in found if matches(want, it)]


async def why_impossible(
    connection: Connection,
    wants: Sequence[Want],
    project_id: UUID | None,
    sizes: Sizes | None = None,
    existing: Existing | None = None,
) -> BotfarmError | None:
    """Why no users in rotation could ever meet the wants, if so it is.

    To a caller of a project there are no users but that project's. `sizes` keeps what
    takes longest to find out, for the next question of the same transaction, and so
    do the `existing` users, looked for with these wants among those of other leases.
    """
    sizes = {} if sizes is None else sizes
    existing = existing or Existing(connection, [wants])
    outside = outside_of(project_id, wants)
    asked = users_of(wants)
    assignment = assign(wants, await existing.for_any(wants))
    if assignment.complete and not outside:
        return None
    unmatched = [
        want for want in wants if want in outside or not await existing.has_any(want)
    ]
    if unmatched:
        if project_id not in sizes:
            sizes[project_id] = await users.pool_sizes(connection, project_id)
        inside = [want for want in unmatched if want not in outside]
        return NoSuchPoolError(
            unmatched,
            _nearest(unmatched[0], sizes[project_id]),
            await existing.quarantined(inside),
        )
    return PoolTooSmallError(
        wants,
        asked,
        len(assignment.taken),
        await existing.quarantined(wants),
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
    found = await Existing(connection, [wants]).for_any(wants)
    return assign(wants, found).complete


def users_of(wants: Iterable[Want]) -> int:
    """For how many users they ask."""
    return sum(want.count for want in wants)


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
