"""Leases that their holders left idle, ended for whoever else wants their users.

While anybody waits for a user, no lease of it is idle nor becomes so: all are withdrawn
in the transaction in which a call begins to wait or waits on, and those that are idle
end in it. So nobody waits, is refused or is in a deadlock for an idle lease.

Workers of one run, while none of another one waits, let each other have a stint: a
lease is withdrawn for them half a second after its first test began, or once it is idle
for some hundredths of a second. What goes from worker to worker costs two calls, and
what stays for a stint costs them once for all the tests in it. (As an operating system
gives processes slices of time, and not single instructions.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.lifecycle import LeaseTimes, is_kept
from botfarm_server.domain.models import LeaseId, User, UserId
from botfarm_server.services.ending import LAST_TEST, Cause, Ending, end_leases
from botfarm_server.services.finding import user_of
from botfarm_server.services.news import News
from botfarm_server.store import lease_files, leases
from botfarm_server.store.engine import Connection, after_commit
from botfarm_server.store.lease_files import LeaseFile

STINT = timedelta(seconds=0.5)
"""For how long, from its first test on, a worker has a lease for which others of its
run wait, if no single test takes longer."""
PAUSE = timedelta(seconds=0.05)
"""For how long it may be idle meanwhile: between two tests, it is so for less."""
PATIENT_WAIT = 2.0
"""Seconds that a call waits at least which lets others have stints."""

WRONG_FILE = Cause(
    "released",
    clean=False,
    reason="what its holder has written of its tests cannot be read",
)


async def reclaim(
    connection: Connection,
    *,
    now: datetime,
    times: LeaseTimes,
    lease_ids: Collection[LeaseId] | None = None,
) -> list[Ending]:
    """Withdraw these leases, or all, and end those that are idle.

    What is in use goes on, and is not idle afterwards. Where nobody can tell whether a
    lease is in use, nor does anybody lock its file, it ends as well. The caller has the
    queue lock, and hands on what was ended.
    """
    told = lease_files.withdraw(connection, lease_ids)
    names = [file.lease_id for file in told if file.is_idle or file.is_wrong]
    if not names:
        return []
    wrong = {file.lease_id for file in told if file.is_wrong}
    held = [
        lease
        for lease in (await leases.lock_all(connection, names)).values()
        if lease.state == "held" and not is_kept(lease)
    ]
    # Its holder may have the lock by now, and has seen then that it is withdrawn.
    readable = [lease for lease in held if lease.id not in wrong]
    unreadable = [lease for lease in held if lease.id in wrong]
    return [
        *await end_leases(connection, readable, LAST_TEST, now=now, times=times),
        *await end_leases(connection, unreadable, WRONG_FILE, now=now, times=times),
    ]


async def reclaim_for_waiters(
    connection: Connection, *, now: datetime, times: LeaseTimes, are_patient: bool
) -> list[Ending]:
    """Withdraw all leases, but for stints, and end those that are idle.

    `are_patient` is whether the calls that begin to wait now will stay, so that this
    process ends the stints for them. The caller has the queue lock, as above.
    """
    directory = lease_files.directory_of(connection)
    if directory is None:
        return []
    told = lease_files.told_in(directory)
    spared = await _spared(connection, told, now, stints=are_patient)
    others = [file.lease_id for file in told if file.lease_id not in spared]
    return await reclaim(connection, now=now, times=times, lease_ids=others)


def end_stints(directory: Path, now: datetime) -> list[LeaseId]:
    """Withdraw what workers have had for a stint; which of that is idle.

    What is idle wants to be ended, in a transaction that looks again.
    """
    over = [
        file.lease_id
        for file in lease_files.told_in(directory)
        if not file.is_withdrawn and not _is_in_stint(file, now)
    ]
    told = lease_files.withdraw_in(directory, over) if over else []
    return [file.lease_id for file in told if file.is_idle or file.is_wrong]


async def _spared(
    connection: Connection, told: Collection[LeaseFile], now: datetime, *, stints: bool
) -> set[LeaseId]:
    """What is not withdrawn: all if nobody waits any more, or else what is in a stint,
    if all that wait are of one run.

    A worker that waits itself has no stint, so that no deadlock is found for an idle
    lease. What nobody has asked for yet is looked at by the call that does.
    """
    young = {file.lease_id for file in told if _is_in_stint(file, now)}
    live = await leases.live(connection, young) if told else []
    waiting = [it for it in live if it.state == "waiting"]
    if not waiting:
        return {file.lease_id for file in told}
    runs = {(it.token_id, it.run_id) for it in waiting}
    if not stints or len(runs) > 1 or any(it.run_id is None for it in waiting):
        return set()
    waits = Counter(it.worker_id for it in waiting)
    return young - {
        it.lease_id
        for it in live
        if (it.token_id, it.run_id) not in runs
        or waits[it.worker_id] > (it.state == "waiting")
    }


def _is_in_stint(file: LeaseFile, now: datetime) -> bool:
    if file.is_withdrawn or not file.is_readable:
        return False
    if not file.uses:
        return True  # nobody has it yet
    last = file.uses[-1]
    is_idle_for_long = last.ended is not None and now - last.ended >= PAUSE
    # It may have begun since the clock was read, and the clock may have been put back.
    return abs(now - file.uses[0].began) < STINT and not is_idle_for_long


async def user_unless_idle(
    connection: Connection,
    user_id: UserId,
    *,
    now: datetime,
    times: LeaseTimes,
    news: News,
    by: Caller = EVERYTHING,
) -> User:
    """A user, taken from a lease that is idle; no other one will be idle with it.

    Whoever changes a user begins here: the next test is to have it as it is then. The
    caller has the queue lock. Raises UserNotFoundError.
    """
    user = await user_of(connection, user_id, now, by)
    if user.lease_id is None:
        return user
    endings = await reclaim(connection, now=now, times=times, lease_ids=[user.lease_id])
    after_commit(connection, partial(news.tell, endings))
    return await user_of(connection, user_id, now, by)
