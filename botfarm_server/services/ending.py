"""The end of leases, whoever or whatever ends them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

import structlog

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    failed_in_a_row,
    is_kept,
    lapsed_state,
    leaves_dirty,
    rests_until,
)
from botfarm_server.domain.models import (
    EndedState,
    KnotMember,
    Lease,
    LeaseId,
    LeaseState,
    Outcome,
    Pool,
)
from botfarm_server.services import audit
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.uses import told_apart
from botfarm_server.store import grants, leases, queue, users
from botfarm_server.store.engine import Connection
from botfarm_server.store.grants import HeldUser
from botfarm_server.store.users import in_quarantine

BY_ITSELF = "botfarm"
"""Who put a user in quarantine when nobody did."""

GIVEN_BACK: frozenset[EndedState] = frozenset({"released", "cancelled"})

KINDS: Sequence[tuple[LeaseState, bool]] = (
    ("waiting", False),
    ("held", False),
    ("held", True),
)
"""What ends in a way of its own: by the state before, and whether it was kept."""

_log = structlog.get_logger("botfarm.leases")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why leases end, and what their holder told of them."""

    state: EndedState
    """What they become."""
    outcome: Outcome | None = None
    clean: bool = True
    reason: str | None = None
    knot: Sequence[KnotMember] | None = None
    holder_is_dead: bool = False
    """Whether nobody uses their users any more, which then need no delay."""


LAST_TEST = Cause("released", outcome="passed")
"""What ends a lease that is idle."""


@dataclass(frozen=True, slots=True)
class Ending:
    """A lease that a transaction ends. Log it once that is committed."""

    lease: Lease
    state: EndedState
    outcome: Outcome | None
    reason: str | None
    pools: Collection[Pool]
    """What is to be handed on."""
    projects: Collection[UUID | None]
    """Whose users may be among it; `None` stands for any."""
    logins: Sequence[str]
    quarantined: Mapping[str, str]
    """Users that went out of rotation with it, and why."""
    was_idle: bool = False
    """Whether no test had it any more."""

    def log(self) -> None:
        for login, reason in self.quarantined.items():
            _log.warning("user quarantined", login=login, reason=reason)
        in_order = self.state in GIVEN_BACK
        holder = self.lease.holder
        (_log.info if in_order else _log.warning)(
            "lease ended",
            state=self.state,
            lease_id=str(self.lease.id),
            users=self.logins,
            test_id=holder.test_id,
            worker_id=holder.worker_id,
            run_id=holder.run_id,
            outcome=self.outcome,
            reason=self.reason,
        )


async def end_leases(
    connection: Connection,
    ended: Sequence[Lease],
    cause: Cause,
    *,
    now: datetime,
    times: LeaseTimes,
    held: Sequence[HeldUser] | None = None,
) -> list[Ending]:
    """End waiting, held or kept leases, those of each kind in one way.

    The caller has the queue lock, and locked them behind it. `held` are the users of
    the held ones, if the caller knows them. A lease that is idle was given back by its
    last test, whatever ends it now.
    """
    used, idle = await told_apart(connection, ended, now)
    given_back = await _end(connection, idle, LAST_TEST, now, times, held)
    return [replace(ending, was_idle=True) for ending in given_back] + await _end(
        connection, used, cause, now, times, held
    )


