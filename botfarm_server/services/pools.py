"""What pools there are, and whether leases could ever be granted from them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from botfarm_server.domain.errors import BotfarmError
from botfarm_server.domain.models import Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services.possibility import outside_of, why_impossible
from botfarm_server.store import candidates, users
from botfarm_server.store.engine import Connection, Database


@dataclass(frozen=True, slots=True)
class PoolSize:
    env: str
    domain: str
    users: int
    """In rotation, free or not."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a lease could count on if it were asked for now."""

    matching: Sequence[int]
    """How many users in rotation meet each of the wants, taken by itself."""
    refusal: BotfarmError | None
    """What the call that asks for it would be answered with at once."""


@dataclass
class PoolService:
    """Reads alone: nothing is granted, and nobody gets a place in the queue."""

    database: Database
    vocabulary: Vocabulary
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sizes(self, project_id: UUID | None = None) -> list[PoolSize]:
        """The pools that have users in rotation, by env and domain."""
        async with self.database.read() as connection:
            found = await users.pool_sizes(connection, project_id)
        sizes = [PoolSize(pool.env, pool.domain, found[pool]) for pool in found]
        return sorted(sizes, key=lambda it: (it.env, it.domain))

    async def check(
        self, leases: Sequence[Sequence[Want]], project_id: UUID | None = None
    ) -> list[Prospect]:
        """The prospects of leases, each given as the wants that it would have."""
        # One call may have a thousand wants: some such calls side by side would hold
        # all connections to the database for a minute.
        async with self._checking, self.database.read() as connection:
            return [
                await self._prospect(connection, wants, project_id) for wants in leases
            ]

    async def _prospect(
        self, connection: Connection, wants: Sequence[Want], project_id: UUID | None
    ) -> Prospect:
        outside = outside_of(project_id, wants)
        matching = [
            0
            if want in outside
            else await candidates.count_in_rotation(connection, want)
            for want in wants
        ]
        try:
            self.vocabulary.check_wants(wants)
        except BotfarmError as error:
            return Prospect(matching, error)
        return Prospect(matching, await why_impossible(connection, wants, project_id))
