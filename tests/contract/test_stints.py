"""What workers of one run leave to each other while some of them wait."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.models import Holder, TokenId, Want
from botfarm_server.presence import PresenceWatch
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.reclaiming import PATIENT_WAIT, PAUSE, STINT, end_stints

from .conftest import Farm
from .idling import Use, Worker, worker_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

Call = asyncio.Task[Held | Waiting]


@pytest.fixture
def worker(farm: Farm, tmp_path: Path) -> Worker:
    return worker_of(farm, tmp_path)


@pytest.fixture
def fellow(worker: Worker) -> Worker:
    """Another worker of the same run."""
    return Worker(worker.farm, worker.directory, "gw1", worker.run_id)


@asynccontextmanager
async def waiting_call(
    farm: Farm,
    holder: Holder,
    *wants: Want,
    wait: float = 30.0,
    by: Caller = EVERYTHING,
) -> AsyncIterator[Call]:
    """A call that stays, and has its place in the queue."""
    before = farm.room.occupancy()
    call = asyncio.create_task(farm.ask(*wants, wait=wait, holder=holder, by=by))
    while farm.room.occupancy() == before and not call.done():
        await asyncio.sleep(0.005)
    try:
        yield call
    finally:
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def end_stints_after(farm: Farm, worker: Worker, later: timedelta) -> None:
    """The server's look at that time, without waiting for it."""
    idle = end_stints(worker.directory, await farm.now() + later)
    await farm.leases.end_idle(idle)


def goes_on(use: Use) -> bool:
    """Whether its worker has it for another test."""
    return use.file.leave() and use.file.take_up("next")


