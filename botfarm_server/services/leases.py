"""Asking for leases, renewing them and giving them back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
    NoSuchPoolError,
    PassedOnUser,
    PoolTooSmallError,
    ShuttingDownError,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    first_expiry,
    has_lapsed,
    is_ended,
    renewed_expiry,
)
from botfarm_server.domain.matching import assign
from botfarm_server.domain.models import (
    Blocker,
    EndedState,
    Fence,
    GrantedUser,
    Holder,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    Pool,
    UserId,
    Want,
)
from botfarm_server.domain.queueing import Waiter, plan_grants
from botfarm_server.services.ending import end_lapsed, end_lease
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.store import leases, users
from botfarm_server.store.dialects import lock_queue, read_clock
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.leases import HoldingRow, LeaseUser

MAXIMUM_BLOCKERS = 10
NEAREST_POOLS = 5
LIVE_STATES: Sequence[LeaseState] = ("waiting", "held")

_log = structlog.get_logger("botfarm.leases")


@dataclass(frozen=True, slots=True)
class Held:
    """A granted lease as its holder gets it."""

    lease: Lease
    users: Sequence[GrantedUser]
    expires_in: float | None
    waited: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that is not granted yet."""

    lease: Lease
    place: int
    waited: float
    ask_again_within: float
    blockers: Sequence[Blocker]


