"""Renewing leases, giving them back, taking them away and looking at them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseMismatchError,
    LeaseNotFoundError,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    has_lapsed,
    is_ended,
    is_kept,
    renewed_expiry,
)
from botfarm_server.domain.models import (
    Fence,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    UserId,
)
from botfarm_server.services import audit
from botfarm_server.services.answers import (
    LOOKED_UP_TOGETHER,
    MOST_NAMED,
    LeaseView,
    Lost,
    Renewed,
    ended,
    log_kept,
    lost,
    reread,
)
from botfarm_server.services.calls import Returned
from botfarm_server.services.departed import HOLDER_ENDED, remember
from botfarm_server.services.ending import (
    Cause,
    Ending,
    end_lapsed,
    end_leases,
    hand_on_from,
    record_endings,
)
from botfarm_server.services.locking import lease_behind_queue, until_unlocked
from botfarm_server.services.news import News
from botfarm_server.services.reclaiming import reclaim
from botfarm_server.services.settling import ended_by_holder
from botfarm_server.services.sharing import FewOfEach, OneByOne
from botfarm_server.services.turns import Turns
from botfarm_server.services.uses import told_apart
from botfarm_server.store import grants, holdings, lease_files, leases
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.holdings import LeaseUser

RENEWALS_AT_ONCE = 2
"""Of one sender: those of the same leases would wait for each other, each with a
connection, and write the same rows again."""
LIVE_STATES: Sequence[LeaseState] = ("waiting", "held")


@dataclass
class LeaseService:
    """The use cases of leases; each runs in a transaction of its own."""

    database: Database
    news: News
    times: LeaseTimes
    turns: Turns
    lookups: OneByOne = field(default_factory=OneByOne)
    """Of leases that were lost."""
    renewals: FewOfEach = field(default_factory=lambda: FewOfEach(RENEWALS_AT_ONCE))

    async def renew(
        self, renewals: Sequence[tuple[LeaseId, Fence]], by: Caller = EVERYTHING
    ) -> list[Renewed | Lost]:
        """Move the expiry of each lease that is held under its fence still.

        A lease that is not the caller's is as unknown as one that does not exist.
        """
        async with self.renewals.place_of(by), self.database.write() as connection:
            found = await leases.lock_held(connection, [name for name, _ in renewals])
            # After the rows are locked: a lease may have lapsed while we waited.
            now = await read_clock(connection)
            by_ttl: dict[float | None, set[LeaseId]] = {}
            for lease_id, fence in renewals:
                lease = found.get(lease_id)
                if (
                    lease is not None
                    and by.owns(lease)
                    and _is_renewable(lease, fence, now)
                ):
                    by_ttl.setdefault(lease.ttl, set()).add(lease_id)
            for ttl, lease_ids in by_ttl.items():
                await leases.extend(
                    connection, lease_ids, now=now, expires_at=renewed_expiry(now, ttl)
                )
            extended = [found[name] for names in by_ttl.values() for name in names]
            await _record_renewals(connection, extended, by, now)
            renewed = {
                (name, found[name].fence): ttl
                for ttl, names in by_ttl.items()
                for name in names
            }
        others = [name for name, fence in renewals if (name, fence) not in renewed]
        why_lost = await self._why_lost(others, by)
        self.news.metrics.renewed(len(renewals) - len(others), lost=len(others))
        return [
            Renewed(lease_id, renewed[lease_id, fence])
            if (lease_id, fence) in renewed
            else why_lost[lease_id]
            for lease_id, fence in renewals
        ]

    async def _why_lost(
        self, names: Sequence[LeaseId], by: Caller
    ) -> dict[LeaseId, Lost]:
        """Why leases were not renewed: read once that is committed, some at a time.

        In between other calls go on, and nobody waits for what is locked.
        """
        found: dict[LeaseId, Lost] = {}
        distinct, named = list(dict.fromkeys(names)), 0
        for start in range(0, len(distinct), LOOKED_UP_TOGETHER):
            together = distinct[start : start + LOOKED_UP_TOGETHER]
            async with self.lookups.turn_of(by), self.database.read() as connection:
                now = await read_clock(connection)
                known = await leases.get_all(connection, together)
                its = {name: lease for name, lease in known.items() if by.owns(lease)}
                found |= await lost(
                    connection, together, its, now, most_named=MOST_NAMED - named
                )
            named = sum(len(it.users) for it in found.values())
        return found

    async def keep(
        self,
        lease_id: LeaseId,
        fence: Fence,
        *,
        seconds: float,
        outcome: Outcome,
        by: Caller = EVERYTHING,
    ) -> float:
        """Leave a held lease for a person to look at; for how many seconds still.

        From now on nothing moves its expiry, and it no longer belongs to its run. Asked
        again, it keeps the expiry that it has.

        Raises:
            LeaseNotFoundError: there is none.
            LeaseEndedError: it is over.
            LeaseMismatchError: it is not held under this fence.

        """
        async with self.database.write() as connection:
            found = await leases.lock_held(connection, [lease_id])
            now = await read_clock(connection)  # a renewal may have had the row
            lease = found.get(lease_id) or await reread(connection, lease_id)
            if is_ended(lease.state) or (found and has_lapsed(lease, now)):
                raise await ended(connection, lease, now)
            if lease.fence != fence:
                raise LeaseMismatchError(lease_id, "fence")
            if is_kept(lease) and lease.expires_at is not None:
                return (lease.expires_at - now).total_seconds()
            # Its holder has done with it, and with the file of its tests.
            used, idle = await told_apart(connection, [lease], now)
            [lease] = used + idle
            until = now + timedelta(seconds=seconds)
            await leases.keep(
                connection, lease_id, now=now, expires_at=until, outcome=outcome
            )
            if not by.is_holder_of(lease):
                held = await grants.users_held(connection, [lease_id])
                told = {"state": "held", "kept_for": seconds}
                logins = [user.login for user in held]
                change = audit.lease_changed("lease.keep", lease, logins, told)
                await audit.record(connection, by, now, change)
        log_kept(lease, seconds)
        return seconds

    async def end(
        self,
        lease_id: LeaseId,
        *,
        fence: Fence | None = None,
        outcome: Outcome | None = None,
        clean: bool = True,
        by: Caller = EVERYTHING,
    ) -> None:
        """Release a held lease or cancel a waiting one; again is no error.

        A lease that was never asked for is recorded as cancelled, so that a request
        that arrives late does not bring it to life.

        Raises:
            LeaseEndedError: it had expired or been revoked before.
            LeaseMismatchError: it is held under another fence.
            LeaseNotFoundError: it is somebody else's.

        """
        returned = Returned(lease_id, fence, outcome, clean, by)
        settled = await self.turns.settle(returned)
        if isinstance(settled.answer, BotfarmError):
            raise settled.answer

    async def break_lease(
        self,
        lease_id: LeaseId,
        reason: str,
        *,
        holder_is_dead: bool = False,
        by: Caller = EVERYTHING,
    ) -> None:
        """Take a lease from its holder, who is told so at the next renewal.

        Until then its users rest, unless nobody uses them any more.

        Raises:
            LeaseNotFoundError: there is none.
            LeaseEndedError: it is over already.

        """
        locked = lease_behind_queue(self.database, lease_id)
        async with locked as (connection, lease, now):
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            if is_ended(lease.state):
                raise await ended(connection, lease, now)
            if has_lapsed(lease, now):
                endings = await end_lapsed(
                    connection,
                    [lease],
                    now=now,
                    times=self.times,
                    holder_is_dead=holder_is_dead,
                )
                lapsed = await reread(connection, lease_id)
                refusal = await ended(connection, lapsed, now)
            else:
                cause = Cause(
                    "revoked",
                    clean=False,
                    reason=reason,
                    holder_is_dead=holder_is_dead,
                )
                endings = await end_leases(
                    connection, [lease], cause, now=now, times=self.times
                )
                told = {"state": "revoked", "holder_is_dead": holder_is_dead}
                [logins] = [ending.logins for ending in endings]
                change = audit.lease_changed("lease.break", lease, logins, told, reason)
                await audit.record(connection, by, now, change)
                refusal = None
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self.news.tell(endings, granted)
        if refusal is not None:
            raise refusal  # once its end is committed

    async def end_holder(
        self,
        run_id: str,
        worker_id: str | None,
        *,
        outcome: Outcome | None,
        clean: bool,
        by: Caller = EVERYTHING,
    ) -> list[Ending]:
        """End all leases of a run or worker that is known to be dead.

        Those that are kept go on. Since nobody uses the users of the others any more,
        they are handed on without a delay. What it asked for and comes late is refused.
        """
        endings, busy = await self._end_unlocked(
            run_id, worker_id, outcome=outcome, clean=clean, by=by
        )
        while busy:
            for lease_id in busy:
                await until_unlocked(self.database, lease_id)
            more, busy = await self._end_unlocked(
                run_id, worker_id, outcome=outcome, clean=clean, by=by
            )
            endings += more
        return endings

    async def _end_unlocked(
        self,
        run_id: str,
        worker_id: str | None,
        *,
        outcome: Outcome | None,
        clean: bool,
        by: Caller,
    ) -> tuple[list[Ending], set[LeaseId]]:
        """End those that nobody has locked; and which are left."""
        async with self.database.queue() as (connection, _):
            live, busy = await leases.live_of_holder(
                connection, run_id, worker_id, by.owns
            )
            now = await read_clock(connection)  # renewals may have had the rows
            endings = await end_lapsed(
                connection,
                [lease for lease in live if has_lapsed(lease, now)],
                now=now,
                times=self.times,
                outcome=outcome,
                holder_is_dead=True,
            )
            for state in ("held", "waiting"):
                alike = [
                    lease
                    for lease in live
                    if lease.state == state and not has_lapsed(lease, now)
                ]
                if alike:
                    cause = Cause(
                        ended_by_holder(alike[0]),
                        outcome=outcome,
                        clean=clean,
                        reason=HOLDER_ENDED,
                    )
                    endings += await end_leases(
                        connection, alike, cause, now=now, times=self.times
                    )
            await remember(connection, run_id, worker_id, by=by, now=now)
            await record_endings(connection, endings, by, now)
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self.news.tell(endings, granted)
        return endings, busy

    async def end_idle(self, lease_ids: Sequence[LeaseId]) -> None:
        """End those of the leases that are idle still."""
        async with self.database.queue() as (connection, now):
            endings = await reclaim(
                connection, now=now, times=self.times, lease_ids=lease_ids
            )
            granted = await hand_on_from(connection, endings, now=now, times=self.times)
        self.news.tell(endings, granted)

    async def remove_files(self, lease_ids: Collection[LeaseId]) -> None:
        """Remove the files of those leases that live no longer, and that nobody has."""
        async with self.database.read() as connection:
            live = await leases.in_use(connection, lease_ids)
            lease_files.remove_left(connection, set(lease_ids) - live)

    async def show(self, lease_id: LeaseId) -> LeaseView:
        """Raises LeaseNotFoundError."""
        async with self.database.read() as connection:
            now = await read_clock(connection)
            lease = await leases.get(connection, lease_id)
            if lease is None:
                raise LeaseNotFoundError(lease_id)
            granted = await holdings.users_of(connection, [lease_id])
            return _view(connection, lease, granted, now)

    async def find(
        self,
        *,
        states: Sequence[LeaseState] | None,
        run_id: str | None = None,
        worker_id: str | None = None,
        user_id: UserId | None = None,
        project_id: UUID | None = None,
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
                project_id=project_id,
                before=before,
                limit=limit,
            )
            granted: defaultdict[LeaseId, list[LeaseUser]] = defaultdict(list)
            for user in await holdings.users_of(connection, [it.id for it in found]):
                granted[user.lease_id].append(user)
            return [_view(connection, it, granted[it.id], now) for it in found]


def _view(
    connection: Connection, lease: Lease, users: Sequence[LeaseUser], now: datetime
) -> LeaseView:
    """The lease with the test that has it now, of those that had it in turn."""
    if lease.state != "held":
        return LeaseView(lease, users, now, is_idle=False)
    told = lease_files.told_of(connection, lease.id)
    test_id = lease_files.present_test(told, lease.holder.test_id)
    lease = replace(lease, holder=replace(lease.holder, test_id=test_id))
    is_idle = told is not None and told.is_between_tests and not is_kept(lease)
    return LeaseView(lease, users, now, is_idle)


async def _record_renewals(
    connection: Connection, renewed: Iterable[Lease], by: Caller, now: datetime
) -> None:
    """Tell the audit log which leases of others go on by the caller.

    One without a TTL goes on anyway.
    """
    of_others = [it for it in renewed if it.ttl is not None and not by.is_holder_of(it)]
    if not of_others:
        return
    logins: defaultdict[LeaseId, list[str]] = defaultdict(list)
    for user in await grants.users_held(connection, [lease.id for lease in of_others]):
        logins[user.lease_id].append(user.login)
    changes = [
        audit.lease_changed(
            "lease.renew", it, logins[it.id], {"state": it.state, "renewed_for": it.ttl}
        )
        for it in of_others
    ]
    await audit.record(connection, by, now, *changes)


def _is_renewable(lease: Lease, fence: Fence, now: datetime) -> bool:
    return (
        lease.state == "held"
        and lease.fence == fence
        and not is_kept(lease)
        and not has_lapsed(lease, now)
    )
