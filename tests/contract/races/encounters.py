"""What else meets at the crossroads: callers that leave, knots, and users that change.

Only those are crossed that share rows: a lease, a place in the queue or a user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from botfarm_server.domain.errors import DeadlockError, UserLockedError
from botfarm_server.domain.models import Fence, LeaseId, Want
from botfarm_server.services.acquiring import Acquired
from botfarm_server.services.answers import Held, Waiting
from botfarm_server.services.calls import Asked
from botfarm_server.services.deadlocks import break_knots

from .crossroads import (
    ADMIN,
    ADMIN_ID,
    ANY,
    EXPIRY,
    GRANT,
    HAND_ON,
    HELD,
    JOIN,
    OTHERS,
    PLAIN_ID,
    RELEASE,
    RENEW,
    TTL,
    WAITER,
    Operation,
    Replica,
    ask,
    is_told_truly,
    lease_id,
)
from .invariants import Books

LEFT, TAKEN_BACK = lease_id("left"), lease_id("taken back")
LONG = 50.0
"""Seconds that a call would wait whose caller is gone."""

# Callers that leave


async def _ask_and_leave(replica: Replica, name: LeaseId, want: Want) -> Held | Waiting:
    async def gone() -> None:
        """The caller left as soon as it had asked."""

    asked = Asked(name, [want], ttl=TTL, wait=LONG, holder=OTHERS)
    return await replica.farm.asking.ask(asked, gone)


async def _leave(replica: Replica, _: Fence) -> object:
    return await _ask_and_leave(replica, LEFT, ADMIN)


async def _return(replica: Replica, _: Fence) -> object:
    return await ask(replica, "left", ADMIN)


async def _be_taken_back(replica: Replica, _: Fence) -> object:
    return await _ask_and_leave(replica, TAKEN_BACK, ANY)


async def _repeat_late(replica: Replica, _: Fence) -> object:
    return await _ask_and_leave(replica, WAITER, ADMIN)


async def _come_back(replica: Replica, _: Fence) -> object:
    return await replica.farm.ask(ADMIN, lease_id=WAITER, ttl=TTL, holder=OTHERS)


def _has_left(answer: object, books: Books, fence: Fence) -> bool:
    is_queued = books.is_queued(LEFT) or books.is_queued(TAKEN_BACK)
    return not is_queued and is_told_truly(answer, books, fence)


def _is_waiter_served(answer: object, books: Books, fence: Fence) -> bool:
    if books.state(WAITER) == "cancelled":  # with its knot, be it after the answer
        return isinstance(answer, Waiting | DeadlockError)
    is_there = books.is_queued(WAITER) or books.state(WAITER) != "waiting"
    return is_there and is_told_truly(answer, books, fence)


LEAVE = Operation("leave", _leave, _has_left, leaves=LEFT, locks_lease=False)
# Whether it is in the queue at the end depends on which of the two asks last.
LEAVE_ONCE = replace(LEAVE, name="leave_once", allowed=is_told_truly)
RETURN = replace(LEAVE_ONCE, name="return", call=_return)
TAKE_BACK = Operation(
    "take_back", _be_taken_back, _has_left, leaves=TAKEN_BACK, locks_lease=False
)
DUPLICATE = Operation(
    "duplicate",
    _repeat_late,
    _is_waiter_served,
    needs=["waiter"],
    locks_lease=False,
)
COME_BACK = Operation(
    "come_back",
    _come_back,
    _is_waiter_served,
    needs=["absent waiter"],
    leaves=WAITER,
    locks_lease=False,
)

# Knots


async def _break_knots(replica: Replica, _: Fence) -> object:
    farm = replica.farm
    endings, _granted = await break_knots(farm.database, farm.leases.times)
    return [ending.lease.id for ending in endings]


def _is_untied(answer: object, books: Books, _: Fence) -> bool:
    if answer:
        return answer == [WAITER] and books.state(WAITER) == "cancelled"
    return books.state(WAITER) in {"cancelled", "held"}


KNOT = Operation(
    "break_knots",
    _break_knots,
    _is_untied,
    needs=["waiter of the holder"],
    locks_lease=False,
)

# Users that change, and the first API


async def _quarantine(replica: Replica, _: Fence) -> object:
    return await replica.farm.users.quarantine(ADMIN_ID, "stuck")


def _is_quarantined(_: object, books: Books, __: Fence) -> bool:
    return books.users[ADMIN_ID].quarantined_at is not None


async def _restore(replica: Replica, _: Fence) -> object:
    return await replica.farm.users.restore(ADMIN_ID)


def _is_restored(_: object, books: Books, __: Fence) -> bool:
    return books.users[ADMIN_ID].quarantined_at is None


async def _promote(replica: Replica, _: Fence) -> object:
    return await replica.farm.users.change(PLAIN_ID, {"labels": ADMIN.labels})


def _is_promoted(_: object, books: Books, __: Fence) -> bool:
    return bool(books.users[PLAIN_ID].labels == ADMIN.labels)


async def _acquire(replica: Replica, _: Fence) -> object:
    return await replica.farm.acquiring.acquire(PLAIN_ID, ttl=None, holder=OTHERS)


def _is_acquired(answer: object, books: Books, _: Fence) -> bool:
    if isinstance(answer, UserLockedError):
        return True  # who had it may have given it back since
    assert isinstance(answer, Acquired)
    user = books.users[PLAIN_ID]
    return (user.lease_id, user.fence) == (answer.lease_id, answer.fence)


async def _give_back(replica: Replica, _: Fence) -> object:
    return await replica.farm.acquiring.release(ADMIN_ID)


def _is_given_back(answer: object, books: Books, _: Fence) -> bool:
    return (books.state(HELD) == "released") if answer else books.state(HELD) != "held"


CHANGE = Operation("change", _promote, _is_promoted, locks_lease=False)
QUARANTINE = replace(
    CHANGE, name="quarantine", call=_quarantine, allowed=_is_quarantined
)
RESTORE = replace(
    CHANGE, name="restore", call=_restore, allowed=_is_restored, needs=["quarantine"]
)
ACQUIRE = Operation("acquire", _acquire, _is_acquired, locks_lease=False)
GIVE_BACK = Operation(
    "give_back", _give_back, _is_given_back, needs=["lease of the first API"]
)

ENCOUNTERS: Sequence[tuple[Operation, Operation]] = (
    (LEAVE, RELEASE),
    (LEAVE_ONCE, RETURN),
    (TAKE_BACK, TAKE_BACK),
    (TAKE_BACK, GRANT),
    (DUPLICATE, HAND_ON),
    (DUPLICATE, KNOT),
    (COME_BACK, RELEASE),
    (KNOT, RELEASE),
    (QUARANTINE, HAND_ON),
    (RESTORE, HAND_ON),
    (CHANGE, JOIN),
    (ACQUIRE, GRANT),
    (GIVE_BACK, RENEW),
    (GIVE_BACK, EXPIRY),
)
"""In both orders each."""
