"""The words of leasing as immutable values.

Every time is an aware `datetime` read from the database's clock, every duration a
number of seconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NewType
from uuid import UUID

LeaseId = NewType("LeaseId", UUID)
UserId = NewType("UserId", UUID)
ReservationId = NewType("ReservationId", UUID)
TokenId = NewType("TokenId", UUID)
Fence = NewType("Fence", int)
"""Grows with every grant; whoever holds an older one has lost the user."""

LeaseState = Literal[
    "waiting", "held", "released", "cancelled", "abandoned", "expired", "revoked"
]
EndedState = Literal["released", "cancelled", "abandoned", "expired", "revoked"]
LeaseSelection = Literal["live", "ended", "all", LeaseState]
"""Which leases to list; live are those waiting or held."""
UserState = Literal["free", "held", "resting", "quarantined"]
Role = Literal["read", "lease", "admin"]
"""What a token may; each may what those before it may."""
Outcome = Literal["passed", "failed", "error", "skipped", "crashed", "unknown"]


@dataclass(frozen=True, slots=True)
class Pool:
    """The env and domain that bound every want: the unit that waiters queue for."""

    env: str
    domain: str


@dataclass(frozen=True, slots=True)
class Want:
    """What a test asks for.

    `user_id` is set only by the first API, which asks for one user by its id.
    """

    env: str
    domain: str
    project_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1
    user_id: UserId | None = None

    @property
    def pool(self) -> Pool:
        return Pool(self.env, self.domain)

    @property
    def criteria(self) -> Hashable:
        """What a user has to meet: the same of wants that differ in their count."""
        labels = frozenset(self.labels.items())
        return self.pool, self.project_id, self.user_id, labels


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a lease. Every part may be unknown."""

    run_id: str | None = None
    worker_id: str | None = None
    test_id: str | None = None
    host: str | None = None
    job_url: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the rules need to know of a user in order to grant it."""

    id: UserId
    env: str
    domain: str
    project_id: UUID | None
    labels: Mapping[str, str]

    @property
    def pool(self) -> Pool:
        return Pool(self.env, self.domain)


@dataclass(frozen=True, slots=True)
class User:
    """A test account as people and tools see it: no secret is part of it."""

    id: UserId
    login: str
    project_id: UUID | None
    env: str
    domain: str
    labels: Mapping[str, str]
    created_at: datetime
    state: UserState
    locktime: datetime | None
    lease_id: LeaseId | None
    fence: Fence
    dirty: bool
    quarantine_reason: str | None
    quarantined_by: str | None
    idle: bool
    """Whether its lease is held, and no test has that at present."""


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list: those that have all that is given here."""

    env: str | None = None
    domain: str | None = None
    project_id: UUID | None = None
    login: str | None = None
    state: UserState | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


EVERY_USER = UserFilter()


@dataclass(frozen=True, slots=True)
class QuarantinedUser:
    """A user that is out of rotation, and why."""

    login: str
    reason: str


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Users that would match a want if they were not in quarantine."""

    count: int = 0
    first: Sequence[QuarantinedUser] = ()
    """Some of them, by their logins."""


@dataclass(frozen=True, slots=True)
class Matching:
    """How many users match a want, by what they are doing."""

    free: int
    """Too few of them, or kept for a waiter before."""
    held: int
    resting: int
    quarantined: Quarantined


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place in a pool, kept for a user that is being made elsewhere."""

    id: ReservationId
    env: str
    domain: str
    project_id: UUID | None
    expires_at: datetime
    token_id: TokenId | None = None
    """Whose it is; `None` where it was reserved without a stored token."""

    def takes(self, env: str, domain: str, project_id: UUID | None) -> bool:
        """Whether a user of this pool may have the place."""
        return (self.env, self.domain) == (env, domain) and self.project_id in {
            None,
            project_id,
        }


@dataclass(frozen=True, slots=True)
class PassedOnUser:
    """A user that an ended lease had, and who has it now."""

    user_id: UserId
    login: str
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class KnotMember:
    """A waiter of a knot: holders that wait for each other."""

    lease_id: LeaseId
    test_id: str | None
    worker_id: str | None
    run_id: str | None
    host: str | None
    has: Sequence[str]
    """The logins that it holds, or that are kept for it."""
    waits_for: Sequence[str]
    leased_for: Sequence[str | None] = ()
    """The test, class, file or run that each of the logins was leased for; `None` for
    one that is kept for it, and for what the waiter must not see."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One holder's right to one or more users, waiting, held or ended."""

    id: LeaseId
    state: LeaseState
    wants: Sequence[Want]
    holder: Holder
    ttl: float | None
    """Seconds from a renewal to the expiry; `None` for a lease that never expires."""
    created_at: datetime
    queue_number: int | None = None
    fence: Fence | None = None
    granted_at: datetime | None = None
    expires_at: datetime | None = None
    poll_by: datetime | None = None
    """A waiter that nobody asked about until then is abandoned."""
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    end_reason: str | None = None
    knot: Sequence[KnotMember] | None = None
    """The deadlock out of which this waiter was taken, as its youngest."""
    kept_at: datetime | None = None
    """Since then it is held for a person to look at, and renewed by nobody."""
    token_id: TokenId | None = None
    """Whose it is; `None` where it was asked for without a stored token."""

    @property
    def project_id(self) -> UUID | None:
        """The project that all its wants name, if they do."""
        named = {want.project_id for want in self.wants}
        return named.pop() if len(named) == 1 else None


@dataclass(frozen=True, slots=True)
class Token:
    """A token as people see it: what is secret about it is not kept."""

    id: TokenId
    name: str
    role: Role
    project_id: UUID | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class GrantedUser:
    """A user as its holder gets it. The password is here and nowhere else."""

    id: UserId
    login: str
    password: str | None = field(repr=False)
    secrets: Mapping[str, str] = field(repr=False)
    state: str | None = field(repr=False)
    """What its last holder left for the next."""
    state_is_apart: bool
    """Whether that is too large to be told with the lease."""
    project_id: UUID | None
    env: str
    domain: str
    labels: Mapping[str, str]
    fence: Fence
    dirty: bool
    want: int
    """The index of the want that this user meets."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A held user that a waiter could take, and who holds it."""

    user_id: UserId
    login: str
    lease_id: LeaseId
    holder: Holder
    held_for: float
    expires_in: float | None
    kept: bool
    """Whether its test is over, and it is held for a person to look at."""
