"""How many users, leases and waiters there are, at one instant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args
from uuid import UUID

from botfarm_server.domain.models import Pool, UserState

LiveState = Literal["waiting", "held", "kept"]
"""What a lease does that has not ended; a kept one is held for a person to look at."""


@dataclass(frozen=True, slots=True)
class CountedUsers:
    project_id: UUID | None
    pool: Pool
    state: UserState
    number: int


@dataclass(frozen=True, slots=True)
class CountedLeases:
    project_id: UUID | None
    """The one that all their wants name, if they do."""
    state: LiveState
    number: int


@dataclass(frozen=True, slots=True)
class CountedWaiters:
    """Of one pool; a waiter for users of several pools counts in each."""

    project_id: UUID | None
    pool: Pool
    number: int
    oldest: float
    """Seconds that the oldest of them has waited."""


@dataclass(frozen=True, slots=True)
class PoolCount:
    pool: Pool
    users: Mapping[UserState, int]
    """For each state there is."""
    waiters: int
    oldest: float
    """Seconds that the oldest of them has waited; 0 without any."""


@dataclass(frozen=True, slots=True)
class Census:
    """Counted by project, so that one count does for callers of any."""

    users: Sequence[CountedUsers] = ()
    leases: Sequence[CountedLeases] = ()
    waiters: Sequence[CountedWaiters] = ()

    def known_to(self, project_id: UUID | None) -> Census:
        """What exists to callers of a project: its own alone; to those of none, all."""
        if project_id is None:
            return self
        return Census(
            [it for it in self.users if it.project_id == project_id],
            [it for it in self.leases if it.project_id == project_id],
            [it for it in self.waiters if it.project_id == project_id],
        )

    def by_pool(self) -> list[PoolCount]:
        """The pools that have users or waiters, by env and domain."""
        users: Counter[tuple[Pool, UserState]] = Counter()
        for them in self.users:
            users[them.pool, them.state] += them.number
        waiters: Counter[Pool] = Counter()
        oldest: dict[Pool, float] = {}
        for waiting in self.waiters:
            pool = waiting.pool
            waiters[pool] += waiting.number
            oldest[pool] = max(oldest.get(pool, 0.0), waiting.oldest)
        pools = {pool for pool, _ in users} | waiters.keys()
        return [
            PoolCount(
                pool,
                {state: users[pool, state] for state in get_args(UserState)},
                waiters[pool],
                oldest.get(pool, 0.0),
            )
            for pool in sorted(pools, key=lambda it: (it.env, it.domain))
        ]
