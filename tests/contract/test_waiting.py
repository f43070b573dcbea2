"""Those that wait: their order, and what wakes them, over both databases."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy import text

from botfarm_server.domain.errors import (
    NoSuchPoolError,
    ShuttingDownError,
    TooManyWaitingError,
    UserLockedError,
)
from botfarm_server.domain.models import Holder, LeaseId, Want
from botfarm_server.services import answers
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.calls import Asked

from .conftest import STAGE, Farm
from .test_query_plans import sent

pytestmark = pytest.mark.anyio


async def test_a_released_user_goes_to_the_oldest_waiter(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    waiters = [await farm.waiting() for _ in range(3)]
    assert [waiter.place for waiter in waiters] == [1, 2, 3]
    await farm.release(held)
    assert isinstance(await farm.ask(lease_id=waiters[0].lease.id), Held)
    second = await farm.waiting(lease_id=waiters[1].lease.id)
    assert second.place == 1


async def test_a_newcomer_does_not_overtake_a_waiter(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    waiter = await farm.waiting()
    await farm.release(held)
    newcomer = await farm.ask()
    assert isinstance(newcomer, Waiting)
    assert isinstance(await farm.ask(lease_id=waiter.lease.id), Held)


async def test_a_waiter_for_two_pools_takes_no_user_of_an_earlier_waiter_for_one(
    farm: Farm,
) -> None:
    prod = Want("prod", "canary")
    user = await farm.add_user()
    await farm.add_user(env="prod", domain="canary")
    lapsing, held = await farm.held(), await farm.held(prod)
    first = await farm.waiting()
    both = await farm.waiting(STAGE, prod)
    await farm.let_lapse(lapsing)
    await farm.expiry.look()
    await farm.end_rest(user.id)
    # Nobody has handed on the rested user yet when the other pool's user is freed.
    await farm.release(held)
    await farm.waiting(STAGE, prod, lease_id=both.lease.id)
    await farm.held(lease_id=first.lease.id)


async def test_a_waiter_for_two_projects_takes_no_user_of_an_earlier_waiter_for_one(
    farm: Farm,
) -> None:
    ours, theirs = (
        Want("stage", "regular", uuid.UUID(int=number)) for number in (1, 2)
    )
    user = await farm.add_user(project_id=ours.project_id)
    await farm.add_user(project_id=theirs.project_id)
    lapsing, held = await farm.held(ours), await farm.held(theirs)
    first = await farm.waiting(ours)
    both = await farm.waiting(Want("stage", "regular", count=2))
    await farm.let_lapse(lapsing)
    await farm.expiry.look()
    await farm.end_rest(user.id)
    # Nobody has handed on the rested user yet when the other project's user is freed.
    await farm.release(held)
    await farm.waiting(Want("stage", "regular", count=2), lease_id=both.lease.id)
    await farm.held(ours, lease_id=first.lease.id)


async def test_a_waiter_for_several_is_passed_until_its_patience_ends(
    farm: Farm,
) -> None:
    await farm.add_user()
    await farm.add_user()
    first = await farm.held()
    two = await farm.waiting(Want("stage", "regular", count=2))
    small = await farm.held()
    await farm.release(small)
    await farm.set_time("leases", "created_at", two.lease.id, ago=11.0)
    kept = await farm.waiting()
    await farm.release(first)
    assert (
        len(
            (
                await farm.held(
                    Want("stage", "regular", count=2), lease_id=two.lease.id
                )
            ).users
        )
        == 2
    )
    assert isinstance(await farm.ask(lease_id=kept.lease.id), Waiting)


async def test_what_was_kept_for_a_waiter_is_free_once_it_leaves(farm: Farm) -> None:
    await farm.add_user()
    await farm.add_user()
    await farm.held()
    two = await farm.waiting(Want("stage", "regular", count=2))
    await farm.set_time("leases", "created_at", two.lease.id, ago=11.0)
    later = await farm.waiting()
    await farm.release(two)
    assert isinstance(await farm.ask(lease_id=later.lease.id), Held)


async def test_a_waiter_whose_pool_vanishes_is_told_when_it_asks_again(
    farm: Farm,
) -> None:
    user = await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.users.quarantine(user.id, "locked out")
    with pytest.raises(NoSuchPoolError):
        await farm.ask(lease_id=waiting.lease.id)
    assert await farm.count("SELECT count(*) FROM queue_entries") == 0


async def test_a_cancelled_waiter_leaves_the_queue(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    first = await farm.waiting()
    second = await farm.waiting()
    await farm.release(first)
    assert (await farm.waiting(lease_id=second.lease.id)).place == 1


async def test_a_waiting_call_is_woken_by_the_release(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    call = asyncio.create_task(farm.held(wait=30.0))
    await farm.room.until_occupied()
    while await farm.count("SELECT count(*) FROM queue_entries") == 0:
        await asyncio.sleep(0)
    await farm.release(held)
    assert (await asyncio.wait_for(call, 10.0)).users


async def test_no_connection_is_held_while_waiting(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    calls = [asyncio.create_task(farm.ask(wait=30.0)) for _ in range(20)]
    while len(farm.room.waiting()) < 20 or farm.database.checked_out():
        await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert farm.room.waiting() == []


async def test_a_full_waiting_room_sends_away_who_would_wait(farm: Farm) -> None:
    await farm.add_user()
    farm.room._limit = 0
    held = await farm.held(wait=1.0)
    lease_id = LeaseId(uuid.uuid4())
    for _ in range(2):
        with pytest.raises(TooManyWaitingError):
            await farm.ask(lease_id=lease_id, wait=1.0)
    assert (await farm.waiting(lease_id=lease_id)).place == 1
    await farm.release(held)
    assert (await farm.held(lease_id=lease_id, wait=1.0)).users


async def test_a_closing_room_sends_waiting_calls_away(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    call = asyncio.create_task(farm.ask(wait=30.0))
    await farm.room.until_occupied()
    farm.room.close()
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(call, 10.0)


@pytest.mark.parametrize("have_left", [False, True])
async def test_a_closing_room_sends_many_away_without_a_statement_for_each(
    farm: Farm, have_left: bool
) -> None:
    """A server has to end in seconds, however many wait, or leave as it ends."""
    await farm.add_user()
    await farm.held()
    gone = asyncio.Event()
    asked = [
        Asked(LeaseId(uuid.uuid4()), [STAGE], ttl=60.0, wait=30.0, holder=Holder())
        for _ in range(20)
    ]
    calls = [asyncio.create_task(farm.asking.ask(it, gone.wait)) for it in asked]
    while farm.room.occupancy() < len(asked):
        await asyncio.sleep(0.01)
    with sent(farm.database) as statements:
        if have_left:
            gone.set()
        farm.room.close()
        told = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 9)
    assert {type(it) for it in told} == {ShuttingDownError}
    assert not statements


async def test_of_those_that_leave_the_queue_the_end_of_a_server_lets_go(
    farm: Farm,
) -> None:
    """Their places are kept for their time, as if the server had been killed."""
    await farm.add_user()
    await farm.held()
    gone = asyncio.Event()
    waiting = Asked(
        LeaseId(uuid.uuid4()), [STAGE], ttl=60.0, wait=30.0, holder=Holder()
    )
    call = asyncio.create_task(farm.asking.ask(waiting, gone.wait))
    await farm.room.until_occupied()
    async with farm.database.queue():
        gone.set()
        while farm.room.occupancy():
            await asyncio.sleep(0.01)
        farm.room.close()  # while it waits for its turn to leave
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(call, 10.0)
    assert await farm.count("SELECT count(*) FROM queue_entries") == 1


async def test_a_waiter_that_nobody_asks_about_is_abandoned(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.let_lapse(waiting)
    await farm.expiry.look()
    assert (await farm.leases.show(waiting.lease.id)).lease.state == "abandoned"
    assert await farm.count("SELECT count(*) FROM queue_entries") == 0


async def test_waiters_are_told_who_holds_what_they_wait_for(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.held(holder=Holder(test_id="tests/test_a.py::test_b", worker_id="gw0"))
    [blocker] = (await farm.waiting()).blockers
    assert blocker.login == "alice"
    assert blocker.holder.test_id == "tests/test_a.py::test_b"
    assert blocker.held_for >= 0


async def test_waiters_are_told_how_many_match_and_why_none_is_free(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each user once, whatever it is and however many wants it meets."""
    admin = Want("stage", "regular", labels={"role": "admin"})
    await farm.add_user("guest")
    for login in ("alice", "bob", "carol"):
        await farm.add_user(login, labels=admin.labels)
    held, lapses, broken = [await farm.held(admin) for _ in range(3)]
    await farm.let_lapse(lapses)
    await farm.expiry.look()
    await farm.users.quarantine(broken.users[0].id, "locked out")
    waiting = await farm.waiting(admin, STAGE)
    matching = waiting.matching
    assert matching is not None
    assert (matching.free, matching.held, matching.resting) == (1, 1, 1)
    [quarantined] = matching.quarantined.first
    assert (matching.quarantined.count, quarantined.reason) == (1, "locked out")
    assert [it.login for it in waiting.blockers] == [held.users[0].login]
    monkeypatch.setattr(answers, "MAXIMUM_COUNTED", 3)
    assert (await farm.waiting(admin, STAGE)).matching is None


