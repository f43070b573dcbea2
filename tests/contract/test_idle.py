"""Leases that a worker's tests leave to each other, over the database that knows them.

The holders are the plugin's own files; what it would send to a server is called here.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from botfarm_server.domain.errors import LeaseEndedError, UserLockedError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import Holder, LeaseId, UserId, Want
from botfarm_server.presence import PresenceWatch
from botfarm_server.services.answers import Held, LeaseView
from botfarm_server.services.credentials import UserDraft
from botfarm_server.services.ending import Cause, end_leases
from botfarm_server.store import lease_files, leases
from botfarm_server.store.lease_files import (
    DIRECTORY,
    SETTLED,
    STALE,
    SUFFIX,
    left_idle,
)
from pytest_botfarm.idle import LeaseFile, make_file

from .conftest import Farm

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

BOTH = Want("stage", "regular", count=2)


@dataclass
class Worker:
    """A process of a run whose server names the directory for files."""

    farm: Farm
    directory: Path
    worker_id: str = "gw0"
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def holder(self, test_id: str) -> Holder:
        return Holder(self.run_id, self.worker_id, test_id)

    async def use(self, test_id: str = "test", *wants: Want) -> Use:
        """Lease for a test, as a session does."""
        lease_id = LeaseId(uuid.uuid4())
        file = make_file(str(self.directory), lease_id)
        assert file is not None
        holder = self.holder(test_id)
        held = await self.farm.held(*wants, lease_id=lease_id, holder=holder)
        file.begin(test_id)
        return Use(held, file)

    async def idle(self, *tests: str) -> Use:
        """Have a lease idle that tests had in turn."""
        first, *others = tests or ("test",)
        use = await self.use(first)
        assert use.file.leave()
        for test_id in others:
            assert use.file.take_up(test_id)
            assert use.file.leave()
        return use


@dataclass
class Use:
    """A lease in the hands of a test."""

    held: Held
    file: LeaseFile

    @property
    def id(self) -> LeaseId:
        return self.held.lease.id

    @property
    def user_id(self) -> UserId:
        return self.held.users[0].id


@pytest.fixture
def worker(farm: Farm, tmp_path: Path) -> Worker:
    directory = tmp_path / DIRECTORY
    directory.mkdir()
    return Worker(farm, directory)


@pytest.fixture
def other(worker: Worker) -> Worker:
    """A worker of another run, over the same pool file."""
    return Worker(worker.farm, worker.directory, "gw1")


async def history(farm: Farm) -> list[tuple[Any, ...]]:
    """Of ended leases, the newest first: state, test and outcome."""
    found = await farm.leases.find(states=["released", "expired", "revoked"], limit=99)
    return [(it.lease.state, it.lease.holder.test_id, it.lease.outcome) for it in found]


async def look(farm: Farm, worker: Worker) -> None:
    """One round of the server's look at the directory."""
    await PresenceWatch(worker.directory, farm.leases).look()


def grow_old(path: Path, seconds: float) -> None:
    """Let it be longer than that since anybody wrote the file, instead of waiting."""
    then = path.stat().st_mtime - seconds - 1.0
    os.utime(path, (then, then))


async def views(farm: Farm) -> list[LeaseView]:
    return await farm.leases.find(states=["held", "waiting"], limit=99)


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


@pytest.mark.parametrize(
    "content",
    [b"-\n", b"W-\n", b'-\n{"began": 1, "test_id": "t"}\n{"ended": 1'],
)
async def test_a_file_that_tells_of_no_end_is_one_of_a_lease_in_use(
    farm: Farm, worker: Worker, content: bytes
) -> None:
    await farm.add_user("alice")
    use = await worker.idle()
    (worker.directory / f"{use.id}{SUFFIX}").write_bytes(content)
    await farm.waiting()
    assert len(await views(farm)) == 2
    assert left_idle(worker.directory) == []
    await farm.leases.end(use.id)
    assert [it[0] for it in await history(farm)] == ["released"]


