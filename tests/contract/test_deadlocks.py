"""Holders that wait for each other, over both databases."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from sqlalchemy import event

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import DeadlockError
from botfarm_server.domain.models import Holder, TokenId, Want
from botfarm_server.services import deadlocks
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.deadlocks import OF_ANOTHER_PROJECT, break_knots

from .conftest import STAGE, Farm

pytestmark = pytest.mark.anyio

CANARY = Want("stage", "canary")


def worker(name: str) -> Holder:
    return Holder("run", name, f"tests/test_it.py::test_{name}", "ci-1")


async def ask_again(farm: Farm, waiting: Waiting) -> Held | Waiting:
    lease = waiting.lease
    return await farm.ask(*lease.wants, lease_id=lease.id, holder=lease.holder)


async def test_a_worker_that_waits_for_its_own_user_is_told(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.held(holder=worker("gw0"))
    waiting = await farm.waiting(holder=worker("gw0"))
    await farm.expiry.look()
    for _ in range(2):  # a repeated call has the same answer
        with pytest.raises(DeadlockError) as caught:
            await ask_again(farm, waiting)
    (member,) = caught.value.knot
    assert (member.test_id, member.worker_id) == ("tests/test_it.py::test_gw0", "gw0")
    assert (list(member.has), list(member.waits_for)) == (["alice"], ["stage/regular"])
    assert caught.value.detail == (
        "Deadlock: a worker waits for accounts that only it has itself. "
        "tests/test_it.py::test_gw0 on gw0 at ci-1 in run run has alice and waits for "
        "stage/regular. Its youngest wait was ended. Ask for all accounts of a test "
        "at once, with count=2 or a mark for each (@pytest.mark.bot_user), or add "
        "accounts."
    )
    await farm.leases.end(waiting.lease.id)


async def test_what_a_worker_has_for_more_than_its_test_is_told_as_such(
    farm: Farm,
) -> None:
    """In two waits of one worker as well."""
    await farm.add_user("alice")
    await farm.add_user("bob")
    whole_file = Holder("run", "gw0", "tests/test_it.py", "ci-1")
    await farm.held(holder=whole_file)
    await farm.held(holder=worker("gw0"))
    waits = [await farm.waiting(holder=worker("gw0")) for _ in range(2)]
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await ask_again(farm, waits[1])
    for member in caught.value.knot:
        assert list(member.has) == ["alice", "bob"]
        leased_for = ["tests/test_it.py", "tests/test_it.py::test_gw0"]
        assert list(member.leased_for) == leased_for
    detail = caught.value.detail
    assert "a worker waits for accounts that only it has itself" in detail
    assert "has alice (leased for tests/test_it.py), bob and waits for" in detail
    assert "Use what is leased already, ask for all accounts of a test" in detail


async def test_of_two_that_wait_for_each_other_the_youngest_gives_way(
    farm: Farm,
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob", domain="canary")
    await farm.held(holder=worker("gw0"))
    second = await farm.held(CANARY, holder=worker("gw1"))
    older = await farm.waiting(CANARY, holder=worker("gw0"))
    younger = await farm.waiting(holder=worker("gw1"))
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await ask_again(farm, younger)
    assert [list(it.has) for it in caught.value.knot] == [["alice"], ["bob"]]
    assert "these tests wait for accounts that only they have" in caught.value.detail
    await farm.expiry.look()
    assert isinstance(await ask_again(farm, older), Waiting)
    await farm.release(second)
    assert isinstance(await ask_again(farm, older), Held)


async def test_a_knot_names_nothing_that_is_of_other_projects_alone(
    farm: Farm,
) -> None:
    """A ring of four, of which the youngest is told what its project may know."""
    ours, theirs = uuid.uuid4(), uuid.uuid4()
    ring = [("ada", ours), ("bob", ours), ("cora", theirs), ("dan", theirs)]
    wants = []
    for number, (login, project) in enumerate(ring):
        await farm.add_user(login, labels={"it": login}, project_id=project)
        wants.append(Want("stage", "regular", project, {"it": login}))
        await farm.held(wants[-1], holder=worker(f"gw{number}"))
    for number in (1, 2, 3):
        following = wants[(number + 1) % 4]
        await farm.waiting(following, holder=worker(f"gw{number}"))
    youngest = await farm.waiting(wants[1], holder=worker("gw0"))
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await ask_again(farm, youngest)
    told = [(it.worker_id, list(it.has), it.test_id) for it in caught.value.knot]
    assert told == [
        ("gw1", ["bob"], "tests/test_it.py::test_gw1"),
        (None, [OF_ANOTHER_PROJECT], None),
        ("gw3", [OF_ANOTHER_PROJECT], "tests/test_it.py::test_gw3"),
        ("gw0", ["ada"], "tests/test_it.py::test_gw0"),
    ]
    leased_for = [list(it.leased_for) for it in caught.value.knot]
    own = [[f"tests/test_it.py::test_{name}"] for name in ("gw1", "gw0")]
    assert leased_for == [own[0], [None], [None], own[1]]
    assert all(it not in caught.value.detail for it in ("gw2", "cora", "dan"))
    assert str(theirs) not in caught.value.detail


def of_token(number: int) -> Caller:
    return Caller("lease", TokenId(uuid.UUID(int=number)), kind="token")


@pytest.mark.parametrize("whose", [1, None])
async def test_who_has_the_names_of_another_token_s_worker_is_another_party(
    farm: Farm, whose: int | None
) -> None:
    """Neither ends the other's waits, be it a token or whoever has none."""
    other = EVERYTHING if whose is None else of_token(whose)
    for login in ("alice", "bob"):
        await farm.add_user(login)
    await farm.add_user("carol", domain="canary")
    for name in ("gw0", "gw1"):
        await farm.held(holder=worker(name), by=of_token(2))
    await farm.held(CANARY, holder=worker("gw0"), by=other)
    await farm.waiting(CANARY, holder=worker("gw1"), by=other)
    # For what gw1 of its own run has, who works and waits for nothing.
    await farm.waiting(holder=worker("gw0"), by=of_token(2))
    await farm.expiry.look()
    assert await farm.count("SELECT count(*) FROM leases WHERE state = 'waiting'") == 2


