"""Asking for leases: at once where nobody is before, in the queue otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseMismatchError,
    NoSuchPoolError,
    PoolTooSmallError,
    ShuttingDownError,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    first_expiry,
    has_lapsed,
    is_ended,
)
from botfarm_server.domain.matching import assign
from botfarm_server.domain.models import Holder, Lease, LeaseId, Pool, Want
from botfarm_server.domain.queueing import Waiter, plan_grants
from botfarm_server.services.answers import (
    Held,
    Waiting,
    log_held,
    log_waiting,
    reread,
    tell,
)
from botfarm_server.services.ending import (
    Ending,
    end_lapsed,
    end_lease,
    hand_on_from,
)
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.store import leases, queue, users
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

NEAREST_POOLS = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that asks for a lease."""

    lease_id: LeaseId
    wants: Sequence[Want]
    ttl: float | None
    wait: float
    holder: Holder


@dataclass
class _Work:
    """What a transaction did beside answering, to be told once it is committed."""

    granted: list[LeaseId] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    refusal: BotfarmError | None = None
    joined: bool = False
    poll_by: datetime | None = None
    """What this call noted in the waiter, and the next call will change."""


@dataclass
class AskService:
    """The use case of asking."""

    database: Database
    room: WaitingRoom
    sealer: Sealer
    times: LeaseTimes

    async def ask(
        self, asked: Asked, gone: Callable[[], Awaitable[object]] | None = None
    ) -> Held | Waiting:
        """Grant the wants all at once, or wait up to `asked.wait` seconds for them.

        Asking again with the same id gives the same lease, or keeps the same place.
        `gone` completes when the caller has left: it is granted nothing then until it
        asks again, and its place is kept for the time of a re-poll. No database
        connection is held while waiting.

        Raises:
            NoSuchPoolError, PoolTooSmallError: waiting could not end.
            LeaseMismatchError: the id was used before, with other wants.
            LeaseEndedError: the lease is over.
            ShuttingDownError, TooManyWaitingError: ask again.

        """
        if self.room.is_closed():
            raise ShuttingDownError
        work = _Work()
        if asked.wait <= 0:
            return await self._ask_now(asked, work) or await self._look(asked.lease_id)
        with self.room.enter(asked.lease_id) as woken:
            held = await self._ask_now(asked, work)
            if held is not None:
                return held
            with self.room.stay():
                left = await _first_of(woken.wait, gone, within=asked.wait)
            if left:
                await self._leave(asked.lease_id, work)
        answer = await self._look(asked.lease_id)
        if isinstance(answer, Waiting) and self.room.is_closed():
            raise ShuttingDownError
        return answer

    async def _ask_now(self, asked: Asked, work: _Work) -> Held | None:
        """The lease if it is held, `None` if it waits."""
        answer: Held | Waiting | BotfarmError | None = None
        async with self.database.queue() as (connection, now):
            lease = await self._settle(connection, asked, now, work)
            if lease.state != "waiting":
                answer = await tell(connection, lease, now, self.sealer)
        self.room.wake([*(it.lease.id for it in work.endings), *work.granted])
        for ending in work.endings:
            ending.log()
        if work.refusal is not None:
            raise work.refusal
        if answer is None:
            if work.joined:
                log_waiting(lease)
            return None
        return _held(answer)

    async def _settle(
        self, connection: Connection, asked: Asked, now: datetime, work: _Work
    ) -> Lease:
        """The lease as this call leaves it: held, waiting or ended."""
        lease = await leases.lock(connection, asked.lease_id)
        if lease is None:
            return await self._join(connection, asked, now, work)
        if not is_ended(lease.state) and list(lease.wants) != list(asked.wants):
            raise LeaseMismatchError(asked.lease_id)
        if has_lapsed(lease, now):
            return await self._end_late(connection, lease, now, work)
        if lease.state == "waiting":
            return await self._keep_waiting(connection, lease, asked.wait, now, work)
        if lease.state == "held" and lease.poll_by is not None:
            # The caller learns of the grant here, should the first call have left.
            await leases.claim(connection, lease.id)
        return lease

    async def _join(
        self, connection: Connection, asked: Asked, now: datetime, work: _Work
    ) -> Lease:
        """Take a place in the queue, or the users at once where nobody is before."""
        new = Lease(
            id=asked.lease_id,
            state="waiting",
            wants=asked.wants,
            holder=asked.holder,
            ttl=asked.ttl,
            created_at=now,
            poll_by=self._poll_by(now, asked.wait),
        )
        work.poll_by = new.poll_by
        pools = {want.pool for want in asked.wants}
        if not await queue.waiters(connection, pools, after=0, limit=1):
            held = await self._grant_at_once(connection, new, now)
            if held is not None:
                return held
        await _refuse_impossible(connection, asked.wants)
        await leases.insert_waiting(connection, new)
        work.joined = True
        work.granted = await hand_on(connection, pools, now=now, times=self.times)
        return await reread(connection, new.id) if new.id in work.granted else new

    async def _grant_at_once(
        self, connection: Connection, new: Lease, now: datetime
    ) -> Lease | None:
        count = sum(want.count for want in new.wants)
        free = await users.free_for(connection, new.wants, now=now, limit=count)
        waiter = Waiter(new.id, new.wants, now)
        plan = plan_grants([waiter], free, now=now, patience=self.times.patience)
        if not plan.grants:
            return None
        held = replace(
            new,
            state="held",
            poll_by=None,
            granted_at=now,
            expires_at=first_expiry(now, new.ttl, self.times),
        )
        return await leases.insert_held(connection, held, plan.grants[0])

    async def _keep_waiting(
        self,
        connection: Connection,
        lease: Lease,
        wait: float,
        now: datetime,
        work: _Work,
    ) -> Lease:
        """Move the time until which the place is kept; end what cannot be met."""
        try:
            await _refuse_impossible(connection, lease.wants)
        except (NoSuchPoolError, PoolTooSmallError) as refusal:
            work.refusal = refusal
            ending = await end_lease(
                connection,
                lease,
                "cancelled",
                now=now,
                times=self.times,
                reason=refusal.code,
            )
            await self._hand_on_from(connection, ending, now, work)
        else:
            work.poll_by = self._poll_by(now, wait)
            await leases.keep_place(connection, lease.id, work.poll_by)
            if not await queue.has(connection, lease.id):
                # Its last call had left.
                await queue.enter(connection, lease)
                work.granted = await hand_on(
                    connection,
                    {want.pool for want in lease.wants},
                    now=now,
                    times=self.times,
                )
        return await reread(connection, lease.id)

    async def _end_late(
        self, connection: Connection, lease: Lease, now: datetime, work: _Work
    ) -> Lease:
        """End a lease that the loop has not come to yet."""
        ending = await end_lapsed(connection, lease, now=now, times=self.times)
        await self._hand_on_from(connection, ending, now, work)
        return await reread(connection, lease.id)

    async def _hand_on_from(
        self, connection: Connection, ending: Ending, now: datetime, work: _Work
    ) -> None:
        work.endings.append(ending)
        work.granted = await hand_on_from(
            connection, [ending], now=now, times=self.times
        )

    async def _look(self, lease_id: LeaseId) -> Held | Waiting:
        async with self.database.read() as connection:
            now = await read_clock(connection)
            lease = await reread(connection, lease_id)
            answer = await tell(connection, lease, now, self.sealer)
        return answer if isinstance(answer, Waiting) else _held(answer)

    async def _leave(self, lease_id: LeaseId, work: _Work) -> None:
        """Take a waiter whose caller is gone out of the queue; its number stays.

        A grant that was made meanwhile is taken back if nobody can have seen it: this
        call has made the lease, and no other has asked about it.
        """
        async with self.database.queue() as (connection, now):
            lease = await leases.lock(connection, lease_id)
            if lease is None or lease.poll_by is None or lease.poll_by != work.poll_by:
                return  # somebody has asked again
            poll_by = self._poll_by(now, 0.0)
            if lease.state == "waiting":
                await leases.keep_place(connection, lease_id, poll_by)
                await queue.leave(connection, [lease_id])
            elif lease.state == "held" and work.joined:
                await leases.take_back(connection, lease, poll_by)
            else:
                return
            pools = {want.pool for want in lease.wants}
            granted = await hand_on(connection, pools, now=now, times=self.times)
        self.room.wake(granted)

    def _poll_by(self, now: datetime, wait: float) -> datetime:
        return now + timedelta(seconds=wait + self.times.poll_grace)


