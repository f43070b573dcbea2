"""Every two operations that meet, the first of them parked at each of its waits."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass

import pytest
from support.locks import PostgresqlLockWatch
from support.parking import Parked, ended

from .crossroads import OPERATIONS, Crossroads, Operation
from .encounters import ENCOUNTERS

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
"""Seconds after which a test gives up: nothing takes so long."""

PAIRS = [
    (parked, passing)
    for parked, passing in itertools.product(OPERATIONS, repeat=2)
    # To ask again is to ask, but where it meets its first call.
    if "grant_again" not in {parked.name, passing.name}
    or {parked.name, passing.name} <= {"grant", "grant_again"}
] + [
    pair
    for one, other in ENCOUNTERS
    for pair in ([(one, other)] if one is other else [(one, other), (other, one)])
]


@dataclass(frozen=True, slots=True)
class Crossing:
    began: int
    """The wait of the parked one at which the other began, and that at which it
    could end. Where it was not held up they are the same."""
    ended: int


async def cross(
    crossroads: Crossroads, parked: Operation, passing: Operation, at: int
) -> Crossing | None:
    """Let one operation begin while the other stands at a wait.

    If it is held up, the parked one goes on, one wait after the other, until it gives
    the lock back. To begin at one of these would be the same: nobody sees anything of
    a transaction before it gives its locks back.

    `None` if the parked one ends before it comes to its wait of that number.
    """
    await crossroads.set_up(parked, passing)
    async with Parked(crossroads.call(0, parked)) as first:
        if not await first.comes_to(at):
            await crossroads.check((parked, await first.ends()))
            return None
        second = asyncio.create_task(crossroads.call(1, passing))
        until = at
        try:
            while await crossroads.holds_up(second):
                until += 1
                if not await first.comes_to(until):
                    break
            answers = await asyncio.gather(first.ends(), second)
        finally:
            await ended(second)
    await crossroads.check((parked, answers[0]), (passing, answers[1]))
    return Crossing(at, until)


def must_wait(crossroads: Crossroads, parked: Operation, passing: Operation) -> bool:
    """Whether the second has to wait for the first at some place."""
    if crossroads.database.is_sqlite:
        return True
    both_queue = parked.takes_queue and passing.takes_queue
    skips = "lapse" in passing.needs
    return both_queue or (parked.locks_lease and passing.locks_lease and not skips)


@pytest.mark.parametrize(("parked", "passing"), PAIRS, ids=str)
async def test_whoever_passes_a_parked_operation_breaks_no_rule(
    crossroads: Crossroads, parked: Operation, passing: Operation
) -> None:
    crossings: list[Crossing] = []
    at = 1
    while True:
        work = cross(crossroads, parked, passing, at)
        try:
            crossing = await asyncio.wait_for(work, PATIENCE)
        except BaseException as error:
            place = f"{parked} parked at its wait {at}, {passing} passing"
            raise AssertionError(place) from error
        if crossing is None:
            break
        crossings.append(crossing)
        at = max(crossing.ended, at + 1)
    assert at > 4
    was_held_up = any(it.ended > it.began for it in crossings)
    assert was_held_up == must_wait(crossroads, parked, passing)
    if isinstance(crossroads.watch, PostgresqlLockWatch):
        assert await crossroads.watch.deadlocks() == crossroads.deadlocks
