"""The end of leases, whoever or whatever ends them."""

from __future__ import annotations

from datetime import datetime

from botfarm_server.domain.lifecycle import (
    LeaseTimes,
    lapsed_state,
    leaves_dirty,
    rests_until,
)
from botfarm_server.domain.models import EndedState, Lease, Outcome, Pool
from botfarm_server.store import leases
from botfarm_server.store.engine import Connection


async def end_lease(
    connection: Connection,
    lease: Lease,
    state: EndedState,
    *,
    now: datetime,
    times: LeaseTimes,
    outcome: Outcome | None = None,
    clean: bool = True,
    reason: str | None = None,
) -> set[Pool]:
    """End a waiting or held lease as it was read; the pools to be handed on.

    One guarded update decides. Where the lease has changed since it was read, nothing
    happens and no pool is returned. The caller has the queue lock.
    """
    ended = await leases.end(
        connection, lease, state, now=now, outcome=outcome, reason=reason
    )
    if not ended:
        return set()
    if lease.state == "waiting":
        # What was kept for it is free for others now.
        return {want.pool for want in lease.wants}
    return await leases.free_users(
        connection,
        lease.id,
        now=now,
        rest_until=rests_until(now, state, times),
        dirty=leaves_dirty(state, outcome, clean=clean),
    )


async def end_lapsed(
    connection: Connection, lease: Lease, *, now: datetime, times: LeaseTimes
) -> set[Pool]:
    """End a lease whose time is over."""
    reason = (
        "nobody asked about it any more"
        if lease.state == "waiting"
        else "it was not renewed in time"
    )
    return await end_lease(
        connection,
        lease,
        lapsed_state(lease.state),
        now=now,
        times=times,
        clean=False,
        reason=reason,
    )