WRONG = (
    b"",
    b"-",
    b"\0" * 99,
    b"-\n{}\n",
    b"-\n[]\n",
    b"-\nnull\n",
    b'-\n{"ended": 1}\n',
    b'-\n{"began": "x", "test_id": "t"}\n{"ended": 1}\n',
    b'-\n{"began": 1e99, "test_id": "t"}\n{"ended": 1}\n',
    b'-\n{"began": 1, "test_id": 7}\n{"ended": 1}\n',
    b'-\n{"began": 1, "test_id": "t"}\n\xff\n',
    b"-\n" + b"[" * 100_000 + b"\n",
)


@pytest.mark.parametrize("content", WRONG)
async def test_a_lease_whose_file_is_wrong_ends_unless_it_is_locked(
    farm: Farm, worker: Worker, content: bytes
) -> None:
    """Nobody knows of its tests then, nor what they have left behind."""
    await farm.add_user("alice")
    use = await worker.idle()
    path = worker.directory / f"{use.id}{SUFFIX}"
    (worker.directory / f"no-id{SUFFIX}").write_bytes(content)
    use.file._lock()
    path.write_bytes(content)
    waiter = await farm.waiting()
    await look(farm, worker)
    assert len(await views(farm)) == 2
    use.file._unlock()
    await look(farm, worker)
    held = await farm.held(lease_id=waiter.lease.id)
    assert held.users[0].dirty
    assert await history(farm) == [("released", "test", None)]
    assert not path.exists()


