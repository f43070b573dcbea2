"""A lease and the queue, locked together, without the queue waiting for the lease.

A replica that is paused may have a lease locked for as long as its time limits allow.
Whoever waited for that row behind the queue lock would hold up every other lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from botfarm_server.domain.models import Lease, LeaseId
from botfarm_server.store import leases
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database


@asynccontextmanager
async def lease_behind_queue(
    database: Database, lease_id: LeaseId
) -> AsyncIterator[tuple[Connection, Lease | None, datetime]]:
    """A transaction with the queue lock, the lease if it exists, and the time then."""
    while True:
        async with database.queue() as (connection, _):
            lease, is_locked = await leases.lock_or_skip(connection, lease_id)
            if not is_locked:
                # A renewal may have had the row until now.
                yield connection, lease, await read_clock(connection)
                return
        await until_unlocked(database, lease_id)


async def until_unlocked(database: Database, lease_id: LeaseId) -> None:
    """Wait for a row that another one has, and let the queue go on meanwhile."""
    async with database.write() as connection:
        await leases.lock(connection, lease_id)
