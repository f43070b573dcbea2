"""What the checker judges: the history, put in order, and the database's rows.

Times are seconds since the epoch, on the database's clock and on that of the history,
which are one machine's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Operation = Literal["ask", "renew", "end", "release"]
"""PUT of a lease, renewal, DELETE of a lease, release of all that a holder has."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer says of one lease."""

    lease: str
    state: str
    users: Mapping[str, int] = field(default_factory=dict)
    """Fences by user, where the lease is held and the call was to ask for it."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request over HTTP, sent once."""

    process: str
    operation: Operation
    lease: str | None
    start: float
    end: float | None = None
    """None if no answer came: whether the server saw it is unknown."""
    status: int | None = None
    code: str | None = None
    told: Sequence[Told] = ()
    server: int | None = None
    """The number of the server that it was sent to."""
    waits: float = 0.0
    """Seconds for which the server may be silent, since the call waits there."""
    failed: float | None = None
    """When the client knew that there would be no answer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A client's attempt at a lease, however many calls it took."""

    process: str
    lease: str
    start: float
    wait: float
    end: float | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Belief:
    """From when until when a client took itself for the holder."""

    process: str
    lease: str
    users: Mapping[str, int]
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Use:
    """A use of an account. It is stamped before it is sent."""

    process: str
    lease: str
    user: str
    fence: int
    stamp: float
    accepted: bool | None = None
    """None if its outcome is unknown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A use as it reached the witness; they are in the order of arrival."""

    user: str
    fence: int
    lease: str
    accepted: bool


@dataclass(frozen=True, slots=True)
class Fault:
    kind: str
    target: str
    start: float
    end: float | None
    """When it was healed, or None if it never was."""
    stalls: float | None = None
    """None if servers go on working; otherwise the least seconds from its start for
    which all of them may be kept from it, since a lock outlives whoever is cut off."""


@dataclass(frozen=True, slots=True)
class WantRow:
    env: str
    domain: str
    labels: Mapping[str, str] = field(default_factory=dict)
    count: int = 1


@dataclass(frozen=True, slots=True)
class LeaseRow:
    id: str
    number: int
    state: str
    wants: Sequence[WantRow]
    created: float
    granted: float | None = None
    expires: float | None = None
    ended: float | None = None
    fence: int | None = None
    party: str = ""
    """Its holder: those of one party are held, or waited for, by one worker."""
    reason: str | None = None
    """Why it ended, where the farm notes one."""


@dataclass(frozen=True, slots=True)
class GrantRow:
    fence: int
    lease: str
    user: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """A grant that its caller had left before it could be told: the farm undid it.

    The database keeps no row of it, so the server noted it before.
    """

    lease: str
    users: Mapping[str, int]
    """Fences by user."""
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class UserRow:
    id: str
    env: str
    domain: str
    labels: Mapping[str, str]
    fence: int
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A server process at one instant."""

    server: str
    pid: int
    at: float
    connections: int
    descriptors: int
    memory: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The durations that the farm was started with, in seconds, and its limits."""

    loop_interval: float = 1.0
    lock_delay: float = 15.0
    poll_grace: float = 15.0
    patience: float = 10.0
    """How long a waiter for several users may be passed."""
    pool_size: int = 10
    slack: float = 5.0
    """What a busy machine may add to anything."""
    leases_before_faults: int = 0
    """A run with fewer leases before its first fault does not count."""
    leases_under_faults: int = 0
    """Nor does one with fewer of them from then on."""
    hand_ons_under_faults: int = 0
    """Nor one with fewer grants to those who had waited."""
    deadlocks: int = 0
    """Nor one in which fewer were refused for a deadlock."""


@dataclass(slots=True)
class Evidence:
    rules: Rules = field(default_factory=Rules)
    calls: list[Call] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    beliefs: list[Belief] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    killed: Mapping[str, float] = field(default_factory=dict)
    """When which processes were killed."""
    leases: list[LeaseRow] = field(default_factory=list)
    grants: list[GrantRow] = field(default_factory=list)
    taken_back: list[TakenBack] = field(default_factory=list)
    users: list[UserRow] = field(default_factory=list)
    log_lines: list[str] = field(default_factory=list)
    """Lines of the logs of servers and database that tell of something wrong."""
