"""Places for users that suites make, over both databases."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.errors import (
    HashingBusyError,
    InvalidRequestError,
    PoolFullError,
    ReservationNotFoundError,
    TooManyPlacesError,
)
from botfarm_server.domain.models import ReservationId, TokenId, Want
from botfarm_server.services import reservations
from botfarm_server.services.credentials import UserDraft

from .conftest import STAGE, Farm, hashing_all_it_may

pytestmark = pytest.mark.anyio

PROJECT = uuid.UUID(int=1)


def new_id() -> ReservationId:
    return ReservationId(uuid.uuid4())


async def reserve(
    farm: Farm, want: Want = STAGE, *, limit: int, by: Caller = EVERYTHING
) -> ReservationId:
    place = new_id()
    left = await farm.reservations.reserve(place, want, limit=limit, by=by)
    assert 0 < left <= 600
    return place


def draft(
    place: ReservationId, login: str = "made", domain: str = "regular"
) -> UserDraft:
    return UserDraft(login, "password", "stage", domain, reservation_id=place)


async def test_of_many_that_reserve_at_once_as_many_succeed_as_the_limit_leaves(
    farm: Farm,
) -> None:
    broken = await farm.add_user()
    await farm.users.quarantine(broken.id, "locked out")
    asked = (reserve(farm, limit=4) for _ in range(8))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    places = [it for it in answers if isinstance(it, uuid.UUID)]
    refusals = [it for it in answers if isinstance(it, PoolFullError)]
    assert (len(places), len(refusals)) == (3, 5)
    assert refusals[-1].facts == {"limit": 4, "existing": 1, "reserved": 3}
    for number, place in enumerate(places):
        await farm.users.create(draft(ReservationId(place), f"made-{number}"))
    with pytest.raises(PoolFullError) as caught:
        await reserve(farm, limit=4)
    assert (caught.value.existing, caught.value.reserved) == (4, 0)


async def test_a_place_becomes_one_user_however_often_it_is_sent(farm: Farm) -> None:
    place = await reserve(farm, limit=1)
    assert await farm.reservations.reserve(place, STAGE, limit=1) <= 600
    with pytest.raises(InvalidRequestError):
        await farm.users.create(draft(place, domain="canary"))
    made = await farm.users.create(draft(place))
    assert await farm.users.create(draft(place)) == made
    with pytest.raises(ReservationNotFoundError):
        await farm.users.create(draft(place, "another"))


async def test_for_whom_there_is_no_place_nothing_is_hashed(farm: Farm) -> None:
    place, free = [await reserve(farm, limit=2) for _ in range(2)]
    made = await farm.users.create(draft(place))
    with hashing_all_it_may(farm, EVERYTHING):
        assert await farm.users.create(draft(place)) == made
        for impossible in (draft(new_id()), draft(place, "another")):
            with pytest.raises(ReservationNotFoundError):
                await farm.users.create(impossible)
        with pytest.raises(HashingBusyError):
            await farm.users.create(draft(free, "another"))


async def test_a_place_that_expired_or_was_given_back_is_free_and_of_no_use(
    farm: Farm,
) -> None:
    given_back, expired = [await reserve(farm, limit=2) for _ in range(2)]
    await farm.reservations.give_back(given_back)
    await farm.set_time("reservations", "expires_at", expired, ago=1.0)
    for place in (given_back, expired):
        with pytest.raises(ReservationNotFoundError):
            await farm.users.create(draft(place))
    for _ in range(2):
        await reserve(farm, limit=2)


async def test_the_limit_is_that_of_the_project_that_is_named(farm: Farm) -> None:
    await farm.add_user()
    want = Want("stage", "regular", PROJECT)
    await reserve(farm, want, limit=1)
    with pytest.raises(PoolFullError):
        await reserve(farm, want, limit=1)
    with pytest.raises(PoolFullError):
        await reserve(farm, limit=2)
    await reserve(farm, limit=3)  # which may become a user of that project, too
    with pytest.raises(PoolFullError):
        await reserve(farm, want, limit=2)


async def test_a_token_has_only_so_many_places_at_once_in_all_pools(
    farm: Farm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MOST_PLACES", 3)
    greedy, other = (
        Caller("lease", TokenId(uuid.UUID(int=number)), kind="token")
        for number in (1, 2)
    )
    canary = Want("stage", "canary")
    for caller in (greedy, other, EVERYTHING):
        wants = (STAGE, STAGE, canary)
        first, second, third = [
            await reserve(farm, want, limit=1000, by=caller) for want in wants
        ]
        for want in (STAGE, canary):
            with pytest.raises(TooManyPlacesError) as caught:
                await reserve(farm, want, limit=1000, by=caller)
            assert caught.value.facts == {"limit": 3}
        with pytest.raises(PoolFullError):  # which says more
            await reserve(farm, limit=2, by=caller)
        await farm.reservations.reserve(third, canary, limit=1000, by=caller)
        await farm.users.create(draft(first, f"made-{first}"), caller)
        await farm.reservations.give_back(second, caller)
        await farm.set_time("reservations", "expires_at", third, ago=1.0)
        for _ in range(3):
            await reserve(farm, canary, limit=1000, by=caller)


async def test_a_user_that_a_suite_made_outlives_the_pool_file_that_does_not_list_it(
    farm: Farm,
) -> None:
    made = await farm.users.create(draft(await reserve(farm, limit=1)))
    await farm.add_user("listed")
    await farm.users.retain_only([])
    assert await farm.users.find() == [made]
