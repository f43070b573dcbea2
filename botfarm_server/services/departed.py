"""Runs and workers that have ended: what they asked for may come late.

The end of one is remembered as a lease that is over, under an id that follows from its
name. So the statement that looks for the lease of a call finds it as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID, uuid5

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import LeaseEndedError
from botfarm_server.domain.models import Holder, Lease, LeaseId, TokenId
from botfarm_server.services.calls import Asked
from botfarm_server.store import leases
from botfarm_server.store.engine import Connection

LATE_CALLS = timedelta(seconds=60)
"""For how long a call may be under way still when the process is dead that sent it."""
HOLDER_ENDED = "its holder ended"

_ENDS = UUID("c1a7f4f0-6f0b-4a53-8a3c-0d9b7c5e2f16")
"""The namespace of these ids; any constant would do."""


def end_id(run_id: str, worker_id: str | None, whose: TokenId | None) -> LeaseId:
    """Under which the end of a run (no worker), or of a worker, is remembered.

    It counts for the token that told of it, since another one may name its runs alike;
    for all (`None`) if that may end the leases of all.
    """
    told = json.dumps([run_id, worker_id, whose and str(whose)])
    return LeaseId(uuid5(_ENDS, told))


def ends_of(call: Asked) -> list[LeaseId]:
    """Under which the end of its holder would be remembered."""
    run_id, worker_id = call.holder.run_id, call.holder.worker_id
    if run_id is None:
        return []
    workers = {None, worker_id}
    tokens = {None, call.by.token_id}
    return [end_id(run_id, worker, token) for worker in workers for token in tokens]


def came_late(
    call: Asked, found: Mapping[LeaseId, Lease], now: datetime
) -> LeaseEndedError | None:
    """That the holder had ended before its call arrived, if so it is."""
    for name in ends_of(call):
        end = found.get(name)
        if end is not None and end.ended_at is not None:
            ago = now - end.ended_at
            left = (LATE_CALLS - ago).total_seconds()
            if end.end_reason == HOLDER_ENDED and left > 0:
                reason = f"{HOLDER_ENDED}, and its names may be used in {left:.0f} s"
                return LeaseEndedError(
                    call.lease_id, "cancelled", ago.total_seconds(), reason, []
                )
    return None


async def remember(
    connection: Connection,
    run_id: str,
    worker_id: str | None,
    *,
    by: Caller,
    now: datetime,
) -> None:
    """Remember that a run or worker has ended. The caller has the queue lock."""
    may_end_all = by.may("admin") and by.project_id is None
    name = end_id(run_id, worker_id, None if may_end_all else by.token_id)
    if await leases.get(connection, name) is not None:
        await leases.date_end(connection, name, now)
        return
    end = Lease(
        id=name,
        state="cancelled",
        wants=(),
        holder=Holder(run_id, worker_id),
        ttl=None,
        created_at=now,
        ended_at=now,
        end_reason=HOLDER_ENDED,
        token_id=by.token_id,
    )
    await leases.insert_ended(connection, end)
