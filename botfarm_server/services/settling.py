"""One transaction's work: calls that ask for leases, give them back, or have left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseMismatchError,
    LeaseNotFoundError,
)
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    first_expiry,
    has_lapsed,
    is_ended,
)
from botfarm_server.domain.matching import alike
from botfarm_server.domain.models import (
    Candidate,
    EndedState,
    Holder,
    Lease,
    LeaseId,
    Pool,
)
from botfarm_server.domain.queueing import Grant, Waiter, plan_grants, users_needed
from botfarm_server.services.answers import (
    Held,
    ended,
    held_answer,
    held_answers,
    not_the_holder,
    over,
    reread,
)
from botfarm_server.services.calls import Asked, Call, Left, Returned
from botfarm_server.services.departed import came_late, ends_of
from botfarm_server.services.ending import (
    Cause,
    Ending,
    end_lapsed,
    end_leases,
    hand_on_from,
    record_endings,
)
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.possibility import Sizes, announce_hopeless, why_impossible
from botfarm_server.services.reclaiming import PATIENT_WAIT, reclaim_for_waiters
from botfarm_server.services.sealing import Sealer
from botfarm_server.store import candidates, grants, leases, queue, users
from botfarm_server.store.engine import Connection
from botfarm_server.store.grants import HeldUser


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of one call."""

    answer: Held | Lease | BotfarmError | None = None
    """The lease if it still waits; `None` for one that was given back."""
    is_locked: bool = False
    """Whether nothing was done, since another transaction has locked the lease."""
    is_new: bool = False
    """Whether this call has made the lease."""
    poll_by: datetime | None = None
    """What this call noted in the waiter, and the next call about it will change."""
    earlier: datetime | None = None
    """What was noted before: another call may wait still, at whichever replica."""


