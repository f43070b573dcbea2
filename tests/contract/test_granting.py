"""Who is granted what, at once, over both databases."""

from __future__ import annotations

import uuid

import pytest

from botfarm_server.domain.errors import (
    LeaseMismatchError,
    NoSuchPoolError,
    PoolTooSmallError,
)
from botfarm_server.domain.models import LeaseId, Want

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


@pytest.mark.parametrize("odd", ["it's", 'a "b" \\ c', "%_?:x", "Zoë 👤", "", "null"])
async def test_labels_match_whole_values_whatever_is_in_them(
    farm: Farm, odd: str
) -> None:
    wanted = {"name": odd, "plan": "1"}
    for number, labels in enumerate(
        ({"name": odd}, {"name": odd + "x", "plan": "1"}, {"plan": odd, "name": "1"})
    ):
        await farm.add_user(f"other-{number}", labels=labels)
    right = await farm.add_user("right", labels={**wanted, "more": "yes"})
    held = await farm.held(Want("stage", "regular", labels=wanted))
    assert [user.id for user in held.users] == [right.id]
    await farm.waiting(Want("stage", "regular", labels=wanted))


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
    assert "stage/canary (1 user)" in refusal.value.detail


async def test_more_users_than_exist_are_refused_at_once(farm: Farm) -> None:
    await farm.add_user()
    with pytest.raises(PoolTooSmallError) as refusal:
        await farm.ask(Want("stage", "regular", count=2))
    assert (refusal.value.asked, refusal.value.existing) == (2, 1)
