"""Leases that are kept for a person to look at, over both databases."""

from __future__ import annotations

import uuid

import pytest

from botfarm_server.domain.errors import (
    LeaseEndedError,
    LeaseMismatchError,
    LeaseNotFoundError,
)
from botfarm_server.domain.models import Fence, Holder, LeaseId, Outcome
from botfarm_server.services.answers import Held, Lost, Waiting

from .conftest import Farm

pytestmark = pytest.mark.anyio

WORKER = Holder("run", "gw0", "tests/test_it.py::test_fails", "ci-1")


async def keep(
    farm: Farm, held: Held, *, seconds: float = 1800.0, outcome: Outcome = "failed"
) -> float:
    lease, (user, *_) = held.lease, held.users
    return await farm.leases.keep(
        lease.id, user.fence, seconds=seconds, outcome=outcome
    )


async def test_it_goes_on_for_the_time_given_whatever_its_run_does(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held(holder=WORKER)
    assert await keep(farm, held) == 1800.0
    waiting = await farm.waiting(holder=WORKER)
    assert [it.kept for it in waiting.blockers] == [True]
    # Asked again, after an answer that was lost, it moves nothing.
    assert 1790 < await keep(farm, held, seconds=5.0) < 1800
    [answer] = await farm.leases.renew([(held.lease.id, held.users[0].fence)])
    assert isinstance(answer, Lost)
    assert "is kept, and not renewed" in answer.detail
    for worker_id in ("gw0", None):
        await farm.leases.end_holder("run", worker_id, outcome="crashed", clean=False)
    kept = (await farm.leases.show(held.lease.id)).lease
    assert (kept.state, kept.outcome) == ("held", "failed")
    assert kept.kept_at is not None
    assert kept.expires_at is not None
    assert 1790 < (kept.expires_at - kept.kept_at).total_seconds() <= 1800


async def test_its_time_ends_it_without_a_rest_and_leaves_the_user_dirty(
    farm: Farm,
) -> None:
    await farm.add_user()
    held = await farm.held()
    await keep(farm, held)
    waiting = await farm.waiting()
    await farm.let_lapse(held)
    await farm.expiry.look()
    assert (await farm.held(lease_id=waiting.lease.id)).users[0].dirty
    ended = (await farm.leases.show(held.lease.id)).lease
    assert (ended.state, ended.outcome) == ("expired", "failed")
    assert ended.end_reason == "the time is over for which it was kept"
    with pytest.raises(LeaseEndedError):
        await keep(farm, held)


async def test_a_person_ends_it_by_a_break_or_a_release(farm: Farm) -> None:
    user = await farm.add_user()
    for by_break in (True, False):
        held = await farm.held()
        await keep(farm, held, outcome="error")
        if by_break:
            await farm.leases.break_lease(held.lease.id, "seen enough")
        else:
            await farm.release(held)
        assert (await farm.leases.show(held.lease.id)).lease.outcome == "error"
        assert (await farm.users.get(user.id)).dirty


async def test_only_who_holds_it_can_keep_it(farm: Farm) -> None:
    await farm.add_user()
    held, waiting = await farm.held(), await farm.waiting()
    fence = held.users[0].fence
    for lease_id, given, refusal in (
        (held.lease.id, Fence(fence + 1), LeaseMismatchError),
        (waiting.lease.id, fence, LeaseMismatchError),
        (LeaseId(uuid.uuid4()), fence, LeaseNotFoundError),
    ):
        with pytest.raises(refusal):
            await farm.leases.keep(lease_id, given, seconds=60, outcome="failed")
    await farm.let_lapse(held)
    with pytest.raises(LeaseEndedError):
        await keep(farm, held)


async def test_a_worker_that_waits_for_what_it_kept_is_in_no_knot(farm: Farm) -> None:
    await farm.add_user()
    held = await farm.held(holder=WORKER)
    waiting = await farm.waiting(holder=WORKER)
    await keep(farm, held)
    await farm.expiry.look()
    again = await farm.ask(lease_id=waiting.lease.id, holder=WORKER)
    assert isinstance(again, Waiting)
