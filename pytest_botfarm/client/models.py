"""What a client asks for and gets, as immutable values.

Durations are seconds. Instants (`deadline`) are readings of `client.clock`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

Outcome = Literal["passed", "failed", "error", "skipped", "crashed", "unknown"]
LostState = Literal[
    "released", "cancelled", "abandoned", "expired", "revoked", "waiting", "unknown"
]


@dataclass(frozen=True, slots=True)
class Want:
    """What a test asks for: `count` users of one env and domain."""

    env: str
    domain: str
    project_id: UUID | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1

    def __str__(self) -> str:
        parts = [f"{self.count} ×"] if self.count > 1 else []
        parts.append(f"{self.env}/{self.domain}")
        if self.project_id is not None:
            parts.append(f"project {self.project_id}")
        parts += [f"{name}={value}" for name, value in sorted(self.labels.items())]
        return " ".join(parts)

    @property
    def key(self) -> Hashable:
        """The same for wants that are equal; what is shown of two may be the same."""
        labels = tuple(sorted(self.labels.items()))
        return (self.env, self.domain, self.project_id, labels, self.count)


@dataclass(frozen=True, slots=True)
class NewUser:
    """An account that a suite has just made on the system under test.

    Its env and domain are those of the want. The want's labels are added to `labels`,
    and its project is that of the account where none is given. Secrets are left out of
    the repr and of `==`, as in `LeasedUser`.
    """

    login: str
    password: str = field(repr=False, compare=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    project_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a lease, for the eyes of those who wait for the same users."""

    run_id: str | None = None
    worker_id: str | None = None
    test_id: str | None = None
    host: str | None = None
    job_url: str | None = None

    def is_same_test(self, other: Holder) -> bool:
        """Whether both are one test in one worker of one run."""
        return self.test_id is not None and (
            (self.run_id, self.worker_id, self.test_id)
            == (other.run_id, other.worker_id, other.test_id)
        )

    def __str__(self) -> str:
        known = (
            ("worker", self.worker_id),
            ("host", self.host),
            ("run", self.run_id and self.run_id[:8]),
            ("job", self.job_url),
        )
        facts = ", ".join(f"{name} {value}" for name, value in known if value)
        test = self.test_id or "an unnamed holder"
        return f"{test} ({facts})" if facts else test


@dataclass(frozen=True, slots=True)
class LeasedUser:
    """A user in the hands of its holder.

    Secrets are left out of the repr, and out of `==` too, since pytest shows each
    compared field of two unequal dataclasses.
    """

    id: UUID
    login: str
    password: str | None = field(repr=False, compare=False)
    """None where the server holds the hash alone."""
    secrets: Mapping[str, str] = field(repr=False, compare=False)
    state: str | None = field(repr=False, compare=False)
    """What its last holder left for the next."""
    state_is_apart: bool
    """Whether it takes a call of its own to get the state."""
    project_id: UUID | None
    env: str
    domain: str
    labels: Mapping[str, str]
    fence: int
    dirty: bool
    want: int
    """The index of the want that it meets."""

    def __str__(self) -> str:
        return f"{self.login} ({self.env}/{self.domain})"


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted lease."""

    id: UUID
    fence: int
    ttl: float | None
    waited: float
    users: tuple[LeasedUser, ...]
    granted: float
    """An instant that is certainly not after the grant."""
    expires_in: float | None
    """Seconds from `granted` to the expiry, unless renewed; None for never."""


@dataclass(frozen=True, slots=True)
class Freed:
    """A lease that was ended in the place of its dead holder, and what it had."""

    test_id: str | None
    logins: Sequence[str]
    quarantined: Mapping[str, str]
    """Those that went into quarantine with it, and why."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Users that nobody gets since they are out of rotation."""

    count: int
    first: Mapping[str, str]
    """The reason of each by its login; not more than a few of them."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """A user that a waiter could take, and who holds it."""

    user_id: UUID
    login: str
    holder: Holder
    held_for: float
    expires_in: float | None
    kept: bool = False
    """Whether its test is over, and it is held for a person to look at."""


@dataclass(frozen=True, slots=True)
class Matching:
    """How many users match what a waiter asks for, by what they are doing."""

    free: int
    """Too few of them, or kept for a waiter before."""
    held: int
    resting: int
    quarantined: Quarantined

    @property
    def count(self) -> int:
        return self.free + self.held + self.resting + self.quarantined.count


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that is not granted yet."""

    id: UUID
    place: int
    waited: float
    blockers: tuple[Blocker, ...]
    matching: Matching | None = None
    """None where they are too many to count, and from servers that count none."""


@dataclass(frozen=True, slots=True)
class PassedOn:
    """A user that a lost lease had, and who has it now, if anyone."""

    user_id: UUID
    login: str
    holder: Holder | None


@dataclass(frozen=True, slots=True)
class Renewed:
    """A lease that goes on."""

    id: UUID
    expires_in: float | None


@dataclass(frozen=True, slots=True)
class Lost:
    """A lease that its holder believed to have, and does not."""

    id: UUID
    state: LostState
    detail: str
    ended_ago: float | None
    users: tuple[PassedOn, ...]


@dataclass(frozen=True, slots=True)
class PoolSize:
    """A pool that exists, and how many users it has in rotation."""

    env: str
    domain: str
    users: int


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a lease could count on if it were asked for now."""

    matching: tuple[int, ...]
    """How many users in rotation meet each of its wants."""
    refusal: str | None
    """Why it can never be granted, if so it is."""
