"""What callers are told of leases, read in the transaction that decided it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    BotfarmError,
    DeadlockError,
    ForbiddenError,
    LeaseEndedError,
    LeaseNotFoundError,
    NoSuchPoolError,
    PoolTooSmallError,
    SecretUnreadableError,
)
from botfarm_server.domain.lifecycle import has_lapsed, is_ended, is_kept
from botfarm_server.domain.models import (
    Blocker,
    EndedState,
    GrantedUser,
    Holder,
    Lease,
    LeaseId,
    Matching,
    PassedOnUser,
    Quarantined,
    UserId,
    Want,
)
from botfarm_server.domain.wording import describe_want
from botfarm_server.services.possibility import FIRST_QUARANTINED, why_impossible
from botfarm_server.services.sealing import Sealer
from botfarm_server.store import candidates, grants, holdings, leases, queue, users
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection
from botfarm_server.store.holdings import HoldingRow, LeaseUser

MAXIMUM_BLOCKERS = 10
MAXIMUM_COUNTED = 1_000
"""Users up to which a waiter is told how many match, and why they are not free."""
LOOKED_UP_TOGETHER = 25
"""Lost leases of one statement, each with 100 users and 64 KiB of wants at most."""
MOST_NAMED_OF_LEASE = 10
"""Users of a lease that is over of which is told who has them now."""
MOST_NAMED = 300
"""The same of all leases of one call."""
HOPELESS = {NoSuchPoolError.code, PoolTooSmallError.code}
"""Why a wait was ended that could not be met any more."""

_log = structlog.get_logger("botfarm.leases")


@dataclass(frozen=True, slots=True)
class Held:
    """A granted lease as its holder gets it."""

    lease: Lease
    users: Sequence[GrantedUser]
    expires_in: float | None
    waited: float
    held_for: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that is not granted yet."""

    lease: Lease
    place: int
    waited: float
    ask_again_within: float
    blockers: Sequence[Blocker]
    matching: Matching | None
    """`None` where more match than are counted."""


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
    is_idle: bool
    """Whether it is held, and no test has it at present."""


def log_held(lease: Lease, logins: Sequence[str]) -> None:
    _log_lease("lease held", lease, users=logins)


def log_kept(lease: Lease, seconds: float) -> None:
    _log_lease("lease kept", lease, seconds=seconds)


def log_waiting(lease: Lease) -> None:
    _log_lease("lease waits", lease, wants=[describe_want(it) for it in lease.wants])


def _log_lease(event: str, lease: Lease, **facts: object) -> None:
    _log.info(
        event,
        lease_id=str(lease.id),
        **facts,
        test_id=lease.holder.test_id,
        worker_id=lease.holder.worker_id,
        run_id=lease.holder.run_id,
        waited=_seconds(lease.created_at, lease.granted_at),
    )


async def reread(connection: Connection, lease_id: LeaseId) -> Lease:
    """The lease as it is now; raises LeaseNotFoundError."""
    lease = await leases.get(connection, lease_id)
    if lease is None:
        raise LeaseNotFoundError(lease_id)
    return lease


async def look(
    connection: Connection,
    lease_id: LeaseId,
    sealer: Sealer,
    *,
    says_why: bool = True,
) -> Held | Waiting | BotfarmError:
    """What the holder of a lease is told of it now.

    Without `says_why`, a waiter is not told who blocks it, nor how many users match.

    Raises:
        LeaseNotFoundError: there is none.
        SecretUnreadableError: no key opens what the holder needs.

    """
    lease = await reread(connection, lease_id)
    now = await read_clock(connection)
    if lease.state == "waiting":
        return await _waiting(connection, lease, now, says_why=says_why)
    if not is_ended(lease.state) and not has_lapsed(lease, now):
        for answer in await held_answers(connection, [lease], now, sealer):
            return answer
        # It has ended since it was read.
        lease = await reread(connection, lease_id)
    return await over(connection, lease, now)


async def look_if_held(
    connection: Connection, lease_id: LeaseId, sealer: Sealer
) -> Held | None:
    """What the holder of a lease is told, by one statement; `None` if it is not held.

    Raises:
        SecretUnreadableError: no key opens what the holder needs.

    """
    found = await grants.held_with_users(connection, lease_id)
    if found is None:
        return None
    lease, rows, now = found
    return None if has_lapsed(lease, now) else held_answer(lease, rows, now, sealer)


