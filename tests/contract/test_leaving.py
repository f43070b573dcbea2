"""Callers that leave while they wait, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from botfarm_server.domain.models import Holder, LeaseId
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.calls import Asked, Returned

from .conftest import STAGE, Farm, build_farm
from .test_quarantine import ruled
from .test_turns import answers, asked, turn

pytestmark = pytest.mark.anyio


class Caller:
    """A call that waits for a lease, until its client leaves."""

    def __init__(self, farm: Farm, lease_id: LeaseId | None = None) -> None:
        self.id = lease_id or LeaseId(uuid.uuid4())
        self._gone = asyncio.Event()
        asked = Asked(self.id, [STAGE], ttl=60.0, wait=50.0, holder=Holder())
        self._call = asyncio.create_task(farm.asking.ask(asked, self._gone.wait))

    async def leave(self) -> Held | Waiting:
        self._gone.set()
        return await asyncio.wait_for(self._call, 10.0)

    async def answer(self) -> Held | Waiting:
        return await asyncio.wait_for(self._call, 10.0)


async def calling(farm: Farm, lease_id: LeaseId | None = None) -> Caller:
    caller = Caller(farm, lease_id)
    await farm.room.until_occupied()
    return caller


@asynccontextmanager
async def another_replica(database_url: str) -> AsyncIterator[Farm]:
    """Its releases wake nobody here."""
    farm = build_farm(database_url)
    yield farm
    await farm.database.dispose()


@pytest.mark.parametrize("wait", [0.0, 50.0])
async def test_what_was_granted_at_once_to_who_has_left_goes_on_at_once(
    farm: Farm, wait: float
) -> None:
    await farm.add_user()
    name = LeaseId(uuid.uuid4())
    call = Asked(name, [STAGE], ttl=60.0, wait=wait, holder=Holder())

    async def gone() -> None:
        """It has left before it is answered."""

    assert isinstance(await farm.asking.ask(call, gone), Waiting)
    second = await farm.held()
    assert not second.users[0].dirty
    await farm.release(second)
    assert isinstance(await farm.ask(lease_id=name), Held)
    # It was told: a duplicate that has left takes nothing back.
    assert isinstance(await farm.asking.ask(call, gone), Held)


async def test_a_caller_that_leaves_keeps_its_place_for_a_while(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    caller = await calling(farm)
    assert isinstance(await caller.leave(), Waiting)
    again = await farm.waiting(lease_id=caller.id)
    assert again.place == 1
    assert again.ask_again_within <= farm.leases.times.poll_grace


async def test_for_a_caller_that_left_nobody_looks_up_why_it_waited(
    farm: Farm,
) -> None:
    """Hundreds that leave at once would each have it looked up, for nobody."""
    await farm.add_user()
    await farm.held()
    stayed = await farm.waiting()
    assert stayed.blockers
    assert stayed.matching is not None
    left = await (await calling(farm)).leave()
    assert isinstance(left, Waiting)
    assert not left.blockers
    assert left.matching is None


async def test_nothing_is_granted_to_a_caller_that_left(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    caller = await calling(farm)
    younger = await farm.waiting()
    await caller.leave()
    await farm.release(held)
    second = await farm.ask(lease_id=younger.lease.id)
    assert isinstance(second, Held)
    assert (await farm.waiting(lease_id=caller.id)).place == 1
    await farm.release(second)
    assert isinstance(await farm.ask(lease_id=caller.id), Held)


async def test_a_caller_that_comes_back_has_its_place_before_younger_ones(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    caller = await calling(farm)
    younger = await farm.waiting()
    await caller.leave()
    assert (await farm.waiting(lease_id=caller.id)).place == 1
    await farm.release(held)
    assert isinstance(await farm.ask(lease_id=caller.id), Held)
    assert isinstance(await farm.ask(lease_id=younger.lease.id), Waiting)


async def test_who_left_is_granted_at_once_when_it_comes_back(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    caller = await calling(farm)
    await caller.leave()
    await farm.release(held)
    assert isinstance(await farm.ask(lease_id=caller.id), Held)


async def test_a_grant_that_its_caller_left_before_seeing_goes_on_at_once(
    farm: Farm, database_url: str
) -> None:
    alice = await farm.add_user()
    held = await farm.held()
    caller = await calling(farm)
    younger = await farm.waiting()
    async with another_replica(database_url) as other:
        await other.release(held)
    assert (await farm.users.get(alice.id)).lease_id == caller.id
    assert isinstance(await caller.leave(), Waiting)
    second = await farm.ask(lease_id=younger.lease.id)
    assert isinstance(second, Held)
    assert not second.users[0].dirty
    await farm.release(second)
    back = await farm.ask(lease_id=caller.id)
    assert isinstance(back, Held)
    assert back.lease.fence is not None
    assert second.lease.fence is not None
    assert back.lease.fence > second.lease.fence


async def test_a_grant_that_a_second_call_asks_for_is_not_taken_back(
    farm: Farm, database_url: str
) -> None:
    alice = await farm.add_user()
    held = await farm.held()
    caller = await calling(farm)
    async with another_replica(database_url) as other:
        await other.release(held)
        assert isinstance(await other.ask(lease_id=caller.id), Held)
    assert isinstance(await caller.leave(), Held)
    assert (await farm.users.get(alice.id)).lease_id == caller.id


async def test_the_leaving_of_an_older_call_changes_nothing_for_a_younger_one(
    farm: Farm,
) -> None:
    await farm.add_user()
    await farm.held()
    caller = await calling(farm)
    await farm.waiting(lease_id=caller.id)
    await caller.leave()
    assert await farm.count("SELECT count(*) FROM queue_entries") == 1


async def test_a_duplicate_that_leaves_takes_nothing_from_the_call_that_stays(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    stays = await calling(farm)
    duplicate = Caller(farm, stays.id)
    while not farm.room.has_several(stays.id):
        await asyncio.sleep(0)
    younger = await farm.waiting()
    await duplicate.leave()
    await farm.release(held)
    assert isinstance(await stays.answer(), Held)
    assert isinstance(await farm.ask(lease_id=younger.lease.id), Waiting)


async def test_a_belated_repetition_whose_caller_is_gone_takes_no_place_away(
    farm: Farm, database_url: str
) -> None:
    await farm.add_user()
    held = await farm.held()
    async with another_replica(database_url) as other:
        alive = await calling(other)
        # Sent before it, and late: its server was paused, its caller has gone on.
        belated = await calling(farm, alive.id)
        await belated.leave()
        await other.release(held)
        assert isinstance(await farm.ask(), Waiting)
        assert isinstance(await alive.answer(), Held)


async def test_a_waiter_leaves_the_queue_with_the_last_of_its_calls(
    farm: Farm, database_url: str
) -> None:
    await farm.add_user()
    await farm.held()
    async with another_replica(database_url) as other:
        first = await calling(other)
        second = await calling(farm, first.id)
        await second.leave()
        assert await farm.count("SELECT count(*) FROM queue_entries") == 1
        noted = (await other.leases.show(first.id)).lease.poll_by
        other.room.wake([first.id])  # for nothing, and it asks once more
        while (await other.leases.show(first.id)).lease.poll_by == noted:
            await asyncio.sleep(0)
        await first.leave()
        assert await farm.count("SELECT count(*) FROM queue_entries") == 0


async def test_a_shorter_repetition_does_not_end_a_longer_wait(farm: Farm) -> None:
    ruled(farm, poll_grace=0.2)
    await farm.add_user()
    await farm.held()
    caller = await calling(farm)
    await farm.waiting(lease_id=caller.id)
    await asyncio.sleep(0.4)
    await farm.expiry.look()
    again = await farm.ask(lease_id=caller.id)
    assert isinstance(again, Waiting)


async def test_who_comes_back_in_one_turn_is_served_by_number(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    older = await calling(farm)
    younger = await calling(farm)
    await older.leave()
    await younger.leave()
    await farm.release(held)
    settled = await turn(farm, asked(younger.id), asked(older.id))
    assert answers(settled) == ["Lease", "Held"]


async def test_who_comes_back_goes_before_younger_ones_of_the_turn(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    older = await calling(farm)
    younger = await farm.waiting()
    await older.leave()
    await turn(farm, Returned(held.lease.id), asked(older.id))
    assert isinstance(await farm.ask(lease_id=older.id), Held)
    assert isinstance(await farm.ask(lease_id=younger.lease.id), Waiting)
