"""Users that are out of rotation or rest, over both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from botfarm_server.domain.errors import NoSuchPoolError, PoolTooSmallError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import Holder, Outcome, Want
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.credentials import UserDraft

from .conftest import Farm

pytestmark = pytest.mark.anyio


def ruled(farm: Farm, **rules: float) -> None:
    times = replace(LeaseTimes(), **rules)  # type: ignore[arg-type]  # by name
    for service in (
        farm.asking,
        farm.asking.turns,
        farm.leases,
        farm.expiry,
        farm.users,
    ):
        service.times = times


async def fail(farm: Farm, test_id: str, outcome: Outcome = "failed") -> None:
    held = await farm.held(holder=Holder(test_id=test_id))
    await farm.leases.end(held.lease.id, outcome=outcome)


async def test_a_user_with_which_several_tests_fail_goes_into_quarantine(
    farm: Farm,
) -> None:
    ruled(farm, quarantine_after=3)
    alice = await farm.add_user("alice")
    for test_id in ("test_a", "test_a", "test_b", "test_c"):
        assert (await farm.users.get(alice.id)).state == "free"
        await fail(farm, test_id)
    user = await farm.users.get(alice.id)
    assert (user.state, user.quarantined_by) == ("quarantined", "botfarm")
    assert user.quarantine_reason == "3 tests failed in a row: test_a, test_b, test_c"
    with pytest.raises(NoSuchPoolError):
        await farm.ask()


async def test_a_test_that_passes_begins_the_row_again(farm: Farm) -> None:
    ruled(farm, quarantine_after=2)
    alice = await farm.add_user("alice")
    await fail(farm, "test_a")
    await fail(farm, "test_b", "passed")
    await fail(farm, "test_c", "error")
    await fail(farm, "test_d", "skipped")
    assert (await farm.users.get(alice.id)).state == "free"


async def test_failures_are_not_counted_unless_that_is_asked_for(farm: Farm) -> None:
    alice = await farm.add_user("alice")
    for number in range(5):
        await fail(farm, f"test_{number}")
    assert (await farm.users.get(alice.id)).state == "free"


async def test_a_restored_user_begins_anew(farm: Farm) -> None:
    ruled(farm, quarantine_after=2)
    alice = await farm.add_user("alice")
    await fail(farm, "test_a")
    await fail(farm, "test_b")
    await farm.users.restore(alice.id, "it was the deployment", "carol")
    await fail(farm, "test_c")
    assert (await farm.users.get(alice.id)).state == "free"


async def test_quarantine_has_a_reason_and_an_author(farm: Farm) -> None:
    alice = await farm.add_user("alice")
    user = await farm.users.quarantine(alice.id, "password changed", "carol")
    assert (user.quarantine_reason, user.quarantined_by) == (
        "password changed",
        "carol",
    )
    user = await farm.users.restore(alice.id)
    assert (user.quarantine_reason, user.quarantined_by) == (None, None)


async def test_who_finds_users_in_quarantine_alone_is_told_so_and_the_way_back(
    farm: Farm,
) -> None:
    for login in ("alice", "bob", "carol", "dave"):
        user = await farm.add_user(login, labels={"role": "admin"})
        await farm.users.quarantine(user.id, "locked out" + "." * 200)
    await farm.add_user("erin")
    admin = Want("stage", "regular", labels={"role": "admin"})
    with pytest.raises(NoSuchPoolError) as missing:
        await farm.ask(admin)
    assert missing.value.quarantined.count == 4
    told = missing.value.detail
    assert "In quarantine are 4 that match: alice (locked out..." in told
    assert "…), carol (locked out" in told
    assert "and 1 more. Bring one back with `botfarm users restore LOGIN`" in told
    assert len(told) < 600
    with pytest.raises(PoolTooSmallError, match="quarantine are 4 that match: alice"):
        await farm.ask(Want("stage", "regular", count=2))
    with pytest.raises(NoSuchPoolError, match="Ask for one of these, or add users"):
        await farm.ask(Want("stage", "regular", labels={"role": "guest"}))


async def test_a_restored_user_goes_to_the_oldest_waiter(farm: Farm) -> None:
    alice = await farm.add_user("alice")
    bob = await farm.add_user("bob")
    held = await farm.held()
    (other,) = {alice.id, bob.id} - {held.users[0].id}
    await farm.users.quarantine(other, "a look")
    waiting = await farm.waiting()
    await farm.users.restore(other)
    answer = await farm.ask(lease_id=waiting.lease.id)
    assert isinstance(answer, Held)
    assert [user.id for user in answer.users] == [other]


async def test_a_cooldown_lets_a_user_rest_after_every_lease(farm: Farm) -> None:
    ruled(farm, cooldown=60)
    alice = await farm.add_user("alice")
    await farm.release(await farm.held())
    assert (await farm.users.get(alice.id)).state == "resting"
    waiting = await farm.waiting()
    await farm.expiry.look()
    again = await farm.ask(lease_id=waiting.lease.id)
    assert isinstance(again, Waiting)
    await farm.end_rest(alice.id)
    await farm.expiry.look()
    again = await farm.ask(lease_id=waiting.lease.id)
    assert isinstance(again, Held)
    assert not again.users[0].dirty


async def test_the_longer_of_lock_delay_and_cooldown_counts(farm: Farm) -> None:
    ruled(farm, cooldown=3600, lock_delay=1)
    alice = await farm.add_user("alice")
    await farm.let_lapse(await farm.held())
    await farm.expiry.look()
    assert (await farm.users.get(alice.id)).state == "resting"
    assert await farm.count("SELECT count(*) FROM users WHERE rest_until IS NULL") == 0


async def test_what_a_kept_lease_came_to_counts_once_it_ends(farm: Farm) -> None:
    ruled(farm, quarantine_after=1)
    alice = await farm.add_user("alice")
    held = await farm.held(holder=Holder(test_id="test_a"))
    fence = held.users[0].fence
    await farm.leases.keep(held.lease.id, fence, seconds=60, outcome="failed")
    assert (await farm.users.get(alice.id)).state == "held"
    await farm.let_lapse(held)
    await farm.expiry.look()
    assert (await farm.users.get(alice.id)).state == "quarantined"


async def test_the_reason_of_a_quarantine_is_not_written_over(farm: Farm) -> None:
    ruled(farm, quarantine_after=1)
    alice = await farm.add_user("alice")
    held = await farm.held(holder=Holder(test_id="test_a"))
    await farm.users.quarantine(alice.id, "password changed", "carol")
    await farm.leases.end(held.lease.id, outcome="failed")
    user = await farm.users.get(alice.id)
    assert (user.quarantine_reason, user.quarantined_by) == (
        "password changed",
        "carol",
    )


async def test_a_person_s_quarantine_outlives_a_pool_file(farm: Farm) -> None:
    alice = await farm.add_user("alice")
    await farm.held()
    await farm.users.quarantine(alice.id, "password changed", "carol")
    await farm.users.retain_only([])
    await farm.users.retain_only([("stage", "alice")])
    user = await farm.users.get(alice.id)
    assert user.quarantine_reason == "password changed"


@pytest.mark.parametrize(
    "how", ["by hand", "by a failed test", "labels", "removed", "imported"]
)
async def test_who_waits_for_what_went_out_of_rotation_is_told_at_once(
    farm: Farm, how: str
) -> None:
    ruled(farm, quarantine_after=1, cooldown=60.0)
    labels = {"role": "admin"}
    admin = Want("stage", "regular", labels=labels)
    user = await farm.add_user(labels=labels)
    held = await farm.held(admin, holder=Holder(test_id="test_a"))
    await farm.add_user()
    await farm.held()
    if how == "removed":
        await farm.release(held)  # and it rests
    call = asyncio.create_task(farm.ask(admin, wait=50.0))
    goes_on = asyncio.create_task(farm.ask(wait=50.0))
    while len(farm.room.waiting()) < 2:
        await farm.room.until_occupied()
        await asyncio.sleep(0)
    if how == "by hand":
        await farm.users.quarantine(user.id, "locked out")
    elif how == "labels":
        await farm.users.change(user.id, {"labels": {}})
    elif how == "removed":
        await farm.users.remove(user.id)
    elif how == "imported":
        draft = UserDraft(user.login, "password", user.env, user.domain)
        await farm.imports.import_all([draft])
    else:
        await farm.leases.end(held.lease.id, outcome="failed")
    with pytest.raises(NoSuchPoolError):
        await asyncio.wait_for(call, 10.0)
    assert not goes_on.done()
    goes_on.cancel()
