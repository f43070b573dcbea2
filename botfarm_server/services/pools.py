"""What pools there are, and whether leases could ever be granted from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import BotfarmError
from botfarm_server.domain.models import Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services.possibility import (
    Existing,
    Sizes,
    outside_of,
    why_impossible,
)
from botfarm_server.services.sharing import OneByOne
from botfarm_server.store import users
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
class _Look:
    """What one check has found out."""

    connection: Connection
    existing: Existing
    project_id: UUID | None
    sizes: Sizes = field(default_factory=dict)


async def _never() -> bool:
    return False


@dataclass
class PoolService:
    """Reads alone: nothing is granted, and nobody gets a place in the queue."""

    database: Database
    vocabulary: Vocabulary
    _turns: OneByOne = field(default_factory=OneByOne)

    async def sizes(self, project_id: UUID | None = None) -> list[PoolSize]:
        """The pools that have users in rotation, by env and domain."""
        async with self.database.read() as connection:
            found = await users.pool_sizes(connection, project_id)
        sizes = [PoolSize(pool.env, pool.domain, found[pool]) for pool in found]
        return sorted(sizes, key=lambda it: (it.env, it.domain))

    async def check(
        self,
        leases: Sequence[Sequence[Want]],
        by: Caller = EVERYTHING,
        has_left: Callable[[], Awaitable[bool]] = _never,
    ) -> list[Prospect]:
        """The prospects of leases, each given as the wants that it would have.

        Those that are not known yet when the caller `has_left` are not found out.
        """
        prospects: list[Prospect] = []
        async with self._turns.turn_of(by):
            if await has_left():
                return prospects
            async with self.database.read() as connection:
                look = _Look(connection, Existing(connection, leases), by.project_id)
                for wants in leases:
                    if await has_left():
                        break
                    prospects.append(await self._prospect(look, wants))
        return prospects

    async def _prospect(self, look: _Look, wants: Sequence[Want]) -> Prospect:
        outside = outside_of(look.project_id, wants)
        matching = [
            0 if want in outside else await look.existing.number(want) for want in wants
        ]
        try:
            self.vocabulary.check_wants(wants)
        except BotfarmError as error:
            return Prospect(matching, error)
        refusal = await why_impossible(
            look.connection, wants, look.project_id, look.sizes, look.existing
        )
        return Prospect(matching, refusal)
