"""What the files of leases tell a server, and when it removes them."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.services.ending import Cause, end_leases
from botfarm_server.store import lease_files, leases
from botfarm_server.store.lease_files import SETTLED, STALE, SUFFIX, left_idle
from pytest_botfarm.idle import make_file

from .conftest import Farm
from .idling import Worker, grow_old, history, look, views, worker_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@pytest.fixture
def worker(farm: Farm, tmp_path: Path) -> Worker:
    return worker_of(farm, tmp_path)


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
    next_one = await farm.held()
    found = await farm.leases.find(states=["released"], limit=9)
    assert [it.lease.holder.test_id for it in found] == ["last", "ab?", "first"]
    for view in found:
        granted, ended = view.lease.granted_at, view.lease.ended_at
        assert granted is not None
        assert ended is not None
        assert use.held.lease.granted_at <= granted <= ended  # type: ignore[operator]
        assert ended <= next_one.lease.granted_at  # type: ignore[operator]
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
