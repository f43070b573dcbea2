"""Waiters of one project that want much, each something else, over both databases."""

from __future__ import annotations

import random
import uuid

import pytest

from botfarm_server.domain.models import Fence, Holder, Lease, LeaseId, Want
from botfarm_server.services.answers import Held
from botfarm_server.services.calls import Asked
from botfarm_server.services.deadlocks import break_knots

from .conftest import Farm
from .test_query_plans import sent

pytestmark = pytest.mark.anyio

THEIRS, OURS = uuid.UUID(int=0xA), uuid.UUID(int=0xB)
LABELS = {f"label{number}": "yes" for number in range(20)}
OUR_WANT = Want("stage", "regular", OURS)


def many_wants(chance: random.Random) -> list[Want]:
    return [
        Want(
            "stage",
            "regular",
            THEIRS,
            labels=dict(chance.sample(sorted(LABELS.items()), 10)),
        )
        for _ in range(20)
    ]


async def let_wait(
    farm: Farm, chance: random.Random, holder: Holder | None = None
) -> Asked:
    """A waiter, without a look at what it waits for."""
    asked = Asked(
        LeaseId(uuid.uuid4()),
        many_wants(chance),
        ttl=60.0,
        wait=60.0,
        holder=holder or Holder(),
    )
    settled = await farm.asking.turns.settle(asked)
    assert isinstance(settled.answer, Lease)
    return asked


async def statements_of_others(farm: Farm) -> int:
    """Those of a lease of another project, its release and a look of the loop."""
    with sent(farm.database) as statements:
        ours = await farm.held(OUR_WANT)
        await farm.release(ours)
        await farm.expiry.look()
    return len(statements)


async def test_no_statement_is_sent_for_each_want_of_those_that_wait(
    farm: Farm,
) -> None:
    chance = random.Random(0)
    for _ in range(20):
        await farm.add_user(project_id=THEIRS, labels=LABELS)
    for _ in range(3):
        await farm.add_user(project_id=OURS)
    held = await farm.held(Want("stage", "regular", THEIRS, count=20), ttl=None)
    await farm.leases.renew([(held.lease.id, held.lease.fence or Fence(0))])
    with sent(farm.database) as statements:
        first = await let_wait(farm, chance)
    assert len(statements) < 20
    beside_one = await statements_of_others(farm)
    for _ in range(69):
        await let_wait(farm, chance)
    assert await statements_of_others(farm) == beside_one < 50
    with sent(farm.database) as statements:
        await farm.release(held)
    assert len(statements) < 20
    assert isinstance((await farm.asking.turns.settle(first)).answer, Held)


async def test_a_knot_is_looked_for_without_a_statement_for_each_want(
    farm: Farm,
) -> None:
    chance = random.Random(0)
    holder = Holder(run_id="run", worker_id="gw0")
    for _ in range(20):
        await farm.add_user(project_id=THEIRS, labels=LABELS)
    await farm.held(Want("stage", "regular", THEIRS, count=10))
    await farm.held(Want("stage", "regular", THEIRS, count=10), holder=holder)
    for _ in range(3):
        await let_wait(farm, chance, holder)
    with sent(farm.database) as statements:
        await break_knots(farm.database, farm.expiry.times)
    assert len(statements) < 40
