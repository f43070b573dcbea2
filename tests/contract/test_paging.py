"""Looking at waiters page by page comes to what looking at all at once comes to."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import update

from botfarm_server.domain.errors import PoolTooSmallError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import Candidate, LeaseId, UserId, Want
from botfarm_server.services import hand_on as handing_on
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.tables import grants, leases, queue_entries, users

from .conftest import Farm

pytestmark = pytest.mark.anyio

ROUNDS = 6
DOMAINS = ("regular", "canary")
Found = tuple[dict[LeaseId, set[UserId]], dict[LeaseId, set[UserId]]]


def some_wants(chance: random.Random) -> list[Want]:
    return [
        Want(
            "stage",
            chance.choice(DOMAINS),
            labels={} if chance.random() < 0.6 else {"role": chance.choice("ab")},
            count=chance.choice((1, 1, 1, 2)),
        )
        for _ in range(chance.choice((1, 1, 1, 2)))
    ]


async def what_comes_of_it(farm: Farm) -> Found:
    """What each waiter would be granted, and what would be kept for it."""
    kept: dict[LeaseId, Sequence[Candidate]] = {}
    granted: defaultdict[LeaseId, set[UserId]] = defaultdict(set)
    pools = [Want("stage", domain).pool for domain in DOMAINS]
    async with farm.database.engine.connect() as connection:
        now = await read_clock(connection)
        names = await handing_on.hand_on(
            connection, pools, now=now, times=LeaseTimes(), kept=kept
        )
        for row in await connection.execute(
            grants.select().where(grants.c.lease_id.in_(list(names)))
        ):
            granted[row.lease_id].add(row.user_id)
        await connection.rollback()
    return granted, {name: {it.id for it in its} for name, its in kept.items() if its}


@pytest.mark.parametrize(("first", "page"), [(1, 1), (2, 3), (3, 64)])
async def test_pages_make_no_difference(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, first: int, page: int
) -> None:
    chance = random.Random(first)
    for domain in DOMAINS:
        for labels in ({"role": "a"}, {"role": "b"}, {}, {}):
            await farm.add_user(domain=domain, labels=labels)
    found = 0
    for _ in range(ROUNDS):
        async with farm.database.write() as connection:
            await connection.execute(update(users).values(lease_id=None))
            for table in (queue_entries, grants, leases):
                await connection.execute(table.delete())
        holders = [
            await farm.ask(Want("stage", domain))
            for domain in DOMAINS
            for _ in range(8)
        ]
        waiting = []
        for _ in range(chance.randrange(1, 9)):
            with suppress(PoolTooSmallError):
                waiting.append(await farm.ask(*some_wants(chance)))
        async with farm.database.write() as connection:
            now = await read_clock(connection)
            for answer in waiting:
                ago = timedelta(seconds=chance.choice((0, 5, 20)))
                await connection.execute(
                    update(leases)
                    .where(leases.c.id == answer.lease.id)
                    .values(created_at=now - ago)
                )
            freed = [it.lease.id for it in holders if chance.random() < 0.5]
            await connection.execute(
                update(users).where(users.c.lease_id.in_(freed)).values(lease_id=None)
            )
        whole = await what_comes_of_it(farm)
        with monkeypatch.context() as patch:
            patch.setattr(handing_on, "FIRST_PAGE", first)
            patch.setattr(handing_on, "PAGE", page)
            assert await what_comes_of_it(farm) == whole
        found += bool(whole[0]) + bool(whole[1])
    assert found > ROUNDS // 2
