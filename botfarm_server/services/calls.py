"""The calls that grant or free users, as the services hand them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from botfarm_server.domain.access import EVERYTHING, Caller
from botfarm_server.domain.models import (
    Fence,
    Holder,
    LeaseId,
    Outcome,
    UserId,
    Want,
)


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that asks for a lease."""

    lease_id: LeaseId
    wants: Sequence[Want]
    ttl: float | None
    wait: float
    holder: Holder
    prefer: Sequence[UserId] = ()
    """Users that it would like best. It matters only where nobody is before it, and is
    no part of what is asked for."""
    by: Caller = EVERYTHING


@dataclass(frozen=True, slots=True)
class Returned:
    """One call that gives a lease back, or gives up waiting for it."""

    lease_id: LeaseId
    fence: Fence | None = None
    outcome: Outcome | None = None
    clean: bool = True
    by: Caller = EVERYTHING


@dataclass(frozen=True, slots=True)
class Left:
    """A call that asked, and whose client has left before it was answered."""

    lease_id: LeaseId
    poll_by: datetime | None
    """What it noted in the waiter, or in the lease that it made."""
    earlier: datetime | None
    """What was noted before: another call may wait still, at whichever replica."""
    made_it: bool
    """Whether the lease is one of its making."""
    by: Caller = EVERYTHING


Call = Asked | Returned | Left