async def test_many_waiters_are_served_in_the_order_of_their_arrival(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    waiters = [await farm.waiting() for _ in range(40)]
    served: list[LeaseId] = []
    while len(served) < len(waiters):
        await farm.release(held)
        [view] = await farm.leases.find(states=["held"], limit=10)
        served.append(view.lease.id)
        held = await farm.held(lease_id=view.lease.id)
    assert served == [waiter.lease.id for waiter in waiters]


async def test_a_waiter_that_nobody_asks_about_is_granted_nothing(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    absent = await farm.waiting()
    younger = await farm.waiting()
    await farm.let_lapse(absent)
    await farm.release(held)  # before the loop has looked
    assert isinstance(await farm.ask(lease_id=younger.lease.id), Held)


async def test_what_is_kept_stays_so_when_another_pool_has_to_be_looked_at(
    farm: Farm,
) -> None:
    def labelled(role: str, count: int = 1) -> Want:
        return Want("stage", "regular", labels={"role": role}, count=count)

    for login, role in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        await farm.add_user(login, labels={"role": role})
    await farm.add_user("canary", domain="canary")
    kept, _ = await farm.held(labelled("x")), await farm.held(labelled("x"))
    idle, _ = await farm.held(labelled("y")), await farm.held(labelled("y"))
    await farm.held(Want("stage", "canary"))
    pair = await farm.waiting(labelled("x", 2))
    await farm.set_time("leases", "created_at", pair.lease.id, ago=60)
    await farm.waiting(labelled("y", 2))
    await farm.waiting(labelled("y"), Want("stage", "canary"))
    await farm.release(kept)
    await farm.release(idle)
    with pytest.raises(UserLockedError):
        await farm.acquiring.acquire(kept.users[0].id, ttl=None, holder=Holder())


async def test_who_cannot_be_met_hides_nobody_that_can(farm: Farm) -> None:
    admin = Want("stage", "regular", labels={"role": "admin"})
    await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("plain")
    await farm.held(admin)
    plain = await farm.held()
    hopeless = [await farm.waiting(admin) for _ in range(5)]
    hopeful = await farm.waiting()
    hopeless.append(await farm.waiting(admin))
    await farm.release(plain)
    await farm.held(lease_id=hopeful.lease.id)
    for waiter in hopeless:
        await farm.waiting(admin, lease_id=waiter.lease.id)


async def test_users_are_kept_for_each_patient_waiter_of_a_kind(farm: Farm) -> None:
    three = Want("stage", "regular", count=3)
    held = []
    for _ in range(4):
        await farm.add_user()
        held.append(await farm.held())
    patient = [await farm.waiting(three) for _ in range(2)]
    for waiter in patient:
        await farm.set_time("leases", "created_at", waiter.lease.id, ago=60)
    later = await farm.waiting()
    for lease in held[:2]:
        await farm.release(lease)
    await farm.waiting(lease_id=later.lease.id)
    await farm.release(held[2])
    first = await farm.held(three, lease_id=patient[0].lease.id)
    await farm.release(held[3])
    await farm.waiting(lease_id=later.lease.id)
    await farm.release(first)
    await farm.held(three, lease_id=patient[1].lease.id)
    await farm.held(lease_id=later.lease.id)


async def test_who_is_not_asked_about_hides_nobody_that_asks_for_the_same(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    absent = [await farm.waiting() for _ in range(3)]  # more than the first page
    present = await farm.waiting()
    for waiter in absent:
        await farm.let_lapse(waiter)
    await farm.release(held)
    assert isinstance(await farm.ask(lease_id=present.lease.id), Held)


async def test_what_is_kept_for_one_is_not_lost_to_impatient_ones_of_its_kind(
    farm: Farm,
) -> None:
    """They are before it though they came later, by a clock that was set back."""
    two = Want("stage", "regular", count=2)
    await farm.add_user()
    await farm.add_user()
    free = await farm.held()
    await farm.held()
    for _ in range(2):
        await farm.waiting(two)
    patient = await farm.waiting(two)
    await farm.set_time("leases", "created_at", patient.lease.id, ago=20)
    later = await farm.waiting()
    await farm.release(free)
    await farm.waiting(lease_id=later.lease.id)


async def test_waiters_of_an_older_server_are_each_of_a_kind_of_their_own(
    farm: Farm,
) -> None:
    admin = Want("stage", "regular", labels={"role": "admin"})
    await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("plain")
    await farm.held(admin)
    plain = await farm.held()
    for _ in range(3):
        await farm.waiting(admin)
    hopeful = await farm.waiting()
    async with farm.database.write() as connection:
        await connection.execute(text("UPDATE queue_entries SET kind = NULL"))
    await farm.release(plain)
    await farm.held(lease_id=hopeful.lease.id)


async def test_all_users_that_are_freed_at_once_go_to_who_waits(farm: Farm) -> None:
    holder = Holder(run_id="run")
    for _ in range(6):
        await farm.add_user()
        await farm.held(holder=holder)
    waiters = [await farm.waiting() for _ in range(6)]
    await farm.leases.end_holder("run", None, outcome=None, clean=True)
    for waiter in waiters:
        await farm.held(lease_id=waiter.lease.id)
