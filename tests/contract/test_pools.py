"""Checks of wants, each of which may take long, leave the database to leases."""

from __future__ import annotations

import asyncio

import pytest

from botfarm_server.domain.models import Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services.pools import PoolService

from .conftest import Farm

pytestmark = pytest.mark.anyio


async def test_checks_take_one_connection_however_many_there_are(farm: Farm) -> None:
    pools = PoolService(farm.database, Vocabulary(("stage",), ("regular",)))
    leases = [[Want("stage", "regular")]] * 3
    calls = [asyncio.create_task(pools.check(leases)) for _ in range(5)]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, farm.database.checked_out())
        await asyncio.sleep(0)
    assert most == 1
    assert [len(call.result()) for call in calls] == [3] * 5