@pytest.mark.parametrize("whose", [1, None])
async def test_workers_of_one_token_are_a_knot_beside_those_of_another(
    farm: Farm, whose: int | None
) -> None:
    by = EVERYTHING if whose is None else of_token(whose)
    await farm.add_user("alice")
    await farm.add_user("carol", domain="canary")
    await farm.held(CANARY, holder=worker("gw0"), by=of_token(2))
    await farm.held(holder=worker("gw0"), by=by)
    waiting = await farm.waiting(holder=worker("gw0"), by=by)
    await farm.expiry.look()
    lease = waiting.lease
    with pytest.raises(DeadlockError) as caught:
        await farm.ask(lease_id=lease.id, holder=lease.holder, by=by)
    (member,) = caught.value.knot
    assert list(member.has) == ["alice"]


async def test_a_waiting_call_is_answered_at_once(farm: Farm) -> None:
    await farm.add_user()
    await farm.held(holder=worker("gw0"))
    call = asyncio.create_task(farm.ask(wait=20, holder=worker("gw0")))
    while not farm.room.waiting():
        await asyncio.sleep(0)
    while not call.done():
        await farm.expiry.look()
    with pytest.raises(DeadlockError):
        await call


async def test_one_holder_in_reach_that_does_not_wait_is_no_deadlock(
    farm: Farm,
) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob", domain="canary")
    await farm.add_user("carol", domain="canary")
    await farm.held(holder=worker("gw0"))
    await farm.held(CANARY, holder=worker("gw1"))
    busy = await farm.held(CANARY, holder=worker("gw2"))
    first = await farm.waiting(CANARY, holder=worker("gw0"))
    second = await farm.waiting(holder=worker("gw1"))
    await farm.expiry.look()
    assert isinstance(await ask_again(farm, first), Waiting)
    assert isinstance(await ask_again(farm, second), Waiting)
    await farm.release(busy)
    assert isinstance(await ask_again(farm, first), Held)