async def test_whoever_wants_what_has_a_wrong_file_has_it_at_once(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle()
    (worker.directory / f"{use.id}{SUFFIX}").write_bytes(b"-\n{}\n")
    assert (await farm.held()).users[0].dirty


async def test_what_a_holder_has_locked_is_in_use_whatever_its_file_tells(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first")
    path = worker.directory / f"{use.id}{SUFFIX}"
    idle = path.read_bytes()
    assert use.file.take_up("second")
    path.write_bytes(idle)
    await farm.waiting()
    assert len(await views(farm)) == 2


async def test_what_a_file_tells_is_made_fit_for_the_history(
    farm: Farm, worker: Worker
) -> None:
    """Times that cannot be, and a name that no database takes."""
    await farm.add_user("alice")
    use = await worker.use("first")
    before = await farm.now()
    for line in (
        {"ended": 4e9},
        {"test_id": "a\0b\ud800", "began": 1.0},
        {"ended": 0.5},
        {"test_id": "last", "began": 0.0},
    ):
        use.file._tell(**line)
    await farm.leases.end(use.id, outcome="failed")
    found = await farm.leases.find(states=["released"], limit=9)
    assert [it.lease.holder.test_id for it in found] == ["last", "ab?", "first"]
    for view in found:
        granted, ended = view.lease.granted_at, view.lease.ended_at
        assert granted is not None
        assert ended is not None
        assert use.held.lease.granted_at <= granted <= ended  # type: ignore[operator]
    assert found[-1].lease.ended_at >= before  # type: ignore[operator]


@pytest.mark.parametrize("ended_by", ["reclaim", "release", "break"])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_lease_ended_when_its_last_test_did(
    farm: Farm, worker: Worker, ended_by: str, count: int
) -> None:
    """And not when somebody wanted it; its users are free from then on."""
    await farm.add_user("alice")
    use = await worker.use("first")
    for column in ("created_at", "granted_at"):
        await farm.set_time("leases", column, use.id, ago=300.0)
    before = await farm.now()
    granted = before.timestamp() - 300.0
    told: list[dict[str, str | float]] = []
    for number in range(count):
        told += [{"test_id": str(number), "began": granted + number}]
        told += [{"ended": granted + number + 0.5}]
    lines = [b"-", *(json.dumps(it).encode() for it in told), b""]
    (worker.directory / f"{use.id}{SUFFIX}").write_bytes(b"\n".join(lines))
    if ended_by == "release":  # it has not unlocked it yet
        await farm.leases.end(use.id, outcome="passed")
    else:
        use.file._unlock()
    if ended_by == "reclaim":
        assert (await farm.held()).lease.granted_at >= before  # type: ignore[operator]
    if ended_by == "break":
        await farm.leases.break_lease(use.id, "a person wants it")
    found = await farm.leases.find(states=["released"], limit=9)
    assert len(found) == count
    for number, view in enumerate(reversed(found)):
        lease = view.lease
        assert lease.granted_at is not None
        assert lease.ended_at is not None
        assert lease.ended_at.timestamp() == pytest.approx(
            granted + number + 0.5, 0, 0.1
        )
        held_for = (lease.ended_at - lease.granted_at).total_seconds()
        assert held_for == pytest.approx(0.5, 0, 0.1)
    rested_since = "SELECT count(*) FROM users WHERE released_at >= "
    assert await farm.count(f"{rested_since}'{before:%Y-%m-%d %H:%M:%S.%f}'") == 1


async def test_files_that_no_lease_has_are_removed_in_the_end(
    farm: Farm, worker: Worker
) -> None:
    """Not one that its maker is about to lock, nor one that somebody uses."""
    await farm.add_user("alice")
    await farm.add_user("bob")
    used, idle = await worker.use(), await worker.idle()
    young, locked, *left = [
        make_file(str(worker.directory), uuid.uuid4()) for _ in range(4)
    ]
    for file in (young, *left):
        assert file is not None
        file.close()
    assert locked is not None
    for path in worker.directory.iterdir():
        if young is not None and path != Path(young._path):
            grow_old(path, SETTLED)
    await look(farm, worker)
    await look(farm, worker)
    stay = {file._path for file in (young, locked, used.file, idle.file) if file}
    assert {str(path) for path in worker.directory.iterdir()} == stay


async def test_an_end_that_is_not_committed_loses_no_test(
    farm: Farm, worker: Worker
) -> None:
    await farm.add_user("alice")
    use = await worker.idle("first", "second")
    with suppress(RuntimeError):
        async with farm.database.queue() as (connection, now):
            found = await leases.lock_all(connection, [use.id])
            over, cause = [*found.values()], Cause("revoked")
            await end_leases(connection, over, cause, now=now, times=LeaseTimes())
            raise RuntimeError
    assert [view.lease.id for view in await views(farm)] == [use.id]
    assert await history(farm) == []
    await look(farm, worker)
    assert await views(farm) == []
    tests = [test_id for _, test_id, _ in await history(farm)]
    assert tests == ["second", "first"]
    assert list(worker.directory.iterdir()) == []


async def test_what_a_server_died_over_removing_is_told_once(
    farm: Farm, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alice", "bob"):
        await farm.add_user(name)
    idle, failed = await worker.idle("first", "second"), await worker.idle("third")
    assert failed.file.take_up("fails")
    fence = failed.held.lease.fence
    assert fence is not None
    with monkeypatch.context() as dying:
        dying.setattr(lease_files, "remove", lambda *_: None)
        await farm.leases.end(idle.id)
        await farm.leases.keep(failed.id, fence, seconds=60.0, outcome="failed")
    failed.file._tell(ended=0.0)
    failed.file.close()
    for path in worker.directory.iterdir():
        grow_old(path, SETTLED)
    await farm.leases.end(idle.id)
    assert len(left_idle(worker.directory)) == 2
    await farm.leases.end_idle([idle.id, failed.id])
    assert [view.lease.id for view in await views(farm)] == [failed.id]
    await farm.leases.break_lease(failed.id, "seen", holder_is_dead=True)
    tests = [test_id for _, test_id, _ in await history(farm)]
    assert sorted(tests) == ["fails", "first", "second", "third"]
    for path in worker.directory.iterdir():
        grow_old(path, SETTLED)
    await look(farm, worker)
    assert list(worker.directory.iterdir()) == []


async def test_a_lease_that_is_withdrawn_once_is_not_written_to_again(
    farm: Farm, worker: Worker
) -> None:
    """Or nobody could tell how long its holder has been silent."""
    await farm.add_user("alice")
    use = await worker.use("holds")
    await farm.waiting()
    path = worker.directory / f"{use.id}{SUFFIX}"
    grow_old(path, STALE)
    then = path.stat().st_mtime
    await farm.waiting()
    assert left_idle(worker.directory) == []
    assert path.stat().st_mtime == then
    assert not use.file.leave()


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
