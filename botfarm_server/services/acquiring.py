"""The first API's acquire and release: leases of one user, by its own id."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    has_lapsed,
    is_ended,
    renewed_expiry,
)
from botfarm_server.domain.models import (
    Candidate,
    Fence,
    Holder,
    Lease,
    LeaseId,
    UserId,
    Want,
)
from botfarm_server.domain.queueing import Grant
from botfarm_server.services.answers import log_held
from botfarm_server.services.ending import (
    Cause,
    end_lapsed,
    end_leases,
    hand_on_from,
    record_endings,
)
from botfarm_server.services.finding import locked, user_of
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.locking import lease_behind_queue
from botfarm_server.services.news import News
from botfarm_server.services.reclaiming import user_unless_idle
from botfarm_server.store import candidates, grants
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Database


@dataclass(frozen=True, slots=True)
class Acquired:
    """What the first API's acquire gives."""

    user_id: UserId
    lease_id: LeaseId
    fence: Fence
    granted_at: datetime
    expires_in: float | None


@dataclass
class AcquireService:
    database: Database
    news: News
    times: LeaseTimes

    async def acquire(
        self,
        user_id: UserId,
        *,
        ttl: float | None,
        holder: Holder,
        by: Caller = EVERYTHING,
    ) -> Acquired:
        """Lease one user, now or not at all.

        It stands at the end of the queue like any other want: a user that is kept for
        an earlier waiter is not given away. Without a TTL the lease never expires.

        Raises:
            UserNotFoundError, UserLockedError

        """
        lease_id = LeaseId(uuid.uuid4())
        async with self.database.queue() as (connection, now):
            user = await user_unless_idle(
                connection, user_id, now=now, times=self.times, news=self.news, by=by
            )
            want = Want(user.env, user.domain, user.project_id, user_id=user_id)
            kept: dict[LeaseId, Sequence[Candidate]] = {}
            granted = await hand_on(
                connection, {want.pool}, now=now, times=self.times, kept=kept
            )
            is_kept = any(user_id == it.id for its in kept.values() for it in its)
            if is_kept or not await candidates.free_for(
                connection, [want], now=now, limit=1
            ):
                raise await locked(connection, user_id)
            lease = Lease(
                id=lease_id,
                state="held",
                wants=[want],
                holder=holder,
                ttl=ttl,
                created_at=now,
                granted_at=now,
                expires_at=renewed_expiry(now, ttl),
                token_id=by.token_id,
            )
            ((held, _),) = await grants.insert_held(
                connection, [(lease, Grant(lease_id, {user_id: 0}))]
            )
        self.news.tell(granted=granted, at_once=1)
        log_held(held, [user.login])
        return Acquired(
            user_id=user_id,
            lease_id=lease_id,
            fence=held.fence or Fence(0),
            granted_at=now,
            expires_in=ttl,
        )

    async def release(self, user_id: UserId, by: Caller = EVERYTHING) -> bool:
        """End the lease that the first API took of a user; was there one still?

        Raises:
            UserNotFoundError
            UserLockedError: the user belongs to a lease that its holder gives back,
                or that is not the caller's.

        """
        async with self.database.read() as connection:
            user = await user_of(connection, user_id, await read_clock(connection))
        if user.lease_id is None:
            return False
        behind_queue = lease_behind_queue(self.database, user.lease_id)
        async with behind_queue as (connection, lease, now):
            if lease is None or is_ended(lease.state):
                return False
            if has_lapsed(lease, now):
                endings = await end_lapsed(
                    connection, [lease], now=now, times=self.times
                )
            elif lease.wants[0].user_id is None or not by.owns(lease):
                raise await locked(connection, user_id)
            else:
                endings = await end_leases(
                    connection, [lease], Cause("released"), now=now, times=self.times
                )
                await record_endings(connection, endings, by, now)
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self.news.tell(endings, granted)
        return any(ending.state == "released" for ending in endings)