async def held_answers(
    connection: Connection, held: Sequence[Lease], now: datetime, sealer: Sealer
) -> list[Held]:
    """What the holders of leases are told; a lease without its users is left out.

    Raises:
        SecretUnreadableError: no key opens what a holder needs.

    """
    if not held:
        return []
    rows = await users.leased(connection, [lease.id for lease in held])
    return [
        held_answer(lease, rows[lease.id], now, sealer)
        for lease in held
        if lease.id in rows
    ]


def held_answer(
    lease: Lease, rows: Sequence[users.LeasedRow], now: datetime, sealer: Sealer
) -> Held:
    """What the holder of a lease is told. Raises SecretUnreadableError."""
    return Held(
        lease=lease,
        users=[_unsealed(row, now, sealer) for row in rows],
        expires_in=_seconds(now, lease.expires_at),
        waited=_seconds(lease.created_at, lease.granted_at) or 0.0,
        held_for=_seconds(lease.granted_at, now) or 0.0,
    )


async def _waiting(
    connection: Connection, lease: Lease, now: datetime, *, says_why: bool
) -> Waiting:
    blocking: Sequence[HoldingRow] = ()
    matching = None
    if says_why:
        blocking = await candidates.blocking(
            connection, lease.wants, limit=MAXIMUM_BLOCKERS
        )
        matching = await _matching(connection, lease.wants, now)
    return Waiting(
        lease=lease,
        place=await queue.place(connection, lease),
        waited=_seconds(lease.created_at, now) or 0.0,
        ask_again_within=_seconds(now, lease.poll_by) or 0.0,
        blockers=[
            Blocker(
                user_id=holding.user_id,
                login=holding.login,
                lease_id=holding.lease_id,
                holder=holding.holder,
                held_for=_seconds(holding.granted_at, now) or 0.0,
                expires_in=_seconds(now, holding.expires_at),
                kept=holding.kept_at is not None,
            )
            for holding in blocking
        ],
        matching=matching,
    )


async def _matching(
    connection: Connection, wants: Sequence[Want], now: datetime
) -> Matching | None:
    counts = await candidates.count_by_state(
        connection, wants, now=now, limit=MAXIMUM_COUNTED
    )
    if counts is None:
        return None
    quarantined = Quarantined()
    if counts["quarantined"]:
        quarantined = await candidates.quarantined_for(
            connection, wants, limit=FIRST_QUARANTINED
        )
    return Matching(counts["free"], counts["held"], counts["resting"], quarantined)


def _unsealed(row: users.LeasedRow, now: datetime, sealer: Sealer) -> GrantedUser:
    # Also without a key: what was sealed once is not left out in silence.
    return GrantedUser(
        id=row.id,
        login=row.login,
        password=(
            None
            if row.sealed_password is None
            else sealer.open(row.id, "password", row.sealed_password)
        ),
        secrets=sealer.open_map(row.id, "secrets", row.sealed_secrets),
        state=opened_state(row.id, row.sealed_state, row.state_expires_at, now, sealer),
        state_is_apart=row.state_is_apart and not _is_over(row.state_expires_at, now),
        project_id=row.project_id,
        env=row.env,
        domain=row.domain,
        labels=row.labels,
        fence=row.fence,
        dirty=row.dirty,
        want=row.want,
    )


def opened_state(
    user_id: UserId,
    sealed: bytes | None,
    expires_at: datetime | None,
    now: datetime,
    sealer: Sealer,
) -> str | None:
    """What the last holder of a user left, unless its time is over.

    Whoever gets none makes it anew, so one that no key opens is left out.
    """
    if sealed is None or _is_over(expires_at, now):
        return None
    try:
        return sealer.open(user_id, "state", sealed)
    except SecretUnreadableError as error:
        _log.warning("state left out", user_id=str(user_id), why=error.detail)
        return None


def _is_over(expires_at: datetime | None, now: datetime) -> bool:
    return expires_at is None or expires_at <= now


def check_told(by: Caller, lease: Lease, projects: Iterable[UUID | None]) -> None:
    """Keep the secrets of a lease from all but who took it.

    And from its holder what another project has made of a user since the grant.

    Raises:
        ForbiddenError: `by` is told nothing of users of these projects.

    """
    if not by.is_holder_of(lease):
        raise not_the_holder()
    if not all(map(by.knows, projects)):
        raise ForbiddenError(
            "A user of this lease was moved to another project, whose tokens alone are "
            "told its password now. Release the lease, and ask for another."
        )


