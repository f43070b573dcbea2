"""Who gets back the user that it had last, over both databases."""

from __future__ import annotations

import pytest

from botfarm_server.domain.models import Want
from botfarm_server.services.answers import Held

from .conftest import STAGE, Farm
from .test_turns import answers, asked, returned, turn

pytestmark = pytest.mark.anyio

ADMIN = Want("stage", "regular", labels={"role": "admin"})


async def used(farm: Farm, *wants: Want) -> Held:
    """A lease that was given back."""
    held = await farm.held(*wants)
    await farm.release(held)
    return held


async def test_without_a_hint_it_is_the_user_that_has_rested_longest(
    farm: Farm,
) -> None:
    for login in ("alice", "bob", "carol"):
        await farm.add_user(login)
    first = [(await used(farm)).users[0].login for _ in range(3)]
    assert sorted(first) == ["alice", "bob", "carol"]
    assert [(await used(farm)).users[0].login for _ in range(3)] == first


async def test_a_free_user_that_is_preferred_is_granted(farm: Farm) -> None:
    for _ in range(3):
        await farm.add_user(labels={"role": "admin"})
    for want in (STAGE, ADMIN):
        last = (await used(farm, want)).users[0].id
        for _ in range(2):
            held = await farm.held(want, prefer=[last])
            assert [it.id for it in held.users] == [last]
            # While somebody has it, another one does as well.
            other = await farm.held(want, prefer=[last])
            assert other.users[0].id != last
            await farm.release(other)
            await farm.release(held)


async def test_all_users_of_a_lease_can_be_had_again(farm: Farm) -> None:
    for _ in range(5):
        await farm.add_user()
    both = Want("stage", "regular", count=2)
    last = {it.id for it in (await used(farm, both)).users}
    assert {it.id for it in (await farm.held(both, prefer=[*last])).users} == last


async def test_a_preferred_user_is_left_to_those_who_need_its_labels(
    farm: Farm,
) -> None:
    admin = await farm.add_user("admin", labels={"role": "admin"})
    await farm.add_user("plain")
    assert (await farm.held(prefer=[admin.id])).users[0].login == "plain"
    assert (await farm.held(prefer=[admin.id])).users[0].login == "admin"


async def test_no_preference_goes_before_a_waiter(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held()
    waiting = await farm.waiting()
    prefers = asked(prefer=[held.users[0].id])
    settled = await turn(farm, returned(held), prefers)
    assert answers(settled) == ["NoneType", "Lease"]
    await farm.held(lease_id=waiting.lease.id)


async def test_a_preference_is_no_part_of_what_is_asked_for(farm: Farm) -> None:
    user = await farm.add_user()
    other = await farm.add_user(domain="canary")
    held = await farm.held(prefer=[user.id, other.id])
    again = await farm.held(lease_id=held.lease.id, prefer=[other.id])
    assert [it.id for it in again.users] == [user.id]


async def test_users_that_are_preferred_in_one_turn_go_to_who_prefers_them(
    farm: Farm,
) -> None:
    for _ in range(4):
        await farm.add_user()
    first, second = (await used(farm)).users[0].id, (await used(farm)).users[0].id
    settled = await turn(farm, asked(prefer=[second]), asked(prefer=[first]))
    got = [it.answer.users[0].id for it in settled if isinstance(it.answer, Held)]
    assert got == [second, first]