@dataclass(frozen=True, slots=True)
class Renewed:
    id: LeaseId
    expires_in: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A lease that could not be renewed, and who has its users now."""

    id: LeaseId
    state: EndedState | str
    detail: str
    ended_ago: float | None
    users: Sequence[PassedOnUser]


@dataclass(frozen=True, slots=True)
class LeaseView:
    """A lease as people and tools see it."""

    lease: Lease
    users: Sequence[LeaseUser]
    now: datetime


@dataclass
class LeaseService:
    """The use cases of leases; each runs in a transaction of its own."""

    database: Database
    room: WaitingRoom
    sealer: Sealer
    times: LeaseTimes

    async def ask(
        self,
        lease_id: LeaseId,
        wants: Sequence[Want],
        *,
        ttl: float | None,
        wait: float,
        holder: Holder,
        gone: Callable[[], Awaitable[object]] | None = None,
    ) -> Held | Waiting:
        """Grant the wants all at once, or wait up to `wait` seconds for them.

        Asking again with the same id gives the same lease, or keeps the same place.
        `gone` completes when the caller has left; the place is then kept for the time
        of a re-poll. No database connection is held while waiting.

        Raises:
            NoSuchPoolError, PoolTooSmallError: waiting could not end.
            LeaseMismatchError: the id was used before, with other wants.
            LeaseEndedError: the lease is over.
            ShuttingDownError, TooManyWaitingError: ask again.

        """
        if self.room.is_closed():
            raise ShuttingDownError
        if wait <= 0:
            return await self._ask_now(lease_id, wants, ttl, 0.0, holder)
        with self.room.enter(lease_id) as woken:
            answer = await self._ask_now(lease_id, wants, ttl, wait, holder)
            if isinstance(answer, Held):
                return answer
            left = await _first_of(woken.wait, gone, within=wait)
        if self.room.is_closed() and isinstance(answer, Waiting):
            raise ShuttingDownError
        if left:
            await self._keep_place(lease_id)
            return answer
        return await self._look(lease_id)

    async def _ask_now(
        self,
        lease_id: LeaseId,
        wants: Sequence[Want],
        ttl: float | None,
        wait: float,
        holder: Holder,
    ) -> Held | Waiting:
        refusal: BotfarmError | None = None
        granted: list[LeaseId] = []
        async with self.database.write() as connection:
            now = await lock_queue(connection)
            lease = await leases.get(connection, lease_id)
            if lease is None:
                lease, granted = await self._join(
                    connection, lease_id, wants, ttl, wait, holder, now
                )
            elif list(lease.wants) != list(wants) and not is_ended(lease.state):
                raise LeaseMismatchError(lease_id)
            elif has_lapsed(lease, now):
                lease, granted = await self._end_late(connection, lease, now)
            if lease.state == "waiting":
                lease, refusal, freed = await self._keep_waiting(
                    connection, lease, wait, now
                )
                granted += freed
            answer = await self._answer(connection, lease, now)
        self.room.wake(granted)
        if refusal is not None:
            raise refusal
        return _or_raise(answer)

    async def _join(
        self,
        connection: Connection,
        lease_id: LeaseId,
        wants: Sequence[Want],
        ttl: float | None,
        wait: float,
        holder: Holder,
        now: datetime,
    ) -> tuple[Lease, list[LeaseId]]:
        """Take a place in the queue, or the users at once where nobody is before."""
        new = Lease(
            id=lease_id,
            state="waiting",
            wants=wants,
            holder=holder,
            ttl=ttl,
            created_at=now,
            queue_number=None,
            fence=None,
            granted_at=None,
            expires_at=None,
            poll_by=self._poll_by(now, wait),
            ended_at=None,
            outcome=None,
            end_reason=None,
        )
        pools = {want.pool for want in wants}
        if not await leases.waiters(connection, pools, after=0, limit=1):
            held = await self._grant_at_once(connection, new, now)
            if held is not None:
                return held, []
        await self._refuse_impossible(connection, wants)
        await leases.insert_waiting(connection, new)
        granted = await hand_on(connection, pools, now=now, times=self.times)
        return await _reread(connection, lease_id), granted

    async def _grant_at_once(
        self, connection: Connection, new: Lease, now: datetime
    ) -> Lease | None:
        asked = sum(want.count for want in new.wants)
        free = await users.free_for(connection, new.wants, now=now, limit=asked)
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
        self, connection: Connection, lease: Lease, wait: float, now: datetime
    ) -> tuple[Lease, BotfarmError | None, list[LeaseId]]:
        """Move the time until which the place is kept; end what cannot be met."""
        try:
            await self._refuse_impossible(connection, lease.wants)
        except (NoSuchPoolError, PoolTooSmallError) as refusal:
            pools = await end_lease(
                connection,
                lease,
                "cancelled",
                now=now,
                times=self.times,
                reason=refusal.code,
            )
            granted = await hand_on(connection, pools, now=now, times=self.times)
            return lease, refusal, granted
        poll_by = self._poll_by(now, wait)
        await leases.keep_place(connection, lease.id, poll_by)
        return replace(lease, poll_by=poll_by), None, []

    async def _refuse_impossible(
        self, connection: Connection, wants: Sequence[Want]
    ) -> None:
        asked = sum(want.count for want in wants)
        existing = await users.in_rotation_for(connection, wants, limit=asked)
        assignment = assign(wants, existing)
        if assignment.complete:
            return
        met = set(assignment.taken.values())
        unmatched = [
            want
            for index, want in enumerate(wants)
            if index not in met
            and not await users.in_rotation_for(connection, [want], limit=1)
        ]
        if unmatched:
            sizes = await users.pool_sizes(connection)
            raise NoSuchPoolError(unmatched, _nearest(unmatched[0], sizes))
        raise PoolTooSmallError(wants, asked, len(assignment.taken))

    async def _end_late(
        self, connection: Connection, lease: Lease, now: datetime
    ) -> tuple[Lease, list[LeaseId]]:
        """End a lease that the loop has not come to yet."""
        pools = await end_lapsed(connection, lease, now=now, times=self.times)
        granted = await hand_on(connection, pools, now=now, times=self.times)
        return await _reread(connection, lease.id), granted

    async def _look(self, lease_id: LeaseId) -> Held | Waiting:
        async with self.database.read() as connection:
            now = await read_clock(connection)
            lease = await _reread(connection, lease_id)
            answer = await self._answer(connection, lease, now)
        return _or_raise(answer)

    async def _keep_place(self, lease_id: LeaseId) -> None:
        async with self.database.write() as connection:
            now = await lock_queue(connection)
            await leases.keep_place(connection, lease_id, self._poll_by(now, 0.0))

    async def _answer(
        self, connection: Connection, lease: Lease, now: datetime
    ) -> Held | Waiting | BotfarmError:
        # An error is returned, not raised: what the transaction did has to stay.
        if is_ended(lease.state):
            return await _ended(connection, lease, now)
        if lease.state == "waiting":
            return await self._waiting(connection, lease, now)
        if has_lapsed(lease, now):
            return await _ended(connection, lease, now)
        leased = await users.leased(connection, lease.id)
        return Held(
            lease=lease,
            users=[self._unsealed(user) for user in leased],
            expires_in=_seconds(now, lease.expires_at),
            waited=_seconds(lease.created_at, lease.granted_at) or 0.0,
        )

    def _unsealed(self, row: users.LeasedRow) -> GrantedUser:
        return GrantedUser(
            id=row.id,
            login=row.login,
            password=(
                self.sealer.open(row.id, "password", row.sealed_password)
                if row.sealed_password is not None and self.sealer.can_seal
                else None
            ),
            secrets=self.sealer.open_map(row.id, "secrets", row.sealed_secrets)
            if self.sealer.can_seal
            else {},
            project_id=row.project_id,
            env=row.env,
            domain=row.domain,
            labels=row.labels,
            fence=row.fence,
            dirty=row.dirty,
            want=row.want,
        )

    async def _waiting(
        self, connection: Connection, lease: Lease, now: datetime
    ) -> Waiting:
        holdings = await users.blocking(connection, lease.wants, limit=MAXIMUM_BLOCKERS)
        return Waiting(
            lease=lease,
            place=await leases.place(connection, lease),
            waited=_seconds(lease.created_at, now) or 0.0,
            ask_again_within=_seconds(now, lease.poll_by) or 0.0,
            blockers=[_blocker(holding, now) for holding in holdings],
        )

    async def renew(
        self, renewals: Sequence[tuple[LeaseId, Fence]]
    ) -> list[Renewed | Lost]:
        """Move the expiry of each lease that is held under its fence still."""
        async with self.database.write() as connection:
            found = await leases.lock_all(connection, [name for name, _ in renewals])
            # After the rows are locked: a lease may have lapsed while we waited.
            now = await read_clock(connection)
            by_ttl: dict[float | None, list[LeaseId]] = {}
            for lease_id, fence in renewals:
                lease = found.get(lease_id)
                if lease is not None and _is_renewable(lease, fence, now):
                    by_ttl.setdefault(lease.ttl, []).append(lease_id)
            for ttl, lease_ids in by_ttl.items():
                await leases.extend(
                    connection, lease_ids, now=now, expires_at=renewed_expiry(now, ttl)
                )
            renewed = {name: ttl for ttl, names in by_ttl.items() for name in names}
            return [
                Renewed(lease_id, renewed[lease_id])
                if lease_id in renewed
                else await _lost(connection, lease_id, found.get(lease_id), now)
                for lease_id, _ in renewals
            ]

    async def end(
        self,
        lease_id: LeaseId,
        *,
        fence: Fence | None = None,
        outcome: Outcome | None = None,
        clean: bool = True,
    ) -> None:
        """Release a held lease or cancel a waiting one; again is no error.

        A lease that was never asked for is recorded as cancelled, so that a request
        that arrives late does not bring it to life.

        Raises:
            LeaseEndedError: it had expired or been revoked before.
            LeaseMismatchError: it is held under another fence.

        """
        answer: BotfarmError | None = None
        async with self.database.write() as connection:
            now = await lock_queue(connection)
            lease = await leases.get(connection, lease_id)
            pools: set[Pool] = set()
            if lease is None:
                await leases.insert_ended(connection, _tombstone(lease_id, now))
            elif has_lapsed(lease, now) and lease.state == "held":
                pools = await end_lapsed(connection, lease, now=now, times=self.times)
                answer = await _ended(
                    connection, await _reread(connection, lease_id), now
                )
            elif lease.state in {"expired", "revoked"}:
                answer = await _ended(connection, lease, now)
            elif not is_ended(lease.state):
                if fence is not None and lease.fence != fence:
                    raise LeaseMismatchError(lease_id, "fence")
                pools = await end_lease(
                    connection,
                    lease,
                    "released" if lease.state == "held" else "cancelled",
                    now=now,
                    times=self.times,
                    outcome=outcome,
                    clean=clean,
                )
            granted = await hand_on(connection, pools, now=now, times=self.times)
        self.room.wake([lease_id, *granted])
        if answer is not None:
            raise answer
        _log.info("lease ended", lease_id=str(lease_id), outcome=outcome)

    async def break_lease(self, lease_id: LeaseId, reason: str) -> Lease:
        """Take a lease from its holder, who is told so at the next renewal.

        Raises:
            LeaseNotFoundError: there is none.
            LeaseEndedError: it is over already.

        """
        async with self.database.write() as connection:
            now = await lock_queue(connection)
            lease = await leases.get(connection, lease_id)
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            if is_ended(lease.state):
                raise await _ended(connection, lease, now)
            pools = await end_lease(
                connection,
                lease,
                "revoked",
                now=now,
                times=self.times,
                clean=False,
                reason=reason,
            )
            granted = await hand_on(connection, pools, now=now, times=self.times)
        self.room.wake([lease_id, *granted])
        _log.warning("lease broken", lease_id=str(lease_id), reason=reason)
        return lease

    async def end_holder(
        self,
        run_id: str,
        worker_id: str | None,
        *,
        outcome: Outcome | None,
        clean: bool,
    ) -> int:
        """End all leases of a run or worker that is known to be dead; how many.

        Since nobody uses the users any more, they are handed on without a delay.
        """
        async with self.database.write() as connection:
            now = await lock_queue(connection)
            live = await leases.live_of_holder(connection, run_id, worker_id)
            pools: set[Pool] = set()
            for lease in live:
                pools |= await end_lease(
                    connection,
                    lease,
                    "released" if lease.state == "held" else "cancelled",
                    now=now,
                    times=self.times,
                    outcome=outcome,
                    clean=clean,
                    reason="its holder ended",
                )
            granted = await hand_on(connection, pools, now=now, times=self.times)
        self.room.wake([*(lease.id for lease in live), *granted])
        if live:
            _log.info(
                "leases of a holder ended",
                run_id=run_id,
                worker_id=worker_id,
                leases=len(live),
            )
        return len(live)

    async def show(self, lease_id: LeaseId) -> LeaseView:
        """Raises LeaseNotFoundError."""
        async with self.database.read() as connection:
            now = await read_clock(connection)
            lease = await leases.get(connection, lease_id)
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            granted = await leases.users_of(connection, [lease_id])
        return LeaseView(lease, granted, now)

    async def find(
        self,
        *,
        states: Sequence[LeaseState] | None,
        run_id: str | None = None,
        worker_id: str | None = None,
        user_id: UserId | None = None,
        before: int | None = None,
        limit: int,
    ) -> list[LeaseView]:
        """Leases, newest first."""
        async with self.database.read() as connection:
            now = await read_clock(connection)
            found = await leases.find(
                connection,
                states=states,
                run_id=run_id,
                worker_id=worker_id,
                user_id=user_id,
                before=before,
                limit=limit,
            )
            granted = await leases.users_of(connection, [lease.id for lease in found])
        return [
            LeaseView(
                lease, [user for user in granted if user.lease_id == lease.id], now
            )
            for lease in found
        ]

    def _poll_by(self, now: datetime, wait: float) -> datetime:
        return now + timedelta(seconds=wait + self.times.poll_grace)


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


def _or_raise(answer: Held | Waiting | BotfarmError) -> Held | Waiting:
    if isinstance(answer, BotfarmError):
        raise answer
    if isinstance(answer, Held):
        _log.info(
            "lease held",
            lease_id=str(answer.lease.id),
            users=[user.login for user in answer.users],
            test_id=answer.lease.holder.test_id,
            worker_id=answer.lease.holder.worker_id,
            run_id=answer.lease.holder.run_id,
            waited=round(answer.waited, 3),
        )
    return answer


def _is_renewable(lease: Lease, fence: Fence, now: datetime) -> bool:
    return lease.state == "held" and lease.fence == fence and not has_lapsed(lease, now)


async def _reread(connection: Connection, lease_id: LeaseId) -> Lease:
    lease = await leases.get(connection, lease_id)
    if lease is None:
        raise LeaseNotFoundError(lease_id)
    return lease


async def _passed_on(connection: Connection, lease: Lease) -> list[PassedOnUser]:
    had = await leases.users_of(connection, [lease.id])
    holdings = await leases.holdings_of(connection, [user.id for user in had])
    return [
        PassedOnUser(
            user.id,
            user.login,
            holdings[user.id].holder if user.id in holdings else None,
        )
        for user in had
    ]


async def _ended(
    connection: Connection, lease: Lease, now: datetime
) -> LeaseEndedError:
    return LeaseEndedError(
        lease_id=lease.id,
        state=lease.state if is_ended(lease.state) else "expired",
        ended_ago=_seconds(lease.ended_at or lease.expires_at, now) or 0.0,
        reason=lease.end_reason,
        users=await _passed_on(connection, lease),
    )


async def _lost(
    connection: Connection, lease_id: LeaseId, lease: Lease | None, now: datetime
) -> Lost:
    if lease is None:
        detail = f"There is no lease {lease_id}."
        return Lost(lease_id, "unknown", detail, None, ())
    if lease.state == "waiting":
        detail = f"Lease {lease_id} is not granted yet."
        return Lost(lease_id, "waiting", detail, None, ())
    if lease.state == "held" and not has_lapsed(lease, now):
        detail = f"Lease {lease_id} is held under another fence."
        return Lost(lease_id, "unknown", detail, None, ())
    ended = await _ended(connection, lease, now)
    return Lost(lease_id, ended.state, ended.detail, ended.ended_ago, ended.users)


def _blocker(holding: HoldingRow, now: datetime) -> Blocker:
    return Blocker(
        user_id=holding.user_id,
        login=holding.login,
        lease_id=holding.lease_id,
        holder=holding.holder,
        held_for=_seconds(holding.granted_at, now) or 0.0,
        expires_in=_seconds(now, holding.expires_at),
    )


def _nearest(want: Want, sizes: dict[Pool, int]) -> list[dict[str, object]]:
    """The pools that share most with what was asked for, larger ones first."""

    def distance(pool: Pool) -> tuple[bool, bool, int]:
        return pool.env != want.env, pool.domain != want.domain, -sizes[pool]

    return [
        {"env": pool.env, "domain": pool.domain, "users": sizes[pool]}
        for pool in sorted(sizes, key=distance)[:NEAREST_POOLS]
    ]


def _tombstone(lease_id: LeaseId, now: datetime) -> Lease:
    return Lease(
        id=lease_id,
        state="cancelled",
        wants=(),
        holder=Holder(),
        ttl=None,
        created_at=now,
        queue_number=None,
        fence=None,
        granted_at=None,
        expires_at=None,
        poll_by=None,
        ended_at=now,
        outcome=None,
        end_reason="it was given back before it was asked for",
    )


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