def not_the_holder() -> ForbiddenError:
    return ForbiddenError(
        "The passwords of a lease are told to the token that took it, and to no "
        "admin. Break it, or ask for a lease of your own."
    )


async def over(connection: Connection, lease: Lease, now: datetime) -> BotfarmError:
    """That a lease is over, and why.

    A wait that ended since it could not be met is refused in the same way again, for
    as long as that is so.
    """
    if lease.knot is not None:
        return DeadlockError(lease.id, lease.knot)
    if lease.state == "cancelled" and lease.end_reason in HOPELESS:
        refusal = await why_impossible(connection, lease.wants, lease.project_id)
        if refusal is not None:
            return refusal
    return await ended(connection, lease, now)


async def ended(connection: Connection, lease: Lease, now: datetime) -> LeaseEndedError:
    """That a lease is over, and who has its users now."""
    [error] = await _all_ended(connection, [lease], now, most_named=MOST_NAMED)
    return error


async def _all_ended(
    connection: Connection, over: Sequence[Lease], now: datetime, *, most_named: int
) -> list[LeaseEndedError]:
    had = await _first_users(connection, over, most_named)
    its_users = [user for first in had.values() for user in first]
    holding = await holdings.holdings_of(connection, {it.id for it in its_users})
    passed_on = {
        lease.id: [
            PassedOnUser(
                user.id,
                user.login,
                _holder_told(lease.project_id, holding.get(user.id)),
            )
            for user in had.get(lease.id, ())
        ]
        for lease in over
    }
    return [
        LeaseEndedError(
            lease_id=lease.id,
            state=lease.state if is_ended(lease.state) else "expired",
            ended_ago=_seconds(lease.ended_at or lease.expires_at, now) or 0.0,
            reason=lease.end_reason,
            users=passed_on[lease.id],
        )
        for lease in over
    ]


async def _first_users(
    connection: Connection, over: Sequence[Lease], most: int
) -> dict[LeaseId, list[LeaseUser]]:
    """Some users of each lease, and no more than `most` in all."""
    first: defaultdict[LeaseId, list[LeaseUser]] = defaultdict(list)
    if most > 0:
        for user in await holdings.users_of(connection, [it.id for it in over]):
            if most > 0 and len(first[user.lease_id]) < MOST_NAMED_OF_LEASE:
                first[user.lease_id].append(user)
                most -= 1
    return first


def _holder_told(project_id: UUID | None, holding: HoldingRow | None) -> Holder | None:
    """Who has a user that a lease of the project had, unless it has left the project.

    Whoever may ask about the lease knows its project, and perhaps no other.
    """
    if holding is None or project_id not in {None, holding.project_id}:
        return None
    return holding.holder


async def lost(
    connection: Connection,
    names: Iterable[LeaseId],
    found: Mapping[LeaseId, Lease],
    now: datetime,
    *,
    most_named: int,
) -> dict[LeaseId, Lost]:
    """Why leases could not be renewed, by few statements however many they are.

    Of `most_named` users in all is told who has them now.
    """
    why = {name: _lost_though_live(name, found.get(name), now) for name in names}
    over = [found[name] for name, it in why.items() if it is None]
    errors = await _all_ended(connection, over, now, most_named=most_named)
    return {name: it for name, it in why.items() if it is not None} | {
        it.lease_id: Lost(it.lease_id, it.state, it.detail, it.ended_ago, it.users)
        for it in errors
    }


def _lost_though_live(
    lease_id: LeaseId, lease: Lease | None, now: datetime
) -> Lost | None:
    """Why a lease could not be renewed, unless it is over."""
    if lease is None:
        return Lost(lease_id, "unknown", f"There is no lease {lease_id}.", None, ())
    if lease.state == "waiting":
        detail = f"Lease {lease_id} is not granted yet."
        return Lost(lease_id, "waiting", detail, None, ())
    if lease.state == "held" and not has_lapsed(lease, now):
        how = "kept, and not renewed" if is_kept(lease) else "held under another fence"
        detail = f"Lease {lease_id} is {how}."
        return Lost(lease_id, "unknown", detail, None, ())
    return None


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return None if start is None or end is None else (end - start).total_seconds()
