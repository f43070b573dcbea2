"""Leases that end, as the tests told which had them in turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from botfarm_server.domain.lifecycle import is_kept
from botfarm_server.domain.models import Lease
from botfarm_server.store import lease_files
from botfarm_server.store.engine import Connection, after_commit
from botfarm_server.store.uses import record_uses


async def told_apart(
    connection: Connection, over: Sequence[Lease], now: datetime
) -> tuple[list[Lease], list[Lease]]:
    """The leases as their last tests have them: those in use, and those that are idle.

    The tests before are in the history, and no test takes one of them up from now on.
    What tells of them goes with the commit, and until then all can be told again.
    """
    names = [lease.id for lease in over]
    told = {file.lease_id: file for file in lease_files.withdraw(connection, names)}
    used: list[Lease] = []
    idle: list[Lease] = []
    for lease in over:
        file = told.get(lease.id)
        # Whose lease is kept, they are told apart already: their server died behind it.
        is_told = lease.state != "held" or is_kept(lease)
        if file is None or is_told or not file.uses:
            used.append(lease)
            continue
        last = await record_uses(connection, lease, file.uses, now)
        (idle if file.is_idle else used).append(last)
    after_commit(connection, partial(lease_files.remove, connection, told.keys()))
    return used, idle
