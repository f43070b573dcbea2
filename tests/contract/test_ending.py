"""Renewal, and every way in which a lease ends, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    LeaseEndedError,
    LeaseMismatchError,
    NoSuchPoolError,
)
from botfarm_server.domain.models import (
    Fence,
    Holder,
    Lease,
    LeaseId,
    TokenId,
    Want,
)
from botfarm_server.services import answers
from botfarm_server.services import leases as renewing
from botfarm_server.services.answers import Held, Lost, Renewed, Waiting
from botfarm_server.services.calls import Asked
from botfarm_server.services.departed import LATE_CALLS, end_id
from botfarm_server.store import leases

from .conftest import STAGE, Farm
from .test_query_plans import sent

pytestmark = pytest.mark.anyio


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


async def test_of_two_renewals_of_one_lease_each_fence_is_judged(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    name, fence = held.lease.id, held.users[0].fence
    other = (name, Fence(fence + 5))
    answers = await farm.leases.renew([other, (name, fence), other])
    assert [type(it) for it in answers] == [Lost, Renewed, Lost]


async def test_a_call_about_many_lost_leases_sends_few_statements(farm: Farm) -> None:
    """Whoever names them, and however often, keeps the database from nobody."""
    await farm.add_user("alice")
    lost = await farm.held()
    await farm.release(lost)
    names = [lost.lease.id] * 40
    with sent(farm.database) as statements:
        told = await farm.leases.renew([(name, Fence(1)) for name in names])
    assert [it.users[0].login for it in told if isinstance(it, Lost)] == ["alice"] * 40
    assert len(statements) < 10


async def test_of_many_lost_leases_some_users_are_named_and_nothing_is_locked(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_NAMED_OF_LEASE", 2)
    monkeypatch.setattr(renewing, "MOST_NAMED", 3)
    monkeypatch.setattr(renewing, "LOOKED_UP_TOGETHER", 2)
    for _ in range(3):
        await farm.add_user()
    names = []
    for _ in range(4):
        lost = await farm.held(replace(STAGE, count=3))
        await farm.release(lost)
        names.append(lost.lease.id)
    with sent(farm.database) as statements:
        told = await farm.leases.renew([(name, Fence(1)) for name in names])
    assert [it.state for it in told if isinstance(it, Lost)] == ["released"] * 4
    assert [len(it.users) for it in told if isinstance(it, Lost)] == [2, 1, 0, 0]
    of_users = [text for text, _ in statements if "FROM grants" in text]
    assert len(of_users) == 1  # once enough are named, no more are read
    # Of the statement that locks, nothing is read of leases that are over.
    assert sum("leases.wants" in text for text, _ in statements) == 3
    with pytest.raises(LeaseEndedError) as refusal:
        await farm.ask(lease_id=names[0])
    assert len(refusal.value.users) == 2


async def test_a_wait_that_became_hopeless_is_refused_again_in_the_same_way(
    farm: Farm,
) -> None:
    user = await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.users.quarantine(user.id, "broken")
    refusals = []
    for _ in range(2):
        with pytest.raises(NoSuchPoolError) as refusal:
            await farm.ask(lease_id=waiting.lease.id)
        refusals.append(refusal.value)
    assert refusals[0] == refusals[1]
    await farm.users.restore(user.id)
    with pytest.raises(LeaseEndedError, match="no_such_pool"):
        await farm.ask(lease_id=waiting.lease.id)


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


async def test_leases_of_a_dead_worker_are_handed_on_without_a_delay(
    farm: Farm,
) -> None:
    await farm.add_user()
    await farm.add_user()
    held = await farm.held(holder=Holder(run_id="r", worker_id="gw0"))
    other = await farm.held(holder=Holder(run_id="r", worker_id="gw1"))
    dead_waiter = await farm.waiting(holder=Holder(run_id="r", worker_id="gw0"))
    waiter = await farm.waiting(holder=Holder(run_id="r", worker_id="gw1"))
    ended = await farm.leases.end_holder("r", "gw0", outcome="crashed", clean=False)
    assert [it.logins for it in ended if it.logins] == [[held.users[0].login]]
    assert len(ended) == 2
    handed_on = await farm.held(lease_id=waiter.lease.id)
    assert handed_on.users[0].dirty
    assert (await farm.leases.show(other.lease.id)).lease.state == "held"
    assert (await farm.leases.show(dead_waiter.lease.id)).lease.state == "cancelled"
    rest = await farm.leases.end_holder("r", None, outcome=None, clean=True)
    assert len(rest) == 2


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


async def test_a_broken_lease_is_handed_on_once_its_holder_must_have_heard_of_it(
    farm: Farm,
) -> None:
    user = await farm.add_user()
    held, waiting = await farm.held(), await farm.waiting()
    await farm.leases.break_lease(held.lease.id, "stuck")
    assert (await farm.users.get(user.id)).state == "resting"
    assert isinstance(await farm.ask(lease_id=waiting.lease.id), Waiting)
    await farm.end_rest(user.id)
    await farm.expiry.look()
    held, waiting = await farm.held(lease_id=waiting.lease.id), await farm.waiting()
    await farm.leases.break_lease(held.lease.id, "its host burns", holder_is_dead=True)
    assert (await farm.held(lease_id=waiting.lease.id)).users[0].dirty


async def test_what_has_lapsed_expires_whoever_comes_to_end_it(farm: Farm) -> None:
    user = await farm.add_user()
    acquired = await farm.acquiring.acquire(user.id, ttl=60.0, holder=Holder())
    await farm.set_time("leases", "expires_at", acquired.lease_id, ago=1.0)
    assert not await farm.acquiring.release(user.id)
    assert (await farm.leases.show(acquired.lease_id)).lease.state == "expired"
    after = await farm.users.get(user.id)
    assert (after.state, after.dirty) == ("resting", True)
    await farm.end_rest(user.id)
    held = await farm.held()
    await farm.let_lapse(held)
    with pytest.raises(LeaseEndedError) as refusal:
        await farm.leases.break_lease(held.lease.id, "stuck")
    assert refusal.value.state == "expired"
    assert (await farm.leases.show(held.lease.id)).lease.state == "expired"
    assert (await farm.users.get(user.id)).state == "resting"
    await farm.end_rest(user.id)
    dead = await farm.held(holder=Holder(run_id="run"))
    await farm.let_lapse(dead)
    await farm.leases.end_holder("run", None, outcome="passed", clean=True)
    lease = (await farm.leases.show(dead.lease.id)).lease
    assert (lease.state, lease.outcome) == ("expired", "passed")
    assert (await farm.held()).users[0].dirty  # at once, since its holder is dead


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


async def test_a_call_that_arrives_after_the_end_of_its_holder_is_refused(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held(holder=Holder("run", "gw0"))
    for worker_id in ("gw0", "gw0", "gw1"):
        await farm.leases.end_holder("run", worker_id, outcome="crashed", clean=False)
    late = LeaseId(uuid.uuid4())
    for name in (late, late, LeaseId(uuid.uuid4())):
        with pytest.raises(LeaseEndedError, match="its holder ended"):
            await farm.ask(lease_id=name, holder=Holder("run", "gw0"))
    with pytest.raises(LeaseEndedError):
        await farm.ask(lease_id=held.lease.id, holder=Holder("run", "gw0"))
    alive = await farm.held(holder=Holder("run", "gw2"))
    await farm.release(alive)
    await farm.leases.end_holder("run", None, outcome="crashed", clean=False)
    with pytest.raises(LeaseEndedError):
        await farm.ask(holder=Holder("run", "gw2"))
    assert await farm.count("SELECT count(*) FROM users WHERE lease_id IS NULL") == 1


async def test_the_end_of_a_holder_is_forgotten_and_remembered_anew(
    farm: Farm,
) -> None:
    await farm.add_user()
    holder = Holder("run", "gw0")
    await farm.leases.end_holder("run", None, outcome=None, clean=True)
    ago = LATE_CALLS.total_seconds() + 1.0
    await farm.set_time("leases", "ended_at", end_id("run", None, None), ago=ago)
    await farm.release(await farm.held(holder=holder))  # a later run of that name
    await farm.leases.end_holder("run", None, outcome=None, clean=True)
    with pytest.raises(LeaseEndedError):
        await farm.ask(holder=holder)


async def test_the_end_of_a_holder_counts_for_the_token_that_told_of_it(
    farm: Farm,
) -> None:
    await farm.add_user()
    mine, other = (Caller("lease", TokenId(uuid.uuid4())) for _ in range(2))
    await farm.leases.end_holder("run", None, outcome=None, clean=True, by=mine)
    call = Asked(LeaseId(uuid.uuid4()), [STAGE], 60.0, 0.0, Holder("run", "gw0"))
    with pytest.raises(LeaseEndedError):
        await farm.asking.ask(replace(call, by=mine))
    again = replace(call, lease_id=LeaseId(uuid.uuid4()), by=other)
    await farm.release(_held(await farm.asking.ask(again)))
    # Unless that one may end what others took.
    await farm.leases.end_holder("run", None, outcome=None, clean=True)
    with pytest.raises(LeaseEndedError):
        await farm.asking.ask(replace(again, lease_id=LeaseId(uuid.uuid4())))


def _held(answer: Held | Waiting) -> Held:
    assert isinstance(answer, Held)
    return answer


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("how", ["break", "end of its run", "first API", "state"])
async def test_an_end_that_waits_for_a_lease_that_is_locked_holds_up_no_other(
    farm: Farm, how: str
) -> None:
    """As a replica locks it that is paused while it renews."""
    user = await farm.add_user()
    await farm.add_user(domain="canary")
    holder = Holder("run", "gw0")
    if how == "first API":
        await farm.acquiring.acquire(user.id, ttl=None, holder=holder)
    else:
        await farm.held(holder=holder)
    [view] = await farm.leases.find(states=["held"], limit=1)
    lease = view.lease
    elsewhere = Want("stage", "canary")
    waits = {
        "break": farm.leases.break_lease(lease.id, "to see"),
        "end of its run": farm.leases.end_holder("run", None, outcome=None, clean=True),
        "first API": farm.acquiring.release(user.id),
        "state": farm.kept_states.drop(lease.id, user.id, fence=_fence_of(lease)),
    }
    async with farm.database.write() as connection:
        await leases.lock(connection, lease.id)
        ending = asyncio.create_task(waits.pop(how))
        for coroutine in waits.values():
            coroutine.close()
        if how == "end of its run":
            while not await farm.count(
                "SELECT count(*) FROM leases WHERE state = 'cancelled'"
            ):
                await asyncio.sleep(0.01)  # until its end is remembered
        await farm.release(await farm.held(elsewhere, holder=Holder("other", "gw0")))
        assert not ending.done()
    await asyncio.wait_for(ending, 10.0)
    assert how == "state" or (await farm.users.get(user.id)).lease_id is None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_the_end_of_a_run_does_not_wait_for_one_of_that_name_of_another_token(
    farm: Farm,
) -> None:
    await farm.add_user()
    mine, other = (Caller("lease", TokenId(uuid.uuid4())) for _ in range(2))
    theirs = await farm.held(holder=Holder("run", "gw0"), by=other)
    async with farm.database.write() as connection:
        await leases.lock(connection, theirs.lease.id)
        end = farm.leases.end_holder("run", None, outcome=None, clean=True, by=mine)
        assert not await asyncio.wait_for(end, 10.0)


def _fence_of(lease: Lease) -> Fence:
    assert lease.fence is not None
    return lease.fence
