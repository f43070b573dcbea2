"""What a holder leaves for the next one, over both databases."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from botfarm_server.domain.errors import (
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
    UserNotFoundError,
)
from botfarm_server.domain.models import Fence, Holder, LeaseId, UserId
from botfarm_server.services.answers import Held
from botfarm_server.services.credentials import UserDraft
from botfarm_server.store import grants

from .conftest import STAGE, Farm, build_farm
from .test_turns import asked

pytestmark = pytest.mark.anyio

HOLDER = Holder(run_id="run", worker_id="gw0")


async def save(
    farm: Farm, held: Held, state: str = "session", *, expires_in: float | None = None
) -> None:
    fence = held.lease.fence
    assert fence is not None
    for user in held.users:
        await farm.kept_states.save(
            held.lease.id, user.id, fence=fence, state=state, expires_in=expires_in
        )


async def left_with(farm: Farm, state: str = "session") -> Held:
    """A held user for whose next holder a state was left."""
    held = await farm.held(holder=HOLDER)
    await save(farm, held, state)
    return held


async def next_state(farm: Farm) -> str | None:
    """What the next holder of the only user gets."""
    held = await farm.held()
    await farm.release(held)
    return held.users[0].state


async def test_a_state_goes_to_every_next_holder_however_it_is_granted(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    assert held.users[0].state is None
    await save(farm, held)
    waiting = await farm.waiting()
    await farm.release(held)
    handed_on = await farm.held(lease_id=waiting.lease.id)
    assert handed_on.users[0].state == "session"
    looked = await farm.asking._look_again(asked(waiting.lease.id))
    assert isinstance(looked, Held)
    assert looked.users[0].state == "session"
    await farm.release(handed_on)
    assert await next_state(farm) == "session"
    assert "session" not in repr(looked)


async def test_states_that_are_large_together_are_read_one_by_one(farm: Farm) -> None:
    for _ in range(5):
        await farm.add_user()
    small, large = "session", "s" * 262_144
    five = replace(STAGE, count=5)
    left = await farm.held(five)
    fence = left.lease.fence
    assert fence is not None
    for user, state in zip(left.users, [small] + [large] * 4, strict=True):
        await farm.kept_states.save(
            left.lease.id, user.id, fence=fence, state=state, expires_in=None
        )
    told: dict[UserId, tuple[str | None, bool]] = {
        it.id: (None, True) for it in left.users
    }
    told[left.users[0].id] = (small, False)
    await farm.release(left)
    held = await farm.held(five)
    again = await farm.held(five, lease_id=held.lease.id)
    looked = await farm.asking._look_again(asked(held.lease.id))
    assert isinstance(looked, Held)
    for answer in (held, again, looked):
        seen = {it.id: (it.state, it.state_is_apart) for it in answer.users}
        assert seen == told
    states = [await farm.kept_states.fetch(held.lease.id, it) for it in told]
    assert states == [small] + [large] * 4
    [first, *others] = told
    with pytest.raises(UserNotFoundError):
        await farm.kept_states.fetch(held.lease.id, UserId(uuid.uuid4()))
    await farm.set_time("users", "state_expires_at", others[0], ago=0.0)
    assert await farm.kept_states.fetch(held.lease.id, others[0]) is None
    await farm.release(held)
    with pytest.raises(LeaseEndedError):
        await farm.kept_states.fetch(held.lease.id, first)
    two = await farm.held(replace(STAGE, count=2))
    assert not [it for it in two.users if it.state_is_apart]


async def expire(farm: Farm, held: Held) -> None:
    await farm.let_lapse(held)
    await farm.expiry.look()
    await farm.end_rest(held.users[0].id)


async def revoke(farm: Farm, held: Held) -> None:
    await farm.leases.break_lease(held.lease.id, "stuck", holder_is_dead=True)


async def crash(farm: Farm, held: Held) -> None:
    await farm.leases.end_holder("run", "gw0", outcome="crashed", clean=False)


async def leave_dirty(farm: Farm, held: Held) -> None:
    await farm.leases.end(held.lease.id, clean=False)


async def change_password(farm: Farm, held: Held) -> None:
    await farm.users.change(held.users[0].id, {"password": "another"})
    await farm.release(held)


async def import_with_another_password(farm: Farm, held: Held) -> None:
    await farm.imports.import_all([UserDraft("alice", "another", "stage", "regular")])
    await farm.release(held)


async def drop(farm: Farm, held: Held) -> None:
    for _ in range(2):
        await farm.kept_states.drop(
            held.lease.id, held.users[0].id, fence=held.users[0].fence
        )
    await farm.release(held)


async def outlast(farm: Farm, held: Held) -> None:
    await farm.set_time("users", "state_expires_at", held.users[0].id, ago=0.0)
    await farm.release(held)


@pytest.mark.parametrize(
    "happens",
    [
        expire,
        revoke,
        crash,
        leave_dirty,
        change_password,
        import_with_another_password,
        drop,
        outlast,
    ],
)
async def test_a_state_that_may_be_void_is_not_handed_out(
    farm: Farm, happens: Callable[[Farm, Held], Awaitable[None]]
) -> None:
    await farm.add_user("alice")
    await happens(farm, await left_with(farm))
    assert await next_state(farm) is None


async def test_a_state_outlives_what_does_not_touch_the_login(farm: Farm) -> None:
    user = await farm.add_user("alice")
    await farm.leases.end((await left_with(farm)).lease.id, outcome="failed")
    await farm.users.change(user.id, {"labels": {"role": "admin"}})
    draft = UserDraft("alice", "password", "stage", "regular", labels={"role": "guest"})
    await farm.imports.import_all([draft])
    assert await next_state(farm) == "session"


@pytest.mark.parametrize(("expires_in", "lasts"), [(60.0, 60.0), (None, 3_600.0)])
async def test_a_state_lasts_as_long_as_its_holder_says_or_an_hour(
    farm: Farm, expires_in: float | None, lasts: float
) -> None:
    await farm.add_user()
    held = await farm.held()
    before = await farm.now()
    await save(farm, held, expires_in=expires_in)
    async with farm.database.read() as connection:
        found = await grants.held_with_users(connection, held.lease.id)
    assert found is not None
    _, [row], now = found
    assert row.state_expires_at is not None
    assert before <= row.state_expires_at - timedelta(seconds=lasts) <= now


async def test_only_who_holds_the_user_under_its_fence_may_leave_a_state(
    farm: Farm,
) -> None:
    await farm.add_user()
    stranger = await farm.add_user(domain="canary")
    held = await farm.held()
    waiting = await farm.waiting()
    fence = held.lease.fence
    assert fence is not None

    async def refused(
        kind: type[Exception], lease_id: LeaseId, fence: Fence, user_id: UserId
    ) -> None:
        with pytest.raises(kind):
            await farm.kept_states.save(
                lease_id, user_id, fence=fence, state="late", expires_in=None
            )
        with pytest.raises(kind):
            await farm.kept_states.drop(lease_id, user_id, fence=fence)

    user_id = held.users[0].id
    await refused(LeaseNotFoundError, LeaseId(uuid.uuid4()), fence, user_id)
    await refused(LeaseMismatchError, held.lease.id, Fence(fence - 1), user_id)
    await refused(LeaseMismatchError, waiting.lease.id, fence, user_id)
    await refused(UserNotFoundError, held.lease.id, fence, stranger.id)
    await farm.let_lapse(held)
    await refused(LeaseEndedError, held.lease.id, fence, user_id)
    await farm.expiry.look()
    await refused(LeaseEndedError, held.lease.id, fence, user_id)


async def test_a_state_that_no_key_opens_is_left_out_and_the_user_granted(
    farm: Farm, database_url: str
) -> None:
    await farm.add_user()
    other = build_farm(database_url, keys=[b"o" * 32, b"k" * 32])
    held = await other.held()
    await save(other, held)
    await other.release(held)
    await other.database.dispose()
    again = await farm.held()
    assert (again.users[0].password, again.users[0].state) == ("password", None)
