"""Renewing leases, giving them back, taking them away and looking at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseMismatchError,
    LeaseNotFoundError,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    has_lapsed,
    is_ended,
    renewed_expiry,
)
from botfarm_server.domain.models import (
    EndedState,
    Fence,
    Holder,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    UserId,
)
from botfarm_server.services.answers import (
    LeaseView,
    Lost,
    Renewed,
    ended,
    lost,
    reread,
)
from botfarm_server.services.ending import (
    Ending,
    end_lapsed,
    end_lease,
    hand_on_from,
)
from botfarm_server.services.waiting import WaitingRoom
from botfarm_server.store import holdings, leases
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

LIVE_STATES: Sequence[LeaseState] = ("waiting", "held")


@dataclass
class LeaseService:
    """The use cases of leases; each runs in a transaction of its own."""

    database: Database
    room: WaitingRoom
    times: LeaseTimes

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
                else await lost(connection, lease_id, found.get(lease_id), now)
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
        endings: list[Ending] = []
        async with self.database.queue() as (connection, _):
            lease = await leases.lock(connection, lease_id)
            now = await _time_behind_rows(connection)
            if lease is None:
                await leases.insert_ended(connection, _tombstone(lease_id, now))
            elif has_lapsed(lease, now) and lease.state == "held":
                endings.append(
                    await end_lapsed(connection, lease, now=now, times=self.times)
                )
                over = await reread(connection, lease_id)
                answer = await ended(connection, over, now)
            elif lease.state in {"expired", "revoked"}:
                answer = await ended(connection, lease, now)
            elif not is_ended(lease.state):
                if fence is not None and lease.fence != fence:
                    raise LeaseMismatchError(lease_id, "fence")
                endings.append(
                    await end_lease(
                        connection,
                        lease,
                        _ended_by_holder(lease),
                        now=now,
                        times=self.times,
                        outcome=outcome,
                        clean=clean,
                    )
                )
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self._tell(endings, granted)
        if answer is not None:
            raise answer

    async def break_lease(self, lease_id: LeaseId, reason: str) -> None:
        """Take a lease from its holder, who is told so at the next renewal.

        Raises:
            LeaseNotFoundError: there is none.
            LeaseEndedError: it is over already.

        """
        async with self.database.queue() as (connection, _):
            lease = await leases.lock(connection, lease_id)
            now = await _time_behind_rows(connection)
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            if is_ended(lease.state):
                raise await ended(connection, lease, now)
            ending = await end_lease(
                connection,
                lease,
                "revoked",
                now=now,
                times=self.times,
                clean=False,
                reason=reason,
            )
            granted = await hand_on_from(
                connection, [ending], now=now, times=self.times
            )
        self._tell([ending], granted)

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
        async with self.database.queue() as (connection, _):
            live = await leases.live_of_holder(connection, run_id, worker_id)
            now = await _time_behind_rows(connection)
            endings = [
                await end_lease(
                    connection,
                    lease,
                    _ended_by_holder(lease),
                    now=now,
                    times=self.times,
                    outcome=outcome,
                    clean=clean,
                    reason="its holder ended",
                )
                for lease in live
            ]
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self._tell(endings, granted)
        return len(live)

    def _tell(self, endings: Sequence[Ending], granted: Sequence[LeaseId]) -> None:
        """Wake and log, once the transaction is committed."""
        self.room.wake([*(ending.lease.id for ending in endings), *granted])
        for ending in endings:
            ending.log()

    async def show(self, lease_id: LeaseId) -> LeaseView:
        """Raises LeaseNotFoundError."""
        async with self.database.read() as connection:
            now = await read_clock(connection)
            lease = await leases.get(connection, lease_id)
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            granted = await holdings.users_of(connection, [lease_id])
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
            granted = await holdings.users_of(connection, [lease.id for lease in found])
        return [
            LeaseView(
                lease, [user for user in granted if user.lease_id == lease.id], now
            )
            for lease in found
        ]


async def _time_behind_rows(connection: Connection) -> datetime:
    """When an end happens: a renewal may have had the row locked until now.

    The time behind the queue lock would be before that renewal, whose answer says
    that the lease was held.
    """
    return await read_clock(connection)


def _ended_by_holder(lease: Lease) -> EndedState:
    return "released" if lease.state == "held" else "cancelled"


def _is_renewable(lease: Lease, fence: Fence, now: datetime) -> bool:
    return lease.state == "held" and lease.fence == fence and not has_lapsed(lease, now)


def _tombstone(lease_id: LeaseId, now: datetime) -> Lease:
    return Lease(
        id=lease_id,
        state="cancelled",
        wants=(),
        holder=Holder(),
        ttl=None,
        created_at=now,
        ended_at=now,
        end_reason="it was given back before it was asked for",
    )