@dataclass
class Turn:
    """Settles calls about different leases behind the queue lock, at one time.

    `now` is the database's clock, read behind that lock.
    """

    connection: Connection
    now: datetime
    sealer: Sealer
    times: LeaseTimes
    endings: list[Ending] = field(default_factory=list)
    """To be logged once the transaction is committed."""
    granted: dict[LeaseId, float] = field(default_factory=dict)
    """Waiters that were granted, to be woken once the transaction is committed, and how
    many seconds each has waited."""
    at_once: int = 0
    """How many leases were granted without a wait."""
    others: list[LeaseId] = field(default_factory=list)
    """Waiters of which calls are to be woken as well, and ask again: those that can no
    longer be met, and those of which one call has left."""
    _refusals: dict[object, BotfarmError | None] = field(default_factory=dict)
    _sizes: Sizes = field(default_factory=dict)
    _settled: dict[LeaseId, Settled] = field(default_factory=dict)

    async def settle(self, calls: Sequence[Call]) -> Mapping[LeaseId, Settled]:
        """Users that are given back go to waiters first, and then to who asks now.

        Raises:
            SecretUnreadableError: the transaction is to be undone.

        """
        named = {call.lease_id for call in calls}
        named |= {end for it in calls if isinstance(it, Asked) for end in ends_of(it)}
        locked = await grants.lock_with_users(self.connection, named, self.now)
        found, self.now = locked.found, locked.now
        for name in locked.elsewhere:
            self._settled[name] = Settled(is_locked=True)
        calls = [call for call in calls if call.lease_id not in locked.elsewhere]
        calls = self._of_owners(calls, found)
        left = [it for it in calls if isinstance(it, Left)]
        returned = [it for it in calls if isinstance(it, Returned)]
        asking = [it for it in calls if isinstance(it, Asked)]
        await self._take_back(returned, found, locked.users)
        first = [call for call in asking if call.lease_id not in found]
        first = self._in_time(first, found)
        await self._tell_hopeless()
        freed = {pool for ending in self.endings for pool in ending.pools}
        projects = {named for ending in self.endings for named in ending.projects}
        for away in await self._let_go(left, found):
            freed |= {want.pool for want in away.wants}
            projects |= {want.project_id for want in away.wants}
        freed |= await self._come_back(asking, found)
        projects |= _projects_of(asking)
        waited_for = await queue.waited_for(
            self.connection,
            freed | {want.pool for call in first for want in call.wants},
        )
        await self._hand_on(freed & waited_for, projects)
        held = [
            lease
            for call in asking
            if (lease := found.get(call.lease_id)) is not None
            and (lease := await self._ask_again(call, lease)) is not None
        ]
        await self._ask_first(first, waited_for)
        if waited_for or any(
            isinstance(it.answer, Lease) for it in self._settled.values()
        ):
            await self._reclaim_idle(
                are_patient=all(it.wait >= PATIENT_WAIT for it in asking)
            )
        # A waiter may have been granted by a later step of this very turn.
        held += [
            await reread(self.connection, name)
            for name, it in self._settled.items()
            if isinstance(it.answer, Lease) and name in self.granted
        ]
        answers = await held_answers(self.connection, held, self.now, self.sealer)
        for answer in answers:
            before = self._settled.get(answer.lease.id, Settled())
            self._settled[answer.lease.id] = replace(before, answer=answer)
        return self._settled

    def _of_owners(
        self, calls: Sequence[Call], found: Mapping[LeaseId, Lease]
    ) -> list[Call]:
        """The calls but those about leases of others."""
        owners = []
        for call in calls:
            lease = found.get(call.lease_id)
            refusal = None if lease is None else _why_not_of(call, lease)
            if refusal is None:
                owners.append(call)
            else:
                self._settled[call.lease_id] = Settled(refusal)
        return owners

    def _in_time(
        self, calls: Sequence[Asked], found: Mapping[LeaseId, Lease]
    ) -> list[Asked]:
        """The calls but those whose holders had ended before they arrived."""
        in_time = []
        for call in calls:
            refusal = came_late(call, found, self.now)
            if refusal is None:
                in_time.append(call)
            else:
                self._settled[call.lease_id] = Settled(refusal)
        return in_time

    async def _hand_on_from(self, endings: Sequence[Ending]) -> None:
        self.granted |= await hand_on_from(
            self.connection, endings, now=self.now, times=self.times
        )

    async def _reclaim_idle(self, *, are_patient: bool) -> None:
        """Let nobody wait for what no test uses."""
        endings = await reclaim_for_waiters(
            self.connection, now=self.now, times=self.times, are_patient=are_patient
        )
        self.endings += endings
        await self._hand_on_from(endings)

    async def _hand_on(
        self, pools: Collection[Pool], projects: Collection[UUID | None]
    ) -> None:
        if not pools:
            return
        self.granted |= await hand_on(
            self.connection, pools, now=self.now, times=self.times, projects=projects
        )

    # Giving back

    async def _take_back(
        self,
        calls: Sequence[Returned],
        found: Mapping[LeaseId, Lease],
        users_held: Sequence[HeldUser],
    ) -> None:
        alike: defaultdict[Cause, list[Lease]] = defaultdict(list)
        for call in calls:
            lease = found.get(call.lease_id)
            answer: BotfarmError | None = None
            if lease is None:
                tombstone = _tombstone(call, self.now)
                await leases.insert_ended(self.connection, tombstone)
            elif lease.state == "held" and has_lapsed(lease, self.now):
                self.endings += await end_lapsed(
                    self.connection, [lease], now=self.now, times=self.times
                )
                lease = await reread(self.connection, lease.id)
                answer = await ended(self.connection, lease, self.now)
            elif lease.state in {"expired", "revoked"}:
                answer = await ended(self.connection, lease, self.now)
            elif not is_ended(lease.state):
                if call.fence is not None and lease.fence != call.fence:
                    answer = LeaseMismatchError(call.lease_id, "fence")
                else:
                    state = ended_by_holder(lease)
                    cause = Cause(state, outcome=call.outcome, clean=call.clean)
                    alike[cause].append(lease)
            self._settled[call.lease_id] = Settled(answer)
        callers = {call.lease_id: call.by for call in calls}
        for cause, together in alike.items():
            endings = await end_leases(
                self.connection,
                together,
                cause,
                now=self.now,
                times=self.times,
                held=users_held,
            )
            for ending in endings:
                by = callers[ending.lease.id]
                await record_endings(self.connection, [ending], by, self.now)
            self.endings += endings

    async def _tell_hopeless(self) -> None:
        """Wake who waits for users that went out of rotation with their leases."""
        keys = [
            (pool.env, login)
            for ending in self.endings
            for login in ending.quarantined
            for pool in ending.pools
        ]
        if keys:
            stored = await users.stored(self.connection, keys)
            lost = [
                Candidate(it.id, it.env, it.domain, it.project_id, it.labels)
                for it in stored.values()
            ]
            self.others += await announce_hopeless(self.connection, lost)

    # Leaving

    async def _let_go(
        self, calls: Sequence[Left], found: Mapping[LeaseId, Lease]
    ) -> list[Lease]:
        """Take waiters whose calls have left out of the queue; which are out of it.

        One stays there for an earlier call whose time is not over: the one that left
        may be a duplicate that came late, and another replica has the call of who
        lives. A grant that was made meanwhile is taken back if nobody can have seen it:
        the call has made the lease, and no other has asked about it.
        """
        away: list[Lease] = []
        until = self._poll_by(0.0)
        for call in calls:
            self._settled[call.lease_id] = Settled()
            lease = found.get(call.lease_id)
            if lease is None or lease.poll_by is None or lease.poll_by != call.poll_by:
                continue  # nothing waits for it, or somebody has asked again
            if lease.state == "held" and call.made_it:
                await grants.take_back(self.connection, lease, until)
                away.append(lease)
            elif lease.state == "waiting":
                kept_until = max(until, call.earlier or until)
                await leases.keep_place(self.connection, lease.id, kept_until)
                away += [lease] if kept_until == until else []
        waiters = [lease.id for lease in away if lease.state == "waiting"]
        if waiters:
            await queue.leave(self.connection, waiters)
        self.others += [lease.id for lease in away]
        return away

    # Asking about a lease that is known

    async def _come_back(
        self, calls: Sequence[Asked], found: Mapping[LeaseId, Lease]
    ) -> set[Pool]:
        """Let waiters whose last call had left into the queue again; their pools."""
        pools: set[Pool] = set()
        for call in calls:
            lease = found.get(call.lease_id)
            if (
                lease is not None
                and lease.state == "waiting"
                and not has_lapsed(lease, self.now)
                and list(lease.wants) == list(call.wants)
                and not await queue.has(self.connection, lease.id)
            ):
                await queue.enter(self.connection, lease)
                pools |= {want.pool for want in lease.wants}
        return pools

    async def _ask_again(self, call: Asked, lease: Lease) -> Lease | None:
        """The lease if it is held, and needs to be told with all that it holds."""
        if lease.id in self.granted:
            lease = await reread(self.connection, lease.id)  # by this very turn
        if not is_ended(lease.state) and list(lease.wants) != list(call.wants):
            self._settled[lease.id] = Settled(LeaseMismatchError(lease.id))
            return None
        if has_lapsed(lease, self.now):
            endings = await end_lapsed(
                self.connection, [lease], now=self.now, times=self.times
            )
            self.endings += endings
            await self._hand_on_from(endings)
            lease = await reread(self.connection, lease.id)
        if lease.state == "waiting":
            await self._keep_waiting(call, lease)
            return None
        if lease.state == "held":
            if lease.poll_by is not None:
                # The caller learns of the grant here, if the first call has left.
                await grants.claim(self.connection, lease.id)
            return lease
        answer = await over(self.connection, lease, self.now)
        self._settled[lease.id] = Settled(answer)
        return None

    async def _keep_waiting(self, call: Asked, lease: Lease) -> None:
        """Move the time until which the place is kept; end what cannot be met."""
        refusal = await self._why_impossible(call)
        if refusal is not None:
            cause = Cause("cancelled", reason=refusal.code)
            endings = await end_leases(
                self.connection, [lease], cause, now=self.now, times=self.times
            )
            self.endings += endings
            await self._hand_on_from(endings)
            self._settled[lease.id] = Settled(refusal)
            return
        poll_by = self._poll_by(call.wait)
        if lease.poll_by is not None:
            # Another call may wait for longer; and each call's note is its own.
            poll_by = max(poll_by, lease.poll_by + timedelta(microseconds=1))
        await leases.keep_place(self.connection, lease.id, poll_by)
        self._settled[lease.id] = Settled(lease, poll_by=poll_by, earlier=lease.poll_by)

    # Asking for a new lease

    async def _ask_first(
        self, calls: Sequence[Asked], waited_for: Collection[Pool]
    ) -> None:
        """Grant at once where nobody is before, and let the others wait."""
        behind = []
        before = set(waited_for)
        for call in calls:
            pools = {want.pool for want in call.wants}
            if pools & before:
                behind.append(call)
                before |= pools  # who asks later in this turn is behind this one
        await self._grant_at_once([call for call in calls if call not in behind])
        await self._join([call for call in calls if call.lease_id not in self._settled])
        await self._hand_on(
            {
                want.pool
                for call in behind
                for want in call.wants
                if isinstance(self._settled[call.lease_id].answer, Lease)
            },
            _projects_of(behind),
        )

    async def _grant_at_once(self, calls: Sequence[Asked]) -> None:
        if not calls:
            return
        waiters = [Waiter(it.lease_id, it.wants, self.now, it.prefer) for it in calls]
        free = await candidates.free_for(
            self.connection,
            [want for waiter in waiters for want in waiter.wants],
            now=self.now,
            limit=users_needed(waiters),
            preferred={user_id for call in calls for user_id in call.prefer},
        )
        plan = plan_grants(waiters, free, now=self.now, patience=self.times.patience)
        if not plan.grants:
            return
        by_id = {call.lease_id: call for call in calls}
        new: list[tuple[Lease, Grant]] = []
        for grant in plan.grants:
            call = by_id[grant.lease_id]
            lease = replace(
                self._new(call),
                state="held",
                granted_at=self.now,
                expires_at=first_expiry(self.now, call.ttl, self.times),
            )
            new.append((lease, grant))
        self.at_once += len(new)
        for lease, rows in await grants.insert_held(self.connection, new):
            answer = held_answer(lease, rows, self.now, self.sealer)
            self._settled[lease.id] = Settled(
                answer, is_new=True, poll_by=lease.poll_by
            )

    async def _join(self, calls: Sequence[Asked]) -> None:
        """Take places at the end of the queue, in the order of arrival."""
        for call in calls:
            refusal = await self._why_impossible(call)
            if refusal is not None:
                self._settled[call.lease_id] = Settled(refusal)
                continue
            new = self._new(call)
            await leases.insert_waiting(self.connection, new)
            self._settled[new.id] = Settled(new, is_new=True, poll_by=new.poll_by)

    async def _why_impossible(self, call: Asked) -> BotfarmError | None:
        # A refusal names the pools that this caller may know of.
        key = (call.by.project_id, alike(call.wants))
        if key not in self._refusals:
            self._refusals[key] = await why_impossible(
                self.connection, call.wants, call.by.project_id, self._sizes
            )
        return self._refusals[key]

    def _new(self, call: Asked) -> Lease:
        return Lease(
            id=call.lease_id,
            state="waiting",
            wants=call.wants,
            holder=call.holder,
            ttl=call.ttl,
            created_at=self.now,
            poll_by=self._poll_by(call.wait),
            token_id=call.by.token_id,
        )

    def _poll_by(self, wait: float) -> datetime:
        """Until when a waiter keeps its place unless somebody asks about it again."""
        return self.now + timedelta(seconds=wait + self.times.poll_grace)


def _why_not_of(call: Call, lease: Lease) -> BotfarmError | None:
    """Why a call is not the caller's to make about this lease, if so it is."""
    if not call.by.owns(lease):
        return LeaseNotFoundError(lease.id)
    if isinstance(call, Asked) and not call.by.is_holder_of(lease):
        return not_the_holder()
    return None


def ended_by_holder(lease: Lease) -> EndedState:
    return "released" if lease.state == "held" else "cancelled"


def _projects_of(calls: Sequence[Asked]) -> set[UUID | None]:
    """Whose users they want; `None` stands for any."""
    return {want.project_id for call in calls for want in call.wants}


def _tombstone(call: Returned, now: datetime) -> Lease:
    return Lease(
        id=call.lease_id,
        state="cancelled",
        wants=(),
        holder=Holder(),
        ttl=None,
        created_at=now,
        ended_at=now,
        end_reason="it was given back before it was asked for",
        token_id=call.by.token_id,
    )
