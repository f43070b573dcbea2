"""Every mutant of server and client is caught, in a scene that forces its mistake."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from pytest_botfarm.client.errors import LeaseEndedError

from .failpoints import Point
from .laboratory import CLAIM_WINDOW, LOOP_INTERVAL, Laboratory, eventually, held_at
from .mutants import MUTANTS
from .run import NO_DEADLINE
from .violations import TOLERANCE

pytestmark = pytest.mark.anyio

sound_and_mutated = pytest.mark.parametrize("mutated", [False, True])


def switch(laboratory: Laboratory, name: str, *, on: bool = True) -> None:
    assert name in MUTANTS
    for server in laboratory.servers:
        server.control.switch(name, on=on)


@sound_and_mutated
async def test_read_then_write_is_caught(
    postgresql_laboratory: Laboratory, mutated: bool
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    switch(laboratory, "read-then-write", on=mutated)
    one, two = scene.actor(laboratory.first), scene.actor(laboratory.second)
    laboratory.first.control.arm("after-read", "hold", "ask")
    slow = asyncio.create_task(one.ask())
    await held_at(laboratory.first, "after-read")
    asking = asyncio.create_task(two.ask(wait=10.0))
    if mutated:
        await asking  # it does not wait for the lock of the other one
    laboratory.first.control.let_go("after-read")
    held = await slow
    if not mutated:
        await one.release(held)
    [same] = (await asking).users
    assert same.id == held.users[0].id
    broken = (await scene.verdict()).broken()
    expected = {"two holders", "two clients believed"} if mutated else set()
    assert broken & {"two holders", "two clients believed"} == expected


@sound_and_mutated
async def test_release_by_user_id_alone_is_caught(
    laboratory: Laboratory, mutated: bool
) -> None:
    scene = await laboratory.scene()
    switch(laboratory, "release-by-user", on=mutated)
    paused, holder, third = (scene.actor(laboratory.first) for _ in range(3))
    lost = await paused.ask()
    held = await holder.ask(wait=10.0)
    holder.keep()
    refusal = await paused.release_late(lost)
    assert mutated == (not isinstance(refusal, LeaseEndedError))
    waiting = asyncio.create_task(third.ask(wait=10.0))
    if mutated:
        await waiting  # it is granted what another one holds
    await holder.release(held)
    await third.release(await waiting)
    assert ("two holders" in (await scene.verdict()).broken()) == mutated


@sound_and_mutated
async def test_the_start_of_the_transaction_in_place_of_the_clock_is_caught(
    postgresql_laboratory: Laboratory, mutated: bool
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    first, second = scene.actor(laboratory.second), scene.actor(laboratory.first)
    held = await first.ask()
    laboratory.first.control.switch("start-of-transaction", on=mutated)
    # The sound piece reads the clock behind the lock, and so stops there.
    point: Point = "before-queue-lock" if mutated else "after-queue-lock"
    laboratory.first.control.arm(point, "hold", "ask")
    asking = asyncio.create_task(second.ask(wait=10.0))
    await held_at(laboratory.first, point)
    releasing = asyncio.create_task(first.release(held))
    if mutated:
        await releasing
    laboratory.first.control.let_go(point)
    await releasing
    await second.release(await asking)
    assert ("two holders" in (await scene.verdict()).broken()) == mutated


@sound_and_mutated
async def test_a_sweeper_that_updates_by_ids_read_before_is_caught(
    postgresql_laboratory: Laboratory, mutated: bool
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    laboratory.first.control.switch("stale-sweeper", on=mutated)
    actor = scene.actor(laboratory.second)
    # A renewal in time, whose commit comes only when the lease seems to have lapsed.
    laboratory.second.control.arm("before-commit", "hold", "renew")
    point: Point = "before-ending" if mutated else "after-look"
    laboratory.first.control.arm(point, "hold", None)
    lease = await actor.ask()
    actor.keep()
    await held_at(laboratory.second, "before-commit")
    await held_at(laboratory.first, point)
    laboratory.second.control.let_go("before-commit")
    # Its client has given up by then: what counts is that the renewal is committed.
    await eventually(lambda: scene.expires_in(lease, 2 * CLAIM_WINDOW))
    laboratory.first.control.let_go(point)
    if not mutated:
        await actor.release(lease)
    broken = (await scene.verdict()).broken()
    assert ("expired before its time" in broken) == mutated


@sound_and_mutated
async def test_an_id_that_cannot_be_repeated_is_caught(
    laboratory: Laboratory, mutated: bool
) -> None:
    scene = await laboratory.scene(users=2)
    switch(laboratory, "no-repeatable-id", on=mutated)
    actor = scene.actor(*laboratory.servers)
    lease_id = uuid.uuid4()
    first = await actor.ask(lease_id=lease_id)
    again = await actor.ask(lease_id=lease_id)
    assert mutated == (first.fence != again.fence)
    await actor.release_late(first)
    broken = (await scene.verdict()).broken()
    expected = {"grant that nobody knows", "told what is not so"} if mutated else set()
    assert broken == expected


@sound_and_mutated
async def test_a_hand_on_that_does_nothing_is_caught(
    laboratory: Laboratory, mutated: bool
) -> None:
    scene = await laboratory.scene()
    switch(laboratory, "hand-on-does-nothing", on=mutated)
    holder, other = scene.actor(laboratory.first), scene.actor(laboratory.second)
    held = await holder.ask()
    waiting_id = uuid.uuid4()
    waiting = asyncio.create_task(other.ask(wait=60.0, lease_id=waiting_id))
    await eventually(lambda: scene.is_waiting(waiting_id))
    began = holder.history.now()
    await holder.release(held)
    released = holder.history.now()
    if not mutated:
        await other.release(await waiting)
        assert (await scene.verdict()).violations == []
        return
    # Longer than the checker allows: it goes by the loop, and by what releases took.
    until = released + 3 * LOOP_INTERVAL + 3 * (released - began)
    await eventually(lambda: holder.history.now() > until)
    await other.end(waiting_id)
    with pytest.raises(LeaseEndedError):
        await waiting
    assert (await scene.verdict(slack=0.0)).broken() == {"waited for what was free"}


@sound_and_mutated
async def test_a_client_without_a_deadline_is_caught(
    laboratory: Laboratory, mutated: bool
) -> None:
    scene = await laboratory.scene()
    link = await scene.proxy(laboratory.first)
    cut_off = scene.actor(link, has_deadline=not mutated)
    other = scene.actor(laboratory.second)
    lease = await cut_off.ask()
    assert await cut_off.use(lease)
    # Its heartbeats reach nobody, though the account itself can still be reached.
    link.disturb("drop")
    cut_off.keep()
    held = await other.ask(wait=10.0)
    until = cut_off.history.now() + 2 * TOLERANCE
    await eventually(lambda: cut_off.history.now() > until)
    assert await cut_off.use(lease) == mutated
    await other.release(held)
    assert ("used without a lease" in (await scene.verdict()).broken()) == mutated


def test_no_mutant_is_without_a_test() -> None:
    tests = {
        "read-then-write": test_read_then_write_is_caught,
        "release-by-user": test_release_by_user_id_alone_is_caught,
        "start-of-transaction": (
            test_the_start_of_the_transaction_in_place_of_the_clock_is_caught
        ),
        "stale-sweeper": test_a_sweeper_that_updates_by_ids_read_before_is_caught,
        "no-repeatable-id": test_an_id_that_cannot_be_repeated_is_caught,
        "hand-on-does-nothing": test_a_hand_on_that_does_nothing_is_caught,
        NO_DEADLINE: test_a_client_without_a_deadline_is_caught,
    }
    assert set(tests) == {*MUTANTS, NO_DEADLINE}
