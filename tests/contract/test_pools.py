"""Checks of wants, each of which may take long, leave the database to leases."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pytest

from botfarm_server.domain.access import Caller
from botfarm_server.domain.models import TokenId, Want
from botfarm_server.domain.vocabulary import Vocabulary
from botfarm_server.services.pools import PoolService, Prospect

from .conftest import STAGE, Farm
from .test_query_plans import sent

pytestmark = pytest.mark.anyio

MANY, OTHER = (
    Caller("read", token_id=TokenId(uuid.UUID(int=number))) for number in (1, 2)
)


def pools_of(farm: Farm) -> PoolService:
    return PoolService(farm.database, Vocabulary(("stage",), ("regular",)))


async def test_checks_take_one_connection_however_many_there_are(farm: Farm) -> None:
    pools = pools_of(farm)
    leases = [[STAGE]] * 3
    callers = [MANY, OTHER, MANY, OTHER, MANY]
    calls = [asyncio.create_task(pools.check(leases, by)) for by in callers]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, farm.database.checked_out())
        await asyncio.sleep(0)
    assert most == 1
    assert [len(call.result()) for call in calls] == [3] * 5


async def test_a_check_asks_once_for_each_distinct_want(farm: Farm) -> None:
    """Wants that differ in their count are one question, and those in no pool, too."""
    for _ in range(3):
        await farm.add_user()
    admin = Want("stage", "regular", labels={"role": "admin"})
    leases = [
        *([STAGE], [STAGE, STAGE], [Want("stage", "regular", count=4)]),
        *([[admin], [admin, STAGE]] * 10),
    ]
    with sent(farm.database) as statements:
        told = await pools_of(farm).check(leases, MANY)
    asked = [it for it, _ in statements if "FROM users" in it]
    # One for each want, one for the pools that are near, and one for the quarantine of
    # each want that cannot be met.
    assert len(asked) == 5
    assert [it.matching for it in told[:5]] == [[3], [3, 3], [3], [0], [0, 3]]
    assert [type(it.refusal).__name__ for it in told[:5]] == [
        *("NoneType", "NoneType", "PoolTooSmallError"),
        *("NoSuchPoolError", "NoSuchPoolError"),
    ]


async def test_a_want_that_more_users_meet_than_are_asked_for_is_counted(
    farm: Farm,
) -> None:
    for _ in range(3):
        await farm.add_user()
    [lone, pair] = await pools_of(farm).check(
        [[STAGE], [Want("stage", "regular", count=2)]], MANY
    )
    assert (lone.matching, pair.matching) == ([3], [3])
    assert (lone.refusal, pair.refusal) == (None, None)


async def test_checks_of_one_token_have_those_of_another_pass(farm: Farm) -> None:
    """The next is the other's, although thirty of the first were there before."""
    pools = pools_of(farm)
    ended: list[Caller] = []

    async def check(by: Caller) -> None:
        await pools.check([[STAGE]], by)
        ended.append(by)

    calls = [asyncio.create_task(check(MANY)) for _ in range(31)]
    while farm.database.checked_out() == 0:
        await asyncio.sleep(0)
    calls.append(asyncio.create_task(check(OTHER)))
    await asyncio.gather(*calls)
    assert ended.index(OTHER) == 1


async def test_a_check_for_which_nobody_waits_any_more_asks_nothing(farm: Farm) -> None:
    async def has_left() -> bool:
        return True

    with sent(farm.database) as statements:
        told: Sequence[Prospect] = await pools_of(farm).check(
            [[STAGE]] * 3, MANY, has_left
        )
    assert (told, statements) == ([], [])