async def test_a_worker_has_its_stint_while_others_of_its_run_wait(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.use()
    async with waiting_call(farm, fellow.holder("waits")) as call:
        assert goes_on(use)
        await end_stints_after(farm, worker, STINT * 0.9)
        assert goes_on(use)
        await end_stints_after(farm, worker, STINT)
        assert not use.file.leave()
        await farm.leases.end(use.id)
        assert isinstance(await call, Held)


async def test_what_is_idle_for_longer_than_between_two_tests_is_not_waited_for(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle()
    async with waiting_call(farm, fellow.holder("waits")) as call:
        assert not call.done()
        await end_stints_after(farm, worker, PAUSE)
        assert isinstance(await call, Held)
    assert not use.file.take_up("next")


async def test_the_server_ends_stints_while_calls_wait(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    used, idle = await worker.use(), await worker.idle()
    watch = PresenceWatch(worker.directory, farm.leases)
    loop = asyncio.create_task(watch.run_stints())
    async with (
        waiting_call(farm, fellow.holder("waits")) as first,
        waiting_call(farm, fellow.holder("waits too")) as second,
    ):
        assert isinstance(await asyncio.wait_for(first, 10), Held)
        while goes_on(used):
            await asyncio.sleep(0.01)
        await farm.leases.end(used.id)
        assert isinstance(await asyncio.wait_for(second, 10), Held)
    assert not idle.file.take_up("next")
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)


async def _of_another_run(farm: Farm, worker: Worker, fellow: Worker) -> None:
    other = Worker(farm, worker.directory, "gw1")
    async with waiting_call(farm, other.holder("waits")):
        pass


async def _without_names(farm: Farm, worker: Worker, fellow: Worker) -> None:
    async with waiting_call(farm, Holder()):
        pass


async def _the_same_worker(farm: Farm, worker: Worker, fellow: Worker) -> None:
    async with waiting_call(farm, worker.holder("waits")):
        pass


async def _whose_call_does_not_stay(farm: Farm, worker: Worker, fellow: Worker) -> None:
    await farm.waiting(holder=fellow.holder("looks again later"))


async def _whose_time_is_short(farm: Farm, worker: Worker, fellow: Worker) -> None:
    async with waiting_call(farm, fellow.holder("waits"), wait=PATIENT_WAIT - 0.1):
        pass


@pytest.mark.parametrize(
    "wait",
    [
        _whose_time_is_short,
        _of_another_run,
        _without_names,
        _the_same_worker,
        _whose_call_does_not_stay,
    ],
)
async def test_nobody_else_waits_for_a_stint(
    farm: Farm,
    worker: Worker,
    fellow: Worker,
    wait: Callable[[Farm, Worker, Worker], Awaitable[None]],
) -> None:
    await farm.add_user("alice")
    use = await worker.use()
    await wait(farm, worker, fellow)
    assert not use.file.leave()


async def test_nobody_has_a_stint_while_another_run_waits_as_well(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob", labels={"rare": "yes"})
    rare = Want("stage", "regular", labels={"rare": "yes"})
    taken = await farm.held(rare)
    other = Worker(farm, worker.directory, "gw7")
    async with waiting_call(farm, other.holder("wants another one"), rare):
        use = await worker.use()
        assert not use.file.leave()
        asking = asyncio.create_task(fellow.use())
        while farm.room.occupancy() < 2:
            await asyncio.sleep(0.005)
        async with waiting_call(farm, worker.holder("waits behind")):
            await farm.leases.end(use.id)
            granted = await asking
            assert not granted.file.leave()
    await farm.release(taken)


@pytest.mark.parametrize("is_same", [True, False])
async def test_a_run_of_another_token_is_another_run(
    farm: Farm, worker: Worker, fellow: Worker, is_same: bool
) -> None:
    mine, other = (Caller("lease", TokenId(uuid.uuid4())) for _ in range(2))
    await farm.add_user("alice")
    use = await replace(worker, by=mine).use()
    by = mine if is_same else other
    async with waiting_call(farm, fellow.holder("waits"), by=by):
        assert goes_on(use) == is_same


async def test_who_has_no_name_is_of_no_run(farm: Farm, worker: Worker) -> None:
    await farm.add_user("alice")
    use = await worker.use_as(Holder(None, "gw0"))
    async with waiting_call(farm, Holder(None, "gw1")):
        assert not use.file.leave()


async def test_what_is_granted_while_fellows_wait_begins_a_stint(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    """Whoever waited for it before, and whoever waits behind."""
    await farm.add_user("alice")
    use = await worker.use()
    third = Worker(farm, worker.directory, "gw2", worker.run_id)
    asking = asyncio.create_task(fellow.use())
    await farm.room.until_occupied()
    async with waiting_call(farm, third.holder("waits behind")) as call:
        await end_stints_after(farm, worker, STINT)
        assert not use.file.leave()
        await farm.leases.end(use.id)
        granted = await asking
        assert goes_on(granted)
        async with waiting_call(farm, worker.holder("waits again")):
            assert goes_on(granted)
        await end_stints_after(farm, worker, STINT * 2)
        assert not granted.file.leave()
        await farm.leases.end(granted.id)
        assert isinstance(await call, Held)


async def test_when_nobody_waits_any_more_nothing_is_withdrawn(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    first, second = await worker.use(), await worker.use()
    asking = asyncio.create_task(fellow.use())
    await farm.room.until_occupied()
    await farm.leases.end(first.id)
    use = await asking
    assert goes_on(use)
    assert goes_on(second)


async def test_a_worker_that_waits_has_no_stint_with_what_it_is_granted_meanwhile(
    farm: Farm, worker: Worker, fellow: Worker
) -> None:
    """Or else a deadlock would be found for an idle lease: threads ask side by side."""
    both = [Want("stage", "regular", labels={"name": it}) for it in ("alice", "bob")]
    for name in ("alice", "bob"):
        await farm.add_user(name, labels={"name": name})
    alice, bob = [await fellow.use("has", want) for want in both]
    asking = asyncio.create_task(worker.use("a", both[0]))
    await farm.room.until_occupied()
    async with waiting_call(farm, worker.holder("b"), both[1]):
        await farm.leases.end(alice.id)
        use = await asking
        assert not use.file.leave()
    await farm.leases.end(bob.id)
