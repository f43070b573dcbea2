"""Leases that their holders left idle, ended for whoever else wants their users.

While anybody waits for a user, no lease of it is idle nor becomes so: all are withdrawn
in the transaction in which a call begins to wait or waits on, and those that are idle
end in it. So nobody waits, is refused or is in a deadlock for an idle lease.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import partial

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.lifecycle import LeaseTimes, is_kept
from botfarm_server.domain.models import LeaseId, User, UserId
from botfarm_server.services.ending import LAST_TEST, Cause, Ending, end_leases
from botfarm_server.services.finding import user_of
from botfarm_server.services.news import News
from botfarm_server.store import lease_files, leases
from botfarm_server.store.engine import Connection, after_commit

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
