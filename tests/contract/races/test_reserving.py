"""Who reserves a place while another one reserves, or uses, the last one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import delete
from support.parking import Parked

from botfarm_server.domain.errors import PoolFullError
from botfarm_server.domain.models import ReservationId
from botfarm_server.services.credentials import UserDraft
from botfarm_server.store.tables import reservations

from .crossroads import ANY, Crossroads

pytestmark = pytest.mark.anyio

LIMIT = 3
"""The crossroads have two users, so there is one place."""
PLACE = ReservationId(uuid.UUID(int=1))


async def reserve(crossroads: Crossroads, which: int, place: ReservationId) -> bool:
    service = crossroads.replicas[which].farm.reservations
    try:
        await service.reserve(place, ANY, limit=LIMIT)
    except PoolFullError:
        return False
    return True


async def reserve_first(crossroads: Crossroads) -> bool:
    return await reserve(crossroads, 0, PLACE)


async def use(crossroads: Crossroads) -> bool:
    draft = UserDraft("made", "password", "stage", "regular", reservation_id=PLACE)
    await crossroads.replicas[0].farm.users.create(draft)
    return True


@pytest.mark.parametrize("operation", [reserve_first, use])
async def test_the_last_place_is_given_once_wherever_the_two_meet(
    crossroads: Crossroads, operation: Callable[[Crossroads], Coroutine[Any, Any, bool]]
) -> None:
    at, reached = 0, True
    while reached:
        at += 1
        await crossroads.set_up()
        async with crossroads.database.write() as connection:
            await connection.execute(delete(reservations))
        if operation is use:
            assert await reserve_first(crossroads)
        async with Parked(operation(crossroads)) as parked:
            reached = await parked.comes_to(at)
            other = asyncio.create_task(
                reserve(crossroads, 1, ReservationId(uuid.uuid4()))
            )
            await crossroads.holds_up(other)
            granted = [await parked.ends(), await other]
        assert sum(granted) == 1
    assert at > 4
