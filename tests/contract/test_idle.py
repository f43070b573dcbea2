"""Leases that a worker leaves to its next tests, over the database that knows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from botfarm_server.domain.errors import DeadlockError, LeaseEndedError, UserLockedError
from botfarm_server.domain.models import Holder, UserId, Want
from botfarm_server.services.credentials import UserDraft
from botfarm_server.store.lease_files import STALE, SUFFIX, left_idle

from .conftest import Farm
from .idling import Worker, grow_old, history, look, views, worker_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

BOTH = Want("stage", "regular", count=2)


@pytest.fixture
def worker(farm: Farm, tmp_path: Path) -> Worker:
    return worker_of(farm, tmp_path)


@pytest.fixture
def other(worker: Worker) -> Worker:
    """A worker of another run, over the same pool file."""
    return Worker(worker.farm, worker.directory, "gw1")


async def test_whoever_wants_what_is_idle_has_it_at_once_and_each_test_in_the_history(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first", "second", "third")
    next_one = await farm.held()
    assert [it.login for it in next_one.users] == ["alice"]
    assert not next_one.users[0].dirty
    assert await history(farm) == [
        ("released", "third", "passed"),
        ("released", "second", "passed"),
        ("released", "first", "passed"),
    ]
    last, *earlier = await farm.leases.find(states=["released"], limit=9)
    assert last.lease.id == use.id
    fences = [view.users[0].fence for view in (last, *earlier)]
    assert [view.users[0].login for view in earlier] == ["alice", "alice"]
    assert len({*fences, next_one.users[0].fence}) == 4
    times = [
        (view.lease.granted_at, view.lease.ended_at) for view in (*earlier[::-1], last)
    ]
    instants = [instant for pair in times for instant in pair if instant]
    assert instants == sorted(instants)
    assert len(instants) == 6
    assert not use.file.take_up("fourth")
    assert not (worker.directory / f"{use.id}{SUFFIX}").exists()


async def test_while_anybody_waits_no_lease_becomes_idle(
    farm: Farm, worker: Worker
) -> None:
    """Neither those that were held before nor those that are granted meanwhile."""
    await farm.add_user("alice")
    await farm.add_user("bob")
    held = await worker.use("held before")
    waiter = await farm.waiting(BOTH)
    passing = await worker.use("passes by")
    for use in (held, passing):
        assert not use.file.leave()
    await farm.leases.end(held.id)
    await farm.leases.end(passing.id)
    assert len((await farm.held(BOTH, lease_id=waiter.lease.id)).users) == 2


async def test_what_is_idle_goes_to_who_waits_longest(
    farm: Farm, worker: Worker
) -> None:
    """Also what its holder has unlocked, and no longer gives back."""
    await farm.add_user("alice")
    use = await worker.use("holds")
    first, second = await farm.waiting(), await farm.waiting()
    # It stands still in the middle of its release.
    assert not use.file.leave()
    use.file._tell(ended=0.0)
    use.file._unlock()
    assert left_idle(worker.directory) == [use.id]
    await farm.leases.end_idle([use.id])
    assert (await farm.held(lease_id=first.lease.id)).users
    assert (await farm.waiting(lease_id=second.lease.id)).place == 1


async def test_no_deadlock_is_found_for_what_is_idle(
    farm: Farm, worker: Worker, other: Worker
) -> None:
    """Neither a holder's own, nor that of one that stands still."""
    alice = Want("stage", "regular", labels={"name": "alice"})
    bob = Want("stage", "regular", labels={"name": "bob"})
    for name in ("alice", "bob"):
        await farm.add_user(name, labels={"name": name})
    own = await worker.use("first", alice)
    assert own.file.leave()
    again = await worker.use("the same under another name", alice, bob)
    await farm.leases.end(again.id)
    has_alice, has_bob = await worker.use("a", alice), await other.use("b", bob)
    waits = [
        await farm.waiting(want, holder=who.holder("waits"))
        for who, want in ((worker, bob), (other, alice))
    ]
    # The second of them is over, and its process was stopped at this very point.
    has_bob.file._tell(ended=0.0)
    has_bob.file._unlock()
    await farm.expiry.look()
    assert (await farm.held(bob, lease_id=waits[0].lease.id)).users
    await farm.leases.end(has_alice.id)
    assert (await farm.held(alice, lease_id=waits[1].lease.id)).users


