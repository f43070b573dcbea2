"""What is true of the database after every transaction, read literally."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from botfarm_server.domain.matching import matches
from botfarm_server.domain.models import Candidate, Lease, LeaseId, UserId


@dataclass(frozen=True)
class Books:
    """All that is stored."""

    now: datetime
    leases: Mapping[LeaseId, Lease]
    users: Mapping[UserId, Any]
    grants: Sequence[Any]
    """In the order of their fences."""
    queue: Sequence[Any]

    @classmethod
    def of(
        cls,
        *,
        now: datetime,
        leases: Iterable[Lease],
        users: Iterable[Any],
        grants: Iterable[Any],
        queue: Iterable[Any],
    ) -> Books:
        return cls(
            now=now,
            leases={lease.id: lease for lease in leases},
            users={user.id: user for user in users},
            grants=sorted(grants, key=lambda it: int(it.fence)),
            queue=list(queue),
        )

    def state(self, lease_id: LeaseId) -> str | None:
        lease = self.leases.get(lease_id)
        return None if lease is None else lease.state

    def is_queued(self, lease_id: LeaseId) -> bool:
        return any(entry.lease_id == lease_id for entry in self.queue)

    def grants_of(self, lease_id: LeaseId) -> list[Any]:
        return [grant for grant in self.grants if grant.lease_id == lease_id]

    def grants_of_user(self, user_id: UserId) -> list[Any]:
        return [grant for grant in self.grants if grant.user_id == user_id]

    def granted_at(self, grant: Any) -> datetime:
        time = self.leases[grant.lease_id].granted_at
        assert time is not None
        return time


def violations(books: Books, absent: Collection[LeaseId] = ()) -> list[str]:
    """Each rule that is broken, in words; who is `absent` may have left the queue."""
    return [
        *_of_held_users(books),
        *_of_leases(books),
        *_of_places(books, absent),
        *_of_fences(books),
        *_of_holders_in_time(books),
        *_of_waiters(books),
    ]


def _of_held_users(books: Books) -> Iterator[str]:
    for user in books.users.values():
        if user.lease_id is None:
            continue
        if books.state(user.lease_id) != "held":
            yield f"{user.login} is held by a lease that holds nothing"
        if not any(
            (it.user_id, it.fence) == (user.id, user.fence)
            for it in books.grants_of(user.lease_id)
        ):
            yield f"{user.login} is held without a grant"


def _of_leases(books: Books) -> Iterator[str]:
    for lease in books.leases.values():
        granted = {it.user_id for it in books.grants_of(lease.id)}
        has = {it.id for it in books.users.values() if it.lease_id == lease.id}
        asked = sum(want.count for want in lease.wants)
        name = f"the {lease.state} lease {lease.id}"
        if len(granted) not in {0, asked}:
            yield f"{name} was granted {len(granted)} of {asked} users"
        if has != (granted if lease.state == "held" else set()):
            yield f"{name} has {len(has)} users and was granted {len(granted)}"
        if bool(granted) != (lease.granted_at is not None):
            yield f"{name} has grants without a time, or a time without grants"
        if lease.state == "held" and lease.fence != max(
            it.fence for it in books.grants_of(lease.id)
        ):
            yield f"{name} carries another fence than its grants"


def _of_places(books: Books, absent: Collection[LeaseId]) -> Iterator[str]:
    for lease in books.leases.values():
        places = {it.number for it in books.queue if it.lease_id == lease.id}
        if not places and lease.id in absent:
            continue
        if places != ({lease.queue_number} if lease.state == "waiting" else set()):
            yield f"the {lease.state} lease {lease.id} has the places {places}"


def _of_fences(books: Books) -> Iterator[str]:
    for user in books.users.values():
        own = books.grants_of_user(user.id)
        last = own[-1].fence if own else 0
        # The fence of a grant that was taken back is not used again.
        if user.fence < last or (user.lease_id is not None and user.fence != last):
            yield f"{user.login} does not carry the fence of its last grant"
        times = [books.granted_at(it) for it in own]
        if times != sorted(times):
            yield f"the fences of {user.login} do not grow with time"


def _of_holders_in_time(books: Books) -> Iterator[str]:
    for user in books.users.values():
        for earlier, later in itertools.pairwise(books.grants_of_user(user.id)):
            ended_at = books.leases[earlier.lease_id].ended_at
            if ended_at is None or ended_at > books.granted_at(later):
                yield f"{user.login} had two holders at once"


def _of_waiters(books: Books) -> Iterator[str]:
    free = [
        Candidate(it.id, it.env, it.domain, it.project_id, it.labels)
        for it in books.users.values()
        if it.lease_id is None
        and it.quarantined_at is None
        and (it.rest_until is None or it.rest_until <= books.now)
    ]
    for lease in books.leases.values():
        # Of one user each: whoever wants several may have to wait beside free ones.
        if books.is_queued(lease.id) and any(
            matches(want, user) for want in lease.wants for user in free
        ):
            yield f"{lease.id} waits for a user that is free"
