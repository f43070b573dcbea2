"""What a lease promises, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from botfarm_server.domain.errors import (
    LeaseEndedError,
    LeaseMismatchError,
    NoSuchPoolError,
    PoolTooSmallError,
    ShuttingDownError,
    TooManyWaitingError,
)
from botfarm_server.domain.models import Fence, Holder, LeaseId, Want
from botfarm_server.services.answers import Held, Lost, Renewed, Waiting
from botfarm_server.services.asking import Asked
from botfarm_server.store import leases
from botfarm_server.store.dialects import read_clock

from .conftest import STAGE, Farm

pytestmark = pytest.mark.anyio


async def test_a_free_user_is_held_at_once_with_its_password(farm: Farm) -> None:
    user = await farm.add_user("alice")
    held = await farm.held()
    assert [it.login for it in held.users] == ["alice"]
    assert held.users[0].password == "password"
    assert held.users[0].id == user.id
    assert held.expires_in is not None
    assert held.expires_in <= farm.leases.times.claim_window


async def test_a_held_user_has_no_second_holder(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    assert waiting.place == 1


async def test_asking_again_gives_the_same_lease(farm: Farm) -> None:
    await farm.add_user()
    await farm.add_user()
    lease_id = LeaseId(uuid.uuid4())
    first = await farm.held(lease_id=lease_id)
    again = await farm.held(lease_id=lease_id)
    assert [it.id for it in again.users] == [it.id for it in first.users]
    assert again.lease.fence == first.lease.fence
    assert await farm.count("SELECT count(*) FROM grants") == 1


async def test_the_same_id_with_other_wants_is_refused(farm: Farm) -> None:
    await farm.add_user()
    await farm.add_user(domain="canary")
    held = await farm.held()
    with pytest.raises(LeaseMismatchError):
        await farm.ask(Want("stage", "canary"), lease_id=held.lease.id)


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


async def test_fences_grow_with_every_grant(farm: Farm) -> None:
    await farm.add_user()
    fences: list[int] = []
    for _ in range(5):
        held = await farm.held()
        fences.append(held.users[0].fence)
        await farm.release(held)
    assert fences == sorted(set(fences))


async def test_several_users_are_granted_all_or_none(farm: Farm) -> None:
    for _ in range(3):
        await farm.add_user()
    one = await farm.held()
    three = await farm.waiting(Want("stage", "regular", count=3))
    assert await farm.count("SELECT count(*) FROM users WHERE lease_id IS NULL") == 2
    await farm.release(one)
    granted = await farm.held(
        Want("stage", "regular", count=3), lease_id=three.lease.id
    )
    assert len({user.id for user in granted.users}) == 3


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


async def test_labels_choose_among_users(farm: Farm) -> None:
    await farm.add_user("plain")
    await farm.add_user("admin", labels={"role": "admin", "plan": "free"})
    held = await farm.held(Want("stage", "regular", labels={"role": "admin"}))
    assert held.users[0].login == "admin"


async def test_a_broad_want_leaves_the_labelled_user_to_others(farm: Farm) -> None:
    await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("plain")
    assert (await farm.held()).users[0].login == "plain"


async def test_two_wants_that_compete_for_a_user_are_both_met(farm: Farm) -> None:
    await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("plain")
    held = await farm.held(STAGE, Want("stage", "regular", labels={"role": "admin"}))
    assert [(user.login, user.want) for user in held.users] == [
        ("plain", 0),
        ("admin", 1),
    ]


async def test_a_project_narrows_a_want(farm: Farm) -> None:
    project = uuid.uuid4()
    await farm.add_user("other", project_id=uuid.uuid4())
    await farm.add_user("ours", project_id=project)
    held = await farm.held(Want("stage", "regular", project_id=project))
    assert held.users[0].login == "ours"


async def test_a_pool_that_does_not_exist_is_named_with_the_nearest(farm: Farm) -> None:
    await farm.add_user(domain="canary")
    with pytest.raises(NoSuchPoolError) as refusal:
        await farm.ask()
    assert list(refusal.value.pools) == [
        {"env": "stage", "domain": "canary", "users": 1}
    ]
    assert "stage/canary (1 users)" in refusal.value.detail


async def test_more_users_than_exist_are_refused_at_once(farm: Farm) -> None:
    await farm.add_user()
    with pytest.raises(PoolTooSmallError) as refusal:
        await farm.ask(Want("stage", "regular", count=2))
    assert (refusal.value.asked, refusal.value.existing) == (2, 1)


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


async def test_releasing_again_is_no_error(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    await farm.release(held)
    await farm.release(held)
    assert (await farm.leases.show(held.lease.id)).lease.state == "released"


async def test_a_request_that_arrives_after_its_release_stays_ended(
    farm: Farm,
) -> None:
    await farm.add_user()
    lease_id = LeaseId(uuid.uuid4())
    await farm.leases.end(lease_id)
    with pytest.raises(LeaseEndedError):
        await farm.ask(lease_id=lease_id)
    assert await farm.count("SELECT count(*) FROM grants") == 0


async def test_an_old_fence_does_not_release(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    with pytest.raises(LeaseMismatchError):
        await farm.leases.end(held.lease.id, fence=Fence(held.users[0].fence - 1))
    assert (await farm.leases.show(held.lease.id)).lease.state == "held"


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


async def test_a_caller_that_leaves_keeps_its_place_for_a_while(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    lease_id = LeaseId(uuid.uuid4())
    left = asyncio.Event()
    call = asyncio.create_task(
        farm.asking.ask(
            Asked(lease_id, [STAGE], ttl=60.0, wait=50.0, holder=Holder()), left.wait
        )
    )
    await farm.room.until_occupied()
    left.set()
    assert isinstance(await asyncio.wait_for(call, 10.0), Waiting)
    again = await farm.waiting(lease_id=lease_id)
    assert again.place == 1
    assert again.ask_again_within <= farm.leases.times.poll_grace


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


async def test_renewal_moves_the_expiry_to_a_full_ttl(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held(ttl=60.0)
    [renewed] = await farm.leases.renew([(held.lease.id, held.users[0].fence)])
    assert renewed == Renewed(held.lease.id, 60.0)
    again = await farm.held(lease_id=held.lease.id)
    assert again.expires_in is not None
    assert again.expires_in > 50.0


async def test_a_lapsed_lease_cannot_be_renewed_and_says_who_has_the_user(
    farm: Farm,
) -> None:
    user = await farm.add_user("alice")
    lost = await farm.held()
    await farm.let_lapse(lost)
    await farm.expiry.look()
    await farm.end_rest(user.id)
    next_one = await farm.held(holder=Holder(test_id="test_b", worker_id="gw1"))
    [answer] = await farm.leases.renew([(lost.lease.id, lost.users[0].fence)])
    assert isinstance(answer, Lost)
    assert answer.state == "expired"
    assert answer.users[0].login == "alice"
    assert answer.users[0].holder == next_one.lease.holder


async def test_a_lapsed_lease_is_not_renewed_before_the_loop_sees_it(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    await farm.let_lapse(held)
    [answer] = await farm.leases.renew([(held.lease.id, held.users[0].fence)])
    assert isinstance(answer, Lost)
    assert answer.state == "expired"


@pytest.mark.parametrize("fence_change", [-1, 1])
async def test_another_fence_does_not_renew(farm: Farm, fence_change: int) -> None:
    await farm.add_user()
    held = await farm.held()
    fence = Fence(held.users[0].fence + fence_change)
    [answer] = await farm.leases.renew([(held.lease.id, fence)])
    assert isinstance(answer, Lost)


async def test_an_unknown_and_a_waiting_lease_are_not_renewed(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    answers = await farm.leases.renew(
        [(LeaseId(uuid.uuid4()), Fence(1)), (waiting.lease.id, Fence(1))]
    )
    assert [it.state for it in answers if isinstance(it, Lost)] == [
        "unknown",
        "waiting",
    ]


async def test_an_expired_user_rests_is_dirty_and_goes_on_after_that(
    farm: Farm,
) -> None:
    user = await farm.add_user()
    held = await farm.held()
    waiting = await farm.waiting()
    await farm.let_lapse(held)
    await farm.expiry.look()
    assert (await farm.users.get(user.id)).state == "resting"
    assert isinstance(await farm.ask(lease_id=waiting.lease.id), Waiting)
    await farm.end_rest(user.id)
    await farm.expiry.look()
    handed_on = await farm.held(lease_id=waiting.lease.id)
    assert handed_on.users[0].dirty


async def test_a_clean_release_makes_a_user_clean_again(farm: Farm) -> None:
    user = await farm.add_user()
    await farm.leases.end((await farm.held()).lease.id, clean=False)
    second = await farm.held()
    assert second.users[0].dirty
    await farm.release(second)
    assert not (await farm.users.get(user.id)).dirty


async def test_releasing_an_expired_lease_says_so(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    await farm.let_lapse(held)
    with pytest.raises(LeaseEndedError) as refusal:
        await farm.release(held)
    assert refusal.value.state == "expired"
    assert (await farm.leases.show(held.lease.id)).lease.state == "expired"


async def test_asking_about_a_lapsed_lease_ends_it(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    await farm.let_lapse(held)
    with pytest.raises(LeaseEndedError):
        await farm.ask(lease_id=held.lease.id)
    assert (await farm.leases.show(held.lease.id)).lease.state == "expired"


async def test_a_waiter_that_nobody_asks_about_is_abandoned(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.let_lapse(waiting)
    await farm.expiry.look()
    assert (await farm.leases.show(waiting.lease.id)).lease.state == "abandoned"
    assert await farm.count("SELECT count(*) FROM queue_entries") == 0


async def test_leases_of_a_dead_worker_are_handed_on_without_a_delay(
    farm: Farm,
) -> None:
    await farm.add_user()
    await farm.add_user()
    await farm.held(holder=Holder(run_id="r", worker_id="gw0"))
    other = await farm.held(holder=Holder(run_id="r", worker_id="gw1"))
    dead_waiter = await farm.waiting(holder=Holder(run_id="r", worker_id="gw0"))
    waiter = await farm.waiting(holder=Holder(run_id="r", worker_id="gw1"))
    ended = await farm.leases.end_holder("r", "gw0", outcome="crashed", clean=False)
    assert ended == 2
    handed_on = await farm.held(lease_id=waiter.lease.id)
    assert handed_on.users[0].dirty
    assert (await farm.leases.show(other.lease.id)).lease.state == "held"
    assert (await farm.leases.show(dead_waiter.lease.id)).lease.state == "cancelled"
    assert await farm.leases.end_holder("r", None, outcome=None, clean=True) == 2


async def test_a_broken_lease_is_told_to_its_holder(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    await farm.leases.break_lease(held.lease.id, "stuck since yesterday")
    [answer] = await farm.leases.renew([(held.lease.id, held.users[0].fence)])
    assert isinstance(answer, Lost)
    assert answer.state == "revoked"
    assert "stuck since yesterday" in answer.detail
    with pytest.raises(LeaseEndedError):
        await farm.leases.break_lease(held.lease.id, "again")


async def test_waiters_are_told_who_holds_what_they_wait_for(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.held(holder=Holder(test_id="tests/test_a.py::test_b", worker_id="gw0"))
    [blocker] = (await farm.waiting()).blockers
    assert blocker.login == "alice"
    assert blocker.holder.test_id == "tests/test_a.py::test_b"
    assert blocker.held_for >= 0


async def test_history_is_kept_and_forgotten_after_its_time(farm: Farm) -> None:
    await farm.add_user("alice")
    held = await farm.held()
    await farm.release(held)
    [view] = await farm.leases.find(states=["released"], limit=10)
    assert [user.login for user in view.users] == ["alice"]
    await farm.expiry.forget()
    assert await farm.count("SELECT count(*) FROM leases") == 1
    await farm.set_time("leases", "ended_at", held.lease.id, ago=31 * 86_400)
    await farm.expiry.forget()
    assert await farm.count("SELECT count(*) FROM leases") == 0


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


async def park_renewal(farm: Farm, lease_id: LeaseId) -> AsyncConnection:
    """A renewal that has moved the expiry and has not committed yet."""
    connection = await farm.database.engine.connect()
    await connection.begin()
    assert await leases.lock_all(connection, [lease_id])
    expires_at = await read_clock(connection) + timedelta(seconds=60)
    now = expires_at - timedelta(seconds=60)
    assert await leases.extend(connection, [lease_id], now=now, expires_at=expires_at)
    return connection


async def until_somebody_waits_for_a_lock(farm: Farm) -> None:
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND wait_event IN ('transactionid', 'tuple')"
    )
    while not await farm.count(waiting):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    ("call", "state"), [("end", "released"), ("break_lease", "revoked")]
)
async def test_an_end_that_meets_a_renewal_waits_for_it_and_ends_the_lease(
    farm: Farm, call: str, state: str
) -> None:
    await farm.add_user()
    held = await farm.held()
    renewal = await park_renewal(farm, held.lease.id)
    more = {"reason": "stuck"} if call == "break_lease" else {}
    ending = asyncio.create_task(getattr(farm.leases, call)(held.lease.id, **more))
    await until_somebody_waits_for_a_lock(farm)
    await renewal.commit()
    await renewal.close()
    await asyncio.wait_for(ending, 10.0)
    assert (await farm.leases.show(held.lease.id)).lease.state == state
    assert await farm.count("SELECT count(*) FROM users WHERE lease_id IS NULL") == 1


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_loop_leaves_a_lease_alone_that_is_being_renewed(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    renewal = await park_renewal(farm, held.lease.id)
    await farm.expiry.look()
    await renewal.commit()
    await renewal.close()
    assert (await farm.leases.show(held.lease.id)).lease.state == "held"
