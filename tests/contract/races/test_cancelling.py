"""Every operation, cancelled at each of its waits: a server that stops does that."""

from __future__ import annotations

import asyncio

import pytest
from support.parking import Parked, all_of, cancelled_at

from .crossroads import OPERATIONS, RELEASE, WAIT, Crossroads, Operation
from .encounters import LEAVE_ONCE, TAKE_BACK

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds after which a test gives up: nothing takes so long."""


async def cancel(crossroads: Crossroads, operation: Operation, at: int) -> bool:
    """Cancel at one wait, look at the farm, and call again; false behind the last."""
    await crossroads.set_up(operation)
    cancelled = await cancelled_at(at, crossroads.call(0, operation))
    await crossroads.check()
    again = await crossroads.call(0, operation)
    await crossroads.check((operation, again))
    return cancelled


@pytest.mark.parametrize(
    "operation", [*OPERATIONS, WAIT, LEAVE_ONCE, TAKE_BACK], ids=str
)
async def test_a_cancelled_operation_leaves_nothing_half_done_and_can_be_repeated(
    crossroads: Crossroads, operation: Operation
) -> None:
    at = 1
    while True:
        try:
            work = cancel(crossroads, operation, at)
            if not await asyncio.wait_for(work, PATIENCE):
                break
        except BaseException as error:
            raise AssertionError(f"{operation} cancelled at its wait {at}") from error
        at += 1
    assert at > 4


async def cancel_at_lock(crossroads: Crossroads, operation: Operation, at: int) -> bool:
    """Cancel what a parked release holds up; false if that did not hold it up."""
    await crossroads.set_up(RELEASE, operation)
    before = asyncio.all_tasks()
    async with Parked(crossroads.call(0, RELEASE)) as parked:
        assert await parked.comes_to(at)
        task = asyncio.create_task(crossroads.call(1, operation))
        held_up = await crossroads.holds_up(task)
        task.cancel()
        # SQLite's driver has a thread, which waits for the lock to the end.
        released = await parked.ends()
        await asyncio.wait({task})
    await all_of(asyncio.all_tasks() - before)
    assert task.cancelled() == held_up
    if held_up:
        await crossroads.check((RELEASE, released))
        again = await crossroads.call(1, operation)
        await crossroads.check((RELEASE, released), (operation, again))
    return held_up


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
async def test_an_operation_cancelled_at_the_lock_of_another_leaves_no_trace(
    crossroads: Crossroads, operation: Operation
) -> None:
    at = 1
    while not await asyncio.wait_for(
        cancel_at_lock(crossroads, operation, at), PATIENCE
    ):
        at += 1
