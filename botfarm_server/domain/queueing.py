"""Who is granted what, and in which order: first come, first served.

A later waiter never takes a user with which an earlier one could have been granted in
full. A waiter that cannot be met yet (several users, or rare ones) may be passed by
smaller ones for `patience` seconds; from then on what it could use is kept for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from botfarm_server.domain.matching import assign
from botfarm_server.domain.models import Candidate, LeaseId, UserId, Want


@dataclass(frozen=True, slots=True)
class Waiter:
    id: LeaseId
    wants: Sequence[Want]
    since: datetime
    prefers: Collection[UserId] = ()
    """Users that it would rather have than others which as few need."""


@dataclass(frozen=True, slots=True)
class Grant:
    lease_id: LeaseId
    users: Mapping[UserId, int]
    """Each user granted, with the index of the want that it meets."""


@dataclass(frozen=True, slots=True)
class Plan:
    grants: Sequence[Grant]
    kept: Mapping[LeaseId, Sequence[Candidate]]
    """Free users that are kept for a waiter whose patience is over."""
    left: Sequence[Candidate]
    """Users that no waiter takes and that are kept for none."""


def plan_grants(
    waiters: Iterable[Waiter],
    free: Sequence[Candidate],
    *,
    now: datetime,
    patience: float,
) -> Plan:
    """Decide the grants for `waiters`, oldest first, out of the users in `free`.

    `free` is in order of preference. It must hold, for each want, the first users
    that match it, as many as all the waiters together ask for, or every one of them:
    a waiter takes or keeps no more users than it asks for, so more are never needed.
    """
    left = list(free)
    grants: list[Grant] = []
    kept: dict[LeaseId, Sequence[Candidate]] = {}
    for waiter in waiters:
        if not left:
            break
        is_patient = now - waiter.since < timedelta(seconds=patience)
        if is_patient and users_needed([waiter]) > len(left):
            continue
        assignment = assign(waiter.wants, _in_order_for(waiter, left))
        if assignment.complete:
            grants.append(Grant(waiter.id, assignment.taken))
        elif is_patient:
            continue
        else:
            kept[waiter.id] = [user for user in left if user.id in assignment.taken]
        left = [user for user in left if user.id not in assignment.taken]
    return Plan(grants, kept, left)


def _in_order_for(waiter: Waiter, left: Sequence[Candidate]) -> Sequence[Candidate]:
    if not waiter.prefers:
        return left
    # Labels first all the same: a user with more of them is left to who needs it.
    return sorted(
        left, key=lambda user: (len(user.labels), user.id not in waiter.prefers)
    )


def users_needed(waiters: Iterable[Waiter]) -> int:
    """How many matching users of each want `plan_grants` may need to see."""
    return sum(want.count for waiter in waiters for want in waiter.wants)
