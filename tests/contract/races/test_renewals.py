"""A renewal, which takes no queue lock, that meets those who end its lease."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.models import Holder, LeaseId
from botfarm_server.services.answers import Lost
from botfarm_server.store import leases
from botfarm_server.store.dialects import read_clock
from contract.conftest import Farm

pytestmark = pytest.mark.anyio


async def park_renewal(farm: Farm, lease_id: LeaseId) -> AsyncConnection:
    """A renewal that has locked the lease and has not moved the expiry yet."""
    connection = await farm.database.engine.connect()
    await connection.begin()
    assert await leases.lock_all(connection, [lease_id])
    return connection


async def finish_renewal(connection: AsyncConnection, lease_id: LeaseId) -> datetime:
    """When the lease was renewed, by the database's clock."""
    now = await read_clock(connection)
    expires_at = now + timedelta(seconds=60)
    assert await leases.extend(connection, [lease_id], now=now, expires_at=expires_at)
    await connection.commit()
    await connection.close()
    return now


async def until_somebody_waits_for_a_lock(farm: Farm, *, many: int = 1) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND wait_event IN ('transactionid', 'tuple')"
    )
    while await farm.count(waiting) < many:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("call", "state"), [("end", "released"), ("break_lease", "revoked")]
)
async def test_an_end_that_meets_a_renewal_waits_for_it_and_ends_the_lease(
    farm: Farm, call: str, state: str
) -> None:
    await farm.add_user()
    held = await farm.held()
    renewal = await park_renewal(farm, held.lease.id)
    more = {"reason": "stuck"} if call == "break_lease" else {}
    ending = asyncio.create_task(getattr(farm.leases, call)(held.lease.id, **more))
    await until_somebody_waits_for_a_lock(farm)
    renewed_at = await finish_renewal(renewal, held.lease.id)
    await asyncio.wait_for(ending, 10.0)
    lease = (await farm.leases.show(held.lease.id)).lease
    assert lease.state == state
    assert await farm.count("SELECT count(*) FROM users WHERE lease_id IS NULL") == 1
    # The renewal's answer was that the lease is held: it did not end before that.
    assert lease.ended_at is not None
    assert lease.ended_at >= renewed_at


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_loop_leaves_a_lease_alone_that_is_being_renewed(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    renewal = await park_renewal(farm, held.lease.id)
    await farm.expiry.look()
    await finish_renewal(renewal, held.lease.id)
    assert (await farm.leases.show(held.lease.id)).lease.state == "held"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_is_being_kept_is_neither_renewed_nor_ended_with_its_run(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held(holder=Holder("run", "gw0"))
    lease_id, fence = held.lease.id, held.users[0].fence
    keeping = await park_renewal(farm, lease_id)  # the same lock
    ending = asyncio.create_task(
        farm.leases.end_holder("run", None, outcome="crashed", clean=False)
    )
    renewing = asyncio.create_task(farm.leases.renew([(lease_id, fence)]))
    await until_somebody_waits_for_a_lock(farm, many=2)
    now = await read_clock(keeping)
    until = now + timedelta(seconds=600)
    await leases.keep(keeping, lease_id, now=now, expires_at=until, outcome="failed")
    await keeping.commit()
    await keeping.close()
    assert await asyncio.wait_for(ending, 10.0) == []
    [answer] = await asyncio.wait_for(renewing, 10.0)
    assert isinstance(answer, Lost)
    lease = (await farm.leases.show(lease_id)).lease
    assert (lease.state, lease.expires_at) == ("held", until)