async def _refuse_impossible(connection: Connection, wants: Sequence[Want]) -> None:
    """Refuse wants that no users in rotation could ever meet.

    Raises:
        NoSuchPoolError: a want has no user at all.
        PoolTooSmallError: more are asked for at once than there are.

    """
    asked = sum(want.count for want in wants)
    existing = await users.in_rotation_for(connection, wants, limit=asked)
    assignment = assign(wants, existing)
    if assignment.complete:
        return
    unmatched = [
        want
        for want in wants
        if not await users.in_rotation_for(connection, [want], limit=1)
    ]
    if unmatched:
        sizes = await users.pool_sizes(connection)
        raise NoSuchPoolError(unmatched, _nearest(unmatched[0], sizes))
    raise PoolTooSmallError(wants, asked, len(assignment.taken))


def _nearest(want: Want, sizes: dict[Pool, int]) -> list[dict[str, object]]:
    """The pools that share most with what was asked for, larger ones first."""

    def distance(pool: Pool) -> tuple[bool, bool, int]:
        return pool.env != want.env, pool.domain != want.domain, -sizes[pool]

    return [
        {"env": pool.env, "domain": pool.domain, "users": sizes[pool]}
        for pool in sorted(sizes, key=distance)[:NEAREST_POOLS]
    ]


async def _first_of(
    woken: Callable[[], Awaitable[object]],
    gone: Callable[[], Awaitable[object]] | None,
    *,
    within: float,
) -> bool:
    """Wait for a wake-up, for the caller to leave or for time to pass; did it leave?"""
    waits = {asyncio.ensure_future(woken())}
    leaving = asyncio.ensure_future(gone()) if gone is not None else None
    if leaving is not None:
        waits.add(leaving)
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        return leaving is not None and leaving.done()
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _held(answer: Held | Waiting | BotfarmError) -> Held:
    if isinstance(answer, BotfarmError):
        raise answer
    if isinstance(answer, Waiting):
        raise TypeError("a lease that waits is not held")
    log_held(answer.lease, [user.login for user in answer.users])
    return answer