async def test_a_deadlock_names_the_test_that_has_a_lease_by_now(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first")
    assert use.file.take_up("second")
    waiting = await farm.waiting(holder=worker.holder("second"))
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await farm.ask(
            *waiting.lease.wants, lease_id=waiting.lease.id, holder=waiting.lease.holder
        )
    (member,) = caught.value.knot
    assert list(member.leased_for) == ["second"]
    assert "leased for" not in caught.value.detail


async def test_the_first_api_takes_what_is_idle_and_tells_who_uses_what_is_not(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first")
    assert use.file.take_up("second")
    with pytest.raises(UserLockedError, match="second"):
        await farm.acquiring.acquire(use.user_id, ttl=None, holder=Holder())
    await farm.leases.end(use.id)
    again = await worker.idle()
    await farm.acquiring.acquire(again.user_id, ttl=None, holder=Holder())
    assert not again.file.take_up("third")


async def _quarantine(farm: Farm, user_id: UserId) -> None:
    await farm.users.quarantine(user_id, "broken")


async def _change(farm: Farm, user_id: UserId) -> None:
    await farm.users.change(user_id, {"password": "another"})


async def _import(farm: Farm, _: UserId) -> None:
    draft = UserDraft("alice", "another", "stage", "regular", labels={"new": "yes"})
    await farm.imports.import_all([draft])


async def _unlist(farm: Farm, _: UserId) -> None:
    await farm.users.retain_only([])


@pytest.mark.parametrize("change", [_quarantine, _change, _import, _unlist])
async def test_no_test_takes_up_a_user_that_was_changed(
    farm: Farm, worker: Worker, change: Callable[[Farm, UserId], Awaitable[None]]
) -> None:
    await farm.add_user("alice")
    use = await worker.use("holds")
    await change(farm, use.user_id)
    assert not use.file.leave()  # it was in use, and goes on until its test ends
    assert [view.lease.id for view in await views(farm)] == [use.id]
    await farm.leases.end(use.id)
    for user in await farm.users.find():
        await farm.users.remove(user.id)
    await farm.add_user("alice")
    use = await worker.idle()
    await change(farm, use.user_id)
    assert not use.file.take_up("next")
    assert await views(farm) == []


async def test_a_user_that_is_idle_can_be_removed_and_one_in_use_cannot(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.use("holds")
    with pytest.raises(UserLockedError):
        await farm.users.remove(use.user_id)
    await farm.leases.end(use.id)
    use = await worker.idle()
    await farm.users.remove(use.user_id)
    assert not use.file.take_up("next")
    assert await farm.users.find() == []


async def _remove(farm: Farm, user_id: UserId) -> None:
    await farm.users.remove(user_id)


async def _acquire(farm: Farm, user_id: UserId) -> None:
    await farm.acquiring.acquire(user_id, ttl=None, holder=Holder())


async def _wait(farm: Farm, _: UserId) -> None:
    await farm.held()


@pytest.mark.parametrize(
    "want", [_quarantine, _change, _import, _unlist, _remove, _acquire, _wait]
)
async def test_the_end_of_an_idle_lease_is_logged_and_counted_whoever_wants_it(
    farm: Farm, worker: Worker, want: Callable[[Farm, UserId], Awaitable[None]]
) -> None:
    await farm.add_user("alice")
    use = await worker.idle()
    with capture_logs() as log:
        await want(farm, use.user_id)
    told = [it["lease_id"] for it in log if it["event"] == "lease ended"]
    assert told == [str(use.id)]
    metrics = farm.leases.news.metrics
    assert metrics._ended.labels("released", "passed")._value.get() == 1


async def test_a_state_that_was_saved_is_the_next_leases(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.use("signs in")
    fence = use.held.users[0].fence
    await farm.kept_states.save(
        use.id, use.user_id, fence=fence, state="cookies", expires_in=None
    )
    assert not use.file.leave()


async def test_what_has_ended_is_not_taken_up_again(farm: Farm, worker: Worker) -> None:
    """Broken or lapsed, an idle lease was given back by its last test."""
    for _ in range(4):
        await farm.add_user()
    broken, lapsed = await worker.idle("broken"), await worker.idle("lapsed")
    used, overdue = await worker.use("used"), await worker.use("overdue")
    for use in (broken, used):
        await farm.leases.break_lease(use.id, "a person wants it")
    for use in (lapsed, overdue):
        await farm.let_lapse(use.held)
    await farm.expiry.look()
    for use in (broken, lapsed):
        assert not use.file.take_up("next")
    for use in (used, overdue):
        assert not use.file.leave()
        with pytest.raises(LeaseEndedError):
            await farm.leases.end(use.id)
    assert sorted(await history(farm)) == [
        ("expired", "overdue", None),
        ("released", "broken", "passed"),
        ("released", "lapsed", "passed"),
        ("revoked", "used", None),
    ]
    states = sorted((user.state, user.dirty) for user in await farm.users.find())
    assert states == [("free", False)] * 2 + [("resting", True)] * 2


async def test_of_a_dead_run_only_what_was_used_is_dirty(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    idle, used = await worker.idle("first", "second"), await worker.use("crashes")
    ended = await farm.leases.end_holder(
        worker.run_id, None, outcome="crashed", clean=False
    )
    assert len(ended) == 2
    assert await history(farm) == [
        ("released", "second", "passed"),
        ("released", "first", "passed"),
        ("released", "crashes", "crashed"),
    ]
    dirty = {user.id: user.dirty for user in await farm.users.find()}
    assert dirty == {idle.user_id: False, used.user_id: True}


async def test_a_lease_is_its_present_tests_for_whoever_asks(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first")
    assert [it.lease.holder.test_id for it in await views(farm)] == [None]
    assert (await farm.leases.show(use.id)).lease.holder.test_id is None
    assert use.file.take_up("second")
    assert [it.lease.holder.test_id for it in await views(farm)] == ["second"]
    waiter = await farm.waiting()
    assert [it.holder.test_id for it in waiter.blockers] == ["second"]
    assert not use.file.leave()


async def test_whoever_looks_is_told_what_is_idle(farm: Farm, worker: Worker) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    used, idle = await worker.use(), await worker.idle()

    async def told() -> list[bool]:
        views_of = {view.lease.id: view for view in await views(farm)}
        users_of = {user.lease_id: user for user in await farm.users.find()}
        listed = [views_of[it.id].is_idle for it in (used, idle)]
        assert [
            (await farm.leases.show(it.id)).is_idle for it in (used, idle)
        ] == listed
        assert [users_of[it.id].idle for it in (used, idle)] == listed
        assert {user.state for user in users_of.values()} == {"held"}
        return listed

    assert await told() == [False, True]
    assert idle.file.take_up("next")
    assert used.file.leave()
    assert await told() == [True, False]


async def test_a_kept_lease_is_the_tests_that_failed(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first")
    assert use.file.take_up("fails")
    fence = use.held.lease.fence
    assert fence is not None
    await farm.leases.keep(use.id, fence, seconds=60.0, outcome="failed")
    use.file.remove()
    assert [it.lease.holder.test_id for it in await views(farm)] == ["fails"]
    assert await history(farm) == [("released", "first", "passed")]


async def test_a_lease_that_was_idle_for_long_ends_though_nobody_wants_it(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("test")
    await look(farm, worker)
    assert [view.lease.id for view in await views(farm)] == [use.id]
    grow_old(worker.directory / f"{use.id}{SUFFIX}", STALE)
    await look(farm, worker)
    assert await views(farm) == []
    assert not use.file.take_up("next")
