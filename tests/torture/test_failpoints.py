"""A server that is stopped or killed at each failpoint, on purpose and once."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import suppress

import httpx
import pytest

from botfarm_server.store.lease_files import DIRECTORY, SUFFIX
from pytest_botfarm.client.errors import LeaseEndedError

from .laboratory import (
    CLAIM_WINDOW,
    LOOP_INTERVAL,
    Actor,
    Laboratory,
    dead,
    eventually,
    held_at,
)

pytestmark = pytest.mark.anyio


async def test_a_grant_whose_server_dies_after_the_commit_is_given_to_who_asks_again(
    laboratory: Laboratory,
) -> None:
    scene = await laboratory.scene()
    actor = scene.actor(*laboratory.servers)
    laboratory.first.control.arm("after-commit", "crash", "ask")
    lease = await actor.ask()
    assert await actor.use(lease)
    await actor.release(lease)
    await dead(laboratory.first)
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert verdict.leases == 1
    assert verdict.unknown_calls >= 1


async def test_a_release_whose_server_dies_after_the_commit_is_a_release(
    postgresql_laboratory: Laboratory,
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    actor = scene.actor(laboratory.second, *laboratory.servers)
    lease = await actor.ask()
    laboratory.first.control.arm("after-commit", "crash", "end")
    await actor.release(lease)
    # Nobody rests: the user is free at once, and not only once the lease lapses.
    after = scene.actor(laboratory.second)
    await after.release(await after.ask())
    await dead(laboratory.first)
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert verdict.losses == 0


async def test_a_release_whose_server_dies_before_the_commit_loses_no_test(
    sqlite_laboratory: Laboratory,
) -> None:
    """Of those that had the lease in turn, as its file tells."""
    laboratory = sqlite_laboratory
    scene = await laboratory.scene()
    actor = scene.actor(laboratory.first, *laboratory.servers)
    lease = await actor.ask()
    path = laboratory.folder / DIRECTORY / f"{lease.id}{SUFFIX}"
    path.parent.mkdir(exist_ok=True)
    now = time.time()
    told = [
        fact
        for test_id in ("first", "second", "third")
        for fact in ({"test_id": test_id, "began": now}, {"ended": now})
    ]
    path.write_text("\n".join(["-", *map(json.dumps, told), ""]), encoding="ascii")
    laboratory.first.control.arm("before-commit", "crash", "end")
    await actor.release(lease)
    await dead(laboratory.first)
    await scene.verdict()  # whose rules know a lease of one test alone
    async with httpx.AsyncClient(base_url=laboratory.second.url) as http:
        ended = (await http.get("/api/v1/leases?state=released")).json()
    tests = [found["holder"]["test_id"] for found in ended]
    assert tests == ["third", "second", "first"]
    assert not path.exists()


async def test_a_renewal_whose_server_dies_after_the_commit_keeps_the_lease(
    postgresql_laboratory: Laboratory,
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    actor = scene.actor(laboratory.second, *laboratory.servers)
    lease = await actor.ask()
    laboratory.first.control.arm("after-commit", "crash", "renew")
    for _ in range(2):
        await actor.keeper.beat({lease.id: lease.fence})
    until = actor.history.now() + CLAIM_WINDOW + LOOP_INTERVAL
    await eventually(lambda: actor.history.now() > until)
    assert await actor.use(lease)
    await actor.release(lease)
    await dead(laboratory.first)
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert verdict.losses == 0


async def leaves_before_the_answer(
    laboratory: Laboratory, actor: Actor, lease_id: uuid.UUID
) -> None:
    """A client is granted a user at the first server, and gone before it is told."""
    for server in laboratory.servers:
        server.control.arm("after-look", "hold", None)  # so that nothing expires
    laboratory.first.control.arm("after-commit", "hold", "ask")
    asking = asyncio.create_task(actor.ask(lease_id=lease_id))
    await held_at(laboratory.first, "after-commit")
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    # What it answers now comes after the end of that connection.
    await laboratory.first.ready()


async def test_a_grant_whose_caller_left_before_it_was_told_is_taken_back(
    laboratory: Laboratory,
) -> None:
    scene = await laboratory.scene()
    before, gone = scene.actor(laboratory.second), scene.actor(laboratory.first)
    await before.release_late(await before.ask())
    lease_id = uuid.uuid4()
    await leaves_before_the_answer(laboratory, gone, lease_id)
    laboratory.first.control.let_go("after-commit")
    await eventually(lambda: scene.is_waiting(lease_id))
    for server in laboratory.servers:
        server.control.clear()
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert (verdict.leases, verdict.taken_back) == (1, 1)


async def test_a_grant_that_a_server_dies_over_taking_back_lapses(
    postgresql_laboratory: Laboratory,
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    gone = scene.actor(laboratory.first)
    await leaves_before_the_answer(laboratory, gone, uuid.uuid4())
    laboratory.first.control.arm("before-commit", "crash", "ask")
    laboratory.first.control.let_go("after-commit")
    await dead(laboratory.first)
    laboratory.second.control.clear()
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert (verdict.leases, verdict.taken_back, verdict.losses) == (1, 0, 1)


async def test_a_server_that_dies_behind_the_queue_lock_leaves_nothing_behind(
    postgresql_laboratory: Laboratory,
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    actor = scene.actor(*laboratory.servers)
    laboratory.first.control.arm("after-queue-lock", "crash", "ask")
    await actor.release(await actor.ask())
    await dead(laboratory.first)
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert verdict.leases == 1


async def test_who_asks_while_another_has_the_queue_lock_comes_after_it(
    laboratory: Laboratory,
) -> None:
    scene = await laboratory.scene()
    one, two = scene.actor(laboratory.first), scene.actor(laboratory.second)
    laboratory.first.control.arm("after-queue-lock", "hold", "ask")
    first = asyncio.create_task(one.ask(wait=5.0))
    await held_at(laboratory.first, "after-queue-lock")
    second = asyncio.create_task(two.ask(wait=5.0))
    laboratory.first.control.let_go("after-queue-lock")
    await one.release(await first)
    await two.release(await second)
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert verdict.leases == 2


async def test_a_loop_that_is_late_after_its_look_ends_no_lease_again(
    laboratory: Laboratory,
) -> None:
    scene = await laboratory.scene()
    gone, next_one = scene.actor(laboratory.second), scene.actor(laboratory.second)
    for server in laboratory.servers:
        server.control.arm("after-look", "hold", None)
    await gone.ask()
    for server in laboratory.servers:
        await held_at(server, "after-look")
    # The other server's loop ends the lease, and the user goes on meanwhile.
    laboratory.second.control.let_go("after-look")
    held = await next_one.ask(wait=10.0)
    next_one.keep()
    laboratory.first.control.let_go("after-look")
    assert await next_one.use(held)
    await next_one.release(held)
    laboratory.first.control.clear()
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert (verdict.leases, verdict.losses) == (2, 1)


async def test_a_loop_that_dies_before_it_ends_what_it_found_leaves_it_to_others(
    postgresql_laboratory: Laboratory,
) -> None:
    laboratory = postgresql_laboratory
    scene = await laboratory.scene()
    gone, next_one = scene.actor(laboratory.second), scene.actor(laboratory.second)
    laboratory.second.control.arm("after-look", "hold", None)
    laboratory.first.control.arm("before-ending", "crash", None)
    await gone.ask()
    await dead(laboratory.first)
    laboratory.second.control.clear()
    await next_one.release(await next_one.ask(wait=10.0))
    verdict = await scene.verdict()
    assert verdict.violations == []
    assert (verdict.leases, verdict.losses) == (2, 1)


async def test_a_release_that_waits_for_the_loop_is_told_that_the_lease_is_over(
    laboratory: Laboratory,
) -> None:
    scene = await laboratory.scene()
    actor = scene.actor(laboratory.second)
    laboratory.second.control.arm("after-look", "hold", None)
    laboratory.first.control.arm("before-ending", "hold", None)
    lease = await actor.ask()
    await held_at(laboratory.first, "before-ending")
    releasing = asyncio.create_task(actor.release_late(lease))
    for server in laboratory.servers:
        server.control.clear()
    assert isinstance(await releasing, LeaseEndedError)
    assert (await scene.verdict()).violations == []