async def _end(
    connection: Connection,
    ended: Sequence[Lease],
    cause: Cause,
    now: datetime,
    times: LeaseTimes,
    held: Sequence[HeldUser] | None,
) -> list[Ending]:
    freed: list[HeldUser] = []
    for before, kept in KINDS:
        alike = [it for it in ended if (it.state, is_kept(it)) == (before, kept)]
        if not alike:
            continue
        await leases.end(
            connection,
            alike,
            cause.state,
            now=now,
            outcome=cause.outcome,
            reason=cause.reason,
            knot=cause.knot,
        )
        names = [lease.id for lease in alike]
        if before == "waiting" and cause.state != "abandoned":
            # Their calls may wait on another replica.
            await queue.announce(connection, names)
        if before == "held":
            theirs = (
                await grants.users_held(connection, names)
                if held is None
                else [user for user in held if user.lease_id in names]
            )
            await grants.free_users(
                connection,
                theirs,
                now=now,
                rest_until=rests_until(
                    now,
                    cause.state,
                    times,
                    ttl=max(
                        (it.ttl for it in alike if it.ttl is not None), default=None
                    ),
                    left=kept or cause.holder_is_dead,
                ),
                dirty=leaves_dirty(
                    cause.state, cause.outcome, clean=cause.clean, kept=kept
                ),
            )
            freed += theirs
    quarantined: defaultdict[LeaseId, dict[str, str]] = defaultdict(dict)
    if times.quarantine_after:
        by_id = {lease.id: lease for lease in ended}
        for user in freed:
            lease = by_id[user.lease_id]
            came_to = cause.outcome or lease.outcome
            test_id = lease.holder.test_id
            why = await _count_failure(connection, user, test_id, came_to, now, times)
            if why is not None:
                quarantined[user.lease_id][user.login] = why
    return [
        Ending(
            lease,
            cause.state,
            cause.outcome or lease.outcome,
            cause.reason,
            # What was kept for a waiter is free for others now.
            {want.pool for want in lease.wants}
            if lease.state == "waiting"
            else {user.pool for user in freed if user.lease_id == lease.id},
            {want.project_id for want in lease.wants}
            if lease.state == "waiting"
            else {user.project_id for user in freed if user.lease_id == lease.id},
            [user.login for user in freed if user.lease_id == lease.id],
            quarantined[lease.id],
        )
        for lease in ended
    ]


async def _count_failure(
    connection: Connection,
    user: HeldUser,
    test_id: str | None,
    outcome: Outcome | None,
    now: datetime,
    times: LeaseTimes,
) -> str | None:
    """Put a user in quarantine with which too many tests failed in a row; and why."""
    failed = failed_in_a_row(user.failed_tests, test_id, outcome)
    if list(failed) == list(user.failed_tests):
        return None
    columns: dict[str, object] = {"failed_tests": list(failed) or None}
    if not user.in_rotation or len(failed) < times.quarantine_after:
        await users.change(connection, user.id, columns)
        return None
    reason = f"{len(failed)} tests failed in a row: {', '.join(failed)}"
    columns |= in_quarantine(now, reason, BY_ITSELF)
    await users.change(connection, user.id, columns)
    change = audit.user_failed(user, reason, BY_ITSELF)
    await audit.record(connection, EVERYTHING, now, change)
    return reason


async def record_endings(
    connection: Connection, endings: Iterable[Ending], by: Caller, now: datetime
) -> None:
    """Tell the audit log which leases of others the caller gives back.

    What has lapsed by then ended by itself.
    """
    changes = [
        audit.lease_changed(
            "lease.release", it.lease, it.logins, {"state": it.state}, it.reason
        )
        for it in endings
        if it.state in GIVEN_BACK and not by.is_holder_of(it.lease)
    ]
    await audit.record(connection, by, now, *changes)


async def end_lapsed(
    connection: Connection,
    lapsed: Iterable[Lease],
    *,
    now: datetime,
    times: LeaseTimes,
    outcome: Outcome | None = None,
    holder_is_dead: bool = False,
) -> list[Ending]:
    """End leases whose time is over."""
    endings = []
    for lease in lapsed:
        cause = Cause(
            lapsed_state(lease.state),
            outcome=outcome,
            clean=False,
            reason=_why_lapsed(lease),
            holder_is_dead=holder_is_dead,
        )
        endings += await end_leases(connection, [lease], cause, now=now, times=times)
    return endings


def _why_lapsed(lease: Lease) -> str:
    if lease.state == "waiting":
        return "nobody asked about it any more"
    if is_kept(lease):
        return "the time is over for which it was kept"
    return "it was not renewed in time"


async def hand_on_from(
    connection: Connection,
    endings: Iterable[Ending],
    *,
    now: datetime,
    times: LeaseTimes,
) -> dict[LeaseId, float]:
    """Hand on what the ended leases had; the waiters that were granted."""
    endings = list(endings)
    return await hand_on(
        connection,
        {pool for ending in endings for pool in ending.pools},
        now=now,
        times=times,
        projects={named for ending in endings for named in ending.projects},
    )