async def test_a_resting_user_in_reach_is_no_deadlock(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    vanished = await farm.held()
    await farm.let_lapse(vanished)
    await farm.expiry.look()
    await farm.held(holder=worker("gw0"))
    waiting = await farm.waiting(holder=worker("gw0"))
    await farm.expiry.look()
    assert isinstance(await ask_again(farm, waiting), Waiting)


async def test_a_user_kept_for_a_waiter_counts_as_its_own(farm: Farm) -> None:
    await farm.add_user("alice", labels={"role": "admin"})
    await farm.add_user("bob", labels={"role": "guest"})
    admin = await farm.held(
        Want("stage", "regular", labels={"role": "admin"}), holder=worker("gw0")
    )
    guest = await farm.held(Want("stage", "regular", labels={"role": "guest"}))
    both = await farm.waiting(
        Want("stage", "regular", count=2), holder=Holder(test_id="pair")
    )
    await farm.set_time("leases", "created_at", both.lease.id, ago=60)
    await farm.release(guest)
    stuck = await farm.waiting(holder=worker("gw0"))
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await ask_again(farm, stuck)
    assert [list(it.has) for it in caught.value.knot] == [["bob"], ["alice"]]
    await farm.release(admin)
    assert isinstance(await ask_again(farm, both), Held)


async def test_leases_without_a_worker_s_name_hold_nothing_together(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held(STAGE, holder=Holder(test_id="somebody"))
    waiting = await farm.waiting(STAGE, holder=Holder(test_id="somebody"))
    await farm.expiry.look()
    await farm.release(held)
    assert isinstance(await ask_again(farm, waiting), Held)


async def test_of_a_large_knot_the_youngest_are_told_and_some_of_what_they_have(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlocks, "MOST_MEMBERS", 1)
    labels = {"k" * 255: "v" * 255}
    for _ in range(12):
        await farm.add_user(labels=labels)
    for name in ("gw0", "gw1"):
        await farm.held(Want("stage", "regular", count=6), holder=worker(name))
    monkeypatch.setattr(deadlocks, "MOST_TOLD", 5)
    wants = [Want("stage", "regular", labels=labels)] * 7
    for name in ("gw0", "gw1"):
        waiting = await farm.waiting(*wants, holder=worker(name))
    await farm.expiry.look()
    with pytest.raises(DeadlockError) as caught:
        await ask_again(farm, waiting)
    (member,) = caught.value.knot
    assert member.worker_id == "gw1"
    assert len(member.has) == len(member.leased_for) == len(member.waits_for) == 5
    assert {len(want) for want in member.waits_for} == {deadlocks.LONGEST_WANT}


async def test_a_waiter_whose_kept_user_is_its_own_is_no_knot(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    await farm.add_user("carol", domain="canary")
    busy = await farm.held()  # it does not wait: its user will come
    pair = await farm.waiting(
        Want("stage", "regular", count=2), holder=Holder(test_id="pair")
    )
    await farm.set_time("leases", "created_at", pair.lease.id, ago=60)
    # Somebody else waits while it holds, as with a session-scoped account.
    await farm.held(CANARY, holder=worker("gw1"))
    await farm.waiting(holder=worker("gw1"))
    await farm.expiry.look()
    await farm.release(busy)
    assert isinstance(await ask_again(farm, pair), Held)


async def test_a_worker_that_holds_and_waits_for_two_is_no_knot(farm: Farm) -> None:
    await farm.add_user("alice")
    await farm.add_user("bob")
    await farm.add_user("carol", domain="canary")
    busy = await farm.held()
    await farm.held(CANARY, holder=worker("gw1"))
    pair = await farm.waiting(Want("stage", "regular", count=2), holder=worker("gw1"))
    await farm.set_time("leases", "created_at", pair.lease.id, ago=60)
    await farm.expiry.look()
    await farm.release(busy)
    assert isinstance(await ask_again(farm, pair), Held)


@pytest.mark.parametrize("count", [2, 8])
async def test_a_look_for_knots_reads_each_want_once(farm: Farm, count: int) -> None:
    for _ in range(count + 1):
        await farm.add_user()
    await farm.held()  # does not wait: there is no knot
    for number in range(count):
        await farm.held(holder=worker(f"gw{number}"))
    for number in range(count):
        await farm.waiting(holder=worker(f"gw{number}"))
    statements = []

    def note(*facts: object) -> None:
        statements.append(facts[2])

    event.listen(farm.database.engine.sync_engine, "before_cursor_execute", note)
    await break_knots(farm.database, farm.expiry.times)
    read_pool = [it for it in statements if "quarantined_at IS NULL" in str(it)]
    assert len(read_pool) <= 4  # however many wait
