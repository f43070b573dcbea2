"""The calls that grant or free users, as the services hand them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


Call = Asked | Returned
