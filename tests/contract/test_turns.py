"""Calls that share a transaction, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    BotfarmError,
    LeaseEndedError,
    ShuttingDownError,
)
from botfarm_server.domain.models import Holder, LeaseId, TokenId, UserId, Want
from botfarm_server.services.answers import Held, Renewed, Waiting
from botfarm_server.services.calls import Asked, Call, Returned
from botfarm_server.services.leases import RENEWALS_AT_ONCE
from botfarm_server.services.settling import Settled
from botfarm_server.services.turns import MOST_TOGETHER, Pending
from botfarm_server.store import leases

from .conftest import STAGE, Farm

pytestmark = pytest.mark.anyio


def asked(
    lease_id: LeaseId | None = None, *wants: Want, prefer: Sequence[UserId] = ()
) -> Asked:
    name = lease_id or LeaseId(uuid.uuid4())
    return Asked(
        name, wants or [STAGE], ttl=60.0, wait=0.0, holder=Holder(), prefer=prefer
    )


def returned(answer: Held | Waiting) -> Returned:
    return Returned(answer.lease.id)


async def turn(farm: Farm, *calls: Call) -> list[Settled]:
    loop = asyncio.get_running_loop()
    together = [Pending(call, loop.create_future()) for call in calls]
    await farm.asking.turns.take(together)
    return [await pending.settled for pending in together]


def answers(settled: Sequence[Settled]) -> list[str]:
    return [type(it.answer).__name__ for it in settled]


async def consistent(farm: Farm) -> bool:
    """Who is in the queue waits, and who waits and is not away is in the queue."""
    return not await farm.count(
        "SELECT count(*) FROM queue_entries JOIN leases"
        " ON leases.id = queue_entries.lease_id WHERE leases.state <> 'waiting'"
    )


async def test_who_asks_for_many_users_shares_a_turn_with_few(farm: Farm) -> None:
    turns = farm.asking.turns
    for _ in range(5):
        turns._line_up(asked(None, replace(STAGE, count=100)))
    assert [len(turns._next()) for _ in range(3)] == [3, 2, 0]


async def test_who_has_sent_little_does_not_wait_for_who_has_sent_much(
    farm: Farm,
) -> None:
    turns = farm.asking.turns
    much = Caller("lease", TokenId(uuid.uuid4()))
    little = Caller("lease", address="::1")
    name = LeaseId(uuid.uuid4())
    of_much = [replace(asked(), by=much) for _ in range(2 * MOST_TOGETHER)]
    of_little = [replace(it, by=little) for it in (asked(name), Returned(name))]
    for call in [*of_much, *of_little]:
        turns._line_up(call)
    first, second, third, fourth = (turns._next() for _ in range(4))
    assert [it.call for it in first] == [
        of_much[0],
        of_little[0],
        *of_much[1 : MOST_TOGETHER - 1],
    ]
    # Of one lease there is one call in a turn, and a sender's are in their order.
    assert of_little[1] in [it.call for it in second[:2]]
    its = [it.call for it in [*first, *second, *third] if it.call.by == much]
    assert its == of_much
    assert not fourth


async def test_those_that_leave_together_leave_in_one_turn(farm: Farm) -> None:
    """Each in a transaction of its own keeps all others waiting for seconds."""
    await farm.add_user()
    held = await farm.held()
    gone = asyncio.Event()
    waiting = [replace(asked(), wait=50.0) for _ in range(20)]
    calls = [asyncio.create_task(farm.asking.ask(it, gone.wait)) for it in waiting]
    while farm.room.occupancy() < len(waiting):
        await asyncio.sleep(0.01)
    turns = 0
    queue = farm.database.queue

    @asynccontextmanager
    async def counted() -> AsyncIterator[tuple[AsyncConnection, datetime]]:
        nonlocal turns
        turns += 1
        async with queue() as locked:
            yield locked

    farm.database.queue = counted  # type: ignore[method-assign]
    gone.set()
    left = await asyncio.wait_for(asyncio.gather(*calls), 10.0)
    assert {type(it) for it in left} == {Waiting}
    assert turns <= 3
    assert not await farm.count("SELECT count(*) FROM queue_entries")
    await farm.release(held)
    assert isinstance(await farm.ask(lease_id=waiting[7].lease_id), Held)


async def test_the_renewals_of_one_sender_leave_connections_to_others(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    of = held.lease.fence
    assert of is not None
    at_once, most = 0, 0
    write = farm.database.write

    @asynccontextmanager
    async def counted() -> AsyncIterator[AsyncConnection]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        try:
            async with write() as connection:
                yield connection
        finally:
            at_once -= 1

    farm.database.write = counted  # type: ignore[method-assign]
    renewed = await asyncio.gather(
        *(farm.leases.renew([(held.lease.id, of)]) for _ in range(20))
    )
    assert {type(it) for [it] in renewed} == {Renewed}
    assert most == RENEWALS_AT_ONCE


async def test_what_is_given_back_goes_to_who_asks_in_the_same_turn(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    assert answers(await turn(farm, asked(), returned(held))) == ["Held", "NoneType"]


async def test_a_waiter_goes_before_who_asks_in_the_same_turn(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    waiting = await farm.waiting()
    assert answers(await turn(farm, asked(), returned(held))) == ["Lease", "NoneType"]
    assert isinstance(await farm.ask(lease_id=waiting.lease.id), Held)


async def test_a_waiter_that_asks_again_in_the_turn_that_grants_it_is_told(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    waiting = await farm.waiting()
    settled = await turn(farm, returned(held), asked(waiting.lease.id))
    assert answers(settled) == ["NoneType", "Held"]
    assert await consistent(farm)
    # It knows of its grant: no call that leaves may take it back any more.
    assert not await farm.count("SELECT count(*) FROM leases WHERE poll_by IS NOT NULL")


async def test_several_that_ask_first_are_served_in_their_order(farm: Farm) -> None:
    await farm.add_user()
    await farm.add_user()
    settled = await turn(farm, asked(), asked(), asked())
    assert answers(settled) == ["Held", "Held", "Lease"]
    users = [user.id for it in settled[:2] for user in _held(it).users]
    assert len(set(users)) == 2


async def test_a_refusal_is_for_its_own_call_alone(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    nobody = Want("stage", "canary")
    settled = await turn(
        farm,
        asked(None, nobody),
        asked(held.lease.id, nobody),
        asked(),
        Returned(LeaseId(uuid.uuid4())),
    )
    assert answers(settled) == [
        "NoSuchPoolError",
        "LeaseMismatchError",
        "Lease",
        "NoneType",
    ]


async def test_a_call_that_fails_does_not_fail_the_others(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = await farm.add_user("poisoned", labels={"is": "poisoned"})
    await farm.add_user("fine")
    await farm.database.dispose()
    bad = asked(None, Want("stage", "regular", labels={"is": "poisoned"}))
    good = asked()
    open_secret = farm.sealer.open

    def fail(user_id: object, *others: object) -> str:
        if user_id == poisoned.id:
            raise RuntimeError("cannot be opened")
        return open_secret(user_id, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(farm.sealer, "open", fail)
    loop = asyncio.get_running_loop()
    together = [Pending(call, loop.create_future()) for call in (bad, good)]
    await farm.asking.turns.take(together)
    with pytest.raises(RuntimeError, match="cannot be opened"):
        await together[0].settled
    assert isinstance((await together[1].settled).answer, Held)
    assert (await farm.users.get(poisoned.id)).state == "free"


async def test_calls_about_one_lease_take_turns(farm: Farm) -> None:
    await farm.add_user()
    name = LeaseId(uuid.uuid4())
    first, second, third = await asyncio.gather(
        farm.asking.turns.settle(asked(name)),
        farm.asking.turns.settle(asked(name)),
        farm.asking.turns.settle(Returned(name)),
    )
    assert _held(first).lease.fence == _held(second).lease.fence
    assert third.answer is None
    assert (await farm.users.find())[0].state == "free"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_lease_that_is_locked_holds_up_its_own_calls_alone(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    locked, other = await farm.held(), await farm.held()
    async with farm.database.write() as renewal:  # of a replica that is paused in it
        await leases.lock(renewal, locked.lease.id)
        ending = asyncio.create_task(farm.leases.end(locked.lease.id))
        breaking = asyncio.create_task(farm.leases.break_lease(locked.lease.id, "why"))
        settled = await turn(farm, returned(locked), returned(other), asked())
        assert settled[0].is_locked
        assert answers(settled[1:]) == ["NoneType", "Held"]
        assert not ending.done()
        assert not breaking.done()
    [ended, broken] = await asyncio.wait_for(
        asyncio.gather(ending, breaking, return_exceptions=True), 10.0
    )
    # One of them came first, and the other was told so.
    state = (await farm.leases.show(locked.lease.id)).lease.state
    assert (state, type(ended), type(broken)) in (
        ("released", type(None), LeaseEndedError),
        ("revoked", LeaseEndedError, type(None)),
    )


async def test_many_calls_at_once_are_all_settled(farm: Farm) -> None:
    for _ in range(5):
        await farm.add_user()

    async def use() -> None:
        settled = await farm.asking.turns.settle(asked())
        if isinstance(settled.answer, BotfarmError):
            raise settled.answer
        lease = settled.answer.lease if isinstance(settled.answer, Held) else None
        if lease is not None:
            await farm.asking.turns.settle(Returned(lease.id, fence=lease.fence))

    await asyncio.gather(*(use() for _ in range(100)))
    assert await consistent(farm)


def _held(settled: Settled) -> Held:
    assert isinstance(settled.answer, Held)
    return settled.answer


async def test_a_newcomer_takes_nothing_that_is_kept_for_who_comes_back(
    farm: Farm,
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    first = await farm.held()
    await farm.held()
    name = LeaseId(uuid.uuid4())
    gone = asyncio.Event()
    call = Asked(
        name, [Want("stage", "regular", count=2)], ttl=60.0, wait=50.0, holder=Holder()
    )
    asking = asyncio.create_task(farm.asking.ask(call, gone.wait))
    await farm.room.until_occupied()
    gone.set()
    await asking
    await farm.set_time("leases", "created_at", name, ago=60)
    await farm.release(first)
    settled = await turn(farm, asked(name, Want("stage", "regular", count=2)), asked())
    # One after the other the newcomer waits, since the free user is kept.
    assert answers(settled) == ["Lease", "Lease"]


async def test_who_asks_first_of_a_turn_is_served_first(farm: Farm) -> None:
    admin = Want("stage", "regular", labels={"role": "admin"})
    await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("alice")
    await farm.add_user("bob", domain="canary")
    await farm.held(admin)
    await farm.waiting(admin)
    settled = await turn(
        farm,
        asked(None, STAGE, Want("stage", "canary")),
        asked(None, Want("stage", "canary")),
    )
    assert answers(settled) == ["Held", "Lease"]


async def test_calls_go_on_after_a_turn_that_breaks(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    await farm.add_user()
    wake = farm.room.wake
    broken = iter([True])

    def fail_once(names: object) -> None:
        if next(broken, False):
            raise OSError("no space left on device")
        wake(names)  # type: ignore[arg-type]

    monkeypatch.setattr(farm.room, "wake", fail_once)
    first = asyncio.create_task(farm.asking.turns.settle(asked()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its turn has begun; the others wait for the next one
    others = [asyncio.create_task(farm.asking.turns.settle(asked())) for _ in range(3)]
    calls = asyncio.gather(first, *others, return_exceptions=True)
    _, *settled = await asyncio.wait_for(calls, 5.0)
    assert [type(it.answer).__name__ for it in settled if isinstance(it, Settled)] == [
        "Lease"
    ] * 3


async def test_calls_that_wait_for_a_turn_are_answered_when_the_server_ends(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = farm.asking.turns
    began = asyncio.Event()

    async def never(together: object) -> None:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(turns, "take", never)
    first = asyncio.create_task(turns.settle(asked()))
    await began.wait()
    second = asyncio.create_task(turns.settle(asked()))
    await asyncio.sleep(0)
    await turns.close(0.01)
    told = await asyncio.wait_for(
        asyncio.gather(first, second, return_exceptions=True), 5.0
    )
    assert [type(error) for error in told] == [ShuttingDownError] * 2
