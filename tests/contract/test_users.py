"""Users and imports, over both databases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest
from support.parking import Parked

from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import (
    DuplicateUserError,
    HashingBusyError,
    UserNotFoundError,
)
from botfarm_server.domain.models import Holder, TokenId
from botfarm_server.services.credentials import UserDraft

from .conftest import Farm, hashing_all_it_may

pytestmark = pytest.mark.anyio

OURS, THEIRS = uuid.UUID(int=1), uuid.UUID(int=2)
OUR_ADMIN = Caller("admin", project_id=OURS)
DRAFTS = [UserDraft(f"user-{n}", "password", "stage", "regular") for n in range(5)]


async def test_imports_of_the_same_users_at_once_all_succeed(farm: Farm) -> None:
    imported = await asyncio.gather(
        *(farm.imports.import_all(DRAFTS) for _ in range(4))
    )
    assert sum(it.created for it in imported) == 5
    assert sum(it.unchanged for it in imported) == 15


async def test_a_token_has_only_so_many_passwords_hashed_at_once(farm: Farm) -> None:
    user = await farm.add_user("alice")
    greedy, other = (
        Caller("admin", TokenId(uuid.UUID(int=number)), kind="token")
        for number in (1, 2)
    )
    calls: list[Callable[[Caller], Awaitable[object]]] = [
        lambda by: farm.users.create(DRAFTS[0], by),
        lambda by: farm.users.change(user.id, {"password": "new"}, by),
        lambda by: farm.users.verify_password(user.id, "new", by),
        lambda by: farm.imports.import_all(DRAFTS, by=by),
    ]
    with hashing_all_it_may(farm, greedy):
        for call in calls:
            with pytest.raises(HashingBusyError):
                await call(greedy)
        for call in calls:
            await call(other)
    assert await farm.users.verify_password(user.id, "new", greedy)


async def test_a_user_that_is_no_longer_listed_is_removed_or_put_aside(
    farm: Farm,
) -> None:
    await farm.imports.import_all(DRAFTS)
    held = await farm.held()
    await farm.users.retain_only([])
    [left] = await farm.users.find()
    assert left.id == held.users[0].id
    assert left.state == "quarantined"


async def test_a_new_user_goes_to_a_waiter_at_once(farm: Farm) -> None:
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.imports.import_all(DRAFTS)
    assert (await farm.held(lease_id=waiting.lease.id)).users


async def test_a_restored_user_goes_to_a_waiter_at_once(farm: Farm) -> None:
    aside = await farm.add_user()
    await farm.users.quarantine(aside.id, "locked out")
    await farm.add_user()
    await farm.held()
    waiting = await farm.waiting()
    await farm.users.restore(aside.id)
    assert (await farm.held(lease_id=waiting.lease.id)).users[0].id == aside.id


async def test_a_user_that_was_put_aside_comes_back_once_it_is_listed(
    farm: Farm,
) -> None:
    await farm.imports.import_all(DRAFTS[:1])
    held = await farm.held()
    await farm.users.retain_only([])
    await farm.imports.import_all(DRAFTS[:1])
    await farm.users.retain_only([DRAFTS[0].key])
    waiting = await farm.waiting()
    await farm.release(held)
    assert (await farm.held(lease_id=waiting.lease.id)).users[0].id == held.users[0].id


async def test_listing_a_user_does_not_end_another_quarantine(farm: Farm) -> None:
    await farm.imports.import_all(DRAFTS[:1])
    [user] = await farm.users.find()
    await farm.users.quarantine(user.id, "locked out")
    await farm.users.retain_only([DRAFTS[0].key])
    assert (await farm.users.get(user.id)).state == "quarantined"


async def test_who_was_let_in_changes_no_user_that_has_moved_since(farm: Farm) -> None:
    """Whatever else looks at the project before, the transaction does as well."""
    user = await farm.add_user(project_id=THEIRS)
    for change in (
        farm.users.change(user.id, {"labels": {"role": "ours"}}, OUR_ADMIN),
        farm.users.quarantine(user.id, "locked out", by=OUR_ADMIN),
        farm.users.restore(user.id, by=OUR_ADMIN),
        farm.acquiring.acquire(user.id, ttl=None, holder=Holder(), by=OUR_ADMIN),
        farm.users.remove(user.id, OUR_ADMIN),
    ):
        with pytest.raises(UserNotFoundError):
            await change
    assert await farm.users.get(user.id) == user


async def test_an_import_changes_no_user_that_moves_while_it_hashes(farm: Farm) -> None:
    user = await farm.add_user("alice", project_id=OURS)
    draft = UserDraft("alice", "ours", "stage", "regular", OURS)
    importing = farm.imports.import_all([draft], by=OUR_ADMIN)
    async with Parked(importing) as parked:
        at, has_looked, looks = 0, False, False
        while looks or not has_looked:
            at += 1
            assert await parked.comes_to(at)
            looks = farm.database.checked_out() > 0
            has_looked = has_looked or looks
        moved = {"project_id": THEIRS, "password": "theirs"}
        is_theirs = await farm.users.change(user.id, moved)
        with pytest.raises(DuplicateUserError):
            await parked.ends()
    assert await farm.users.get(user.id) == is_theirs
    assert await farm.users.verify_password(user.id, "theirs")
