"""What a lease may become, and when it ends.

(none) ──► waiting ──► held ──► released | expired | revoked
              └──► cancelled | abandoned
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeGuard

from botfarm_server.domain.models import EndedState, Lease, LeaseState, Outcome


@dataclass(frozen=True, slots=True)
class LeaseTimes:
    """The durations that the rules are parameterised with, in seconds."""

    claim_window: float = 15.0
    """From a grant to its first expiry, since its client may never have seen it."""
    poll_grace: float = 15.0
    """How long a waiter keeps its place when nobody asks about it."""
    lock_delay: float = 15.0
    """How long a user rests whose holder vanished: a paused one may still use it."""
    patience: float = 10.0
    """How long a waiter may be passed by smaller ones."""


def is_ended(state: LeaseState) -> TypeGuard[EndedState]:
    return state not in {"waiting", "held"}


def first_expiry(now: datetime, ttl: float | None, times: LeaseTimes) -> datetime:
    """When a lease granted at `now` to a client that renews first expires."""
    window = times.claim_window if ttl is None else min(ttl, times.claim_window)
    return now + timedelta(seconds=window)


def renewed_expiry(now: datetime, ttl: float | None) -> datetime | None:
    return None if ttl is None else now + timedelta(seconds=ttl)


def has_lapsed(lease: Lease, now: datetime) -> bool:
    """Whether the lease's time is over, be it marked as ended or not."""
    match lease.state:
        case "held":
            return lease.expires_at is not None and lease.expires_at <= now
        case "waiting":
            return lease.poll_by is not None and lease.poll_by <= now
        case _:
            return False


def lapsed_state(state: LeaseState) -> EndedState:
    """What a lease whose time is over becomes."""
    return "abandoned" if state == "waiting" else "expired"


def rests_until(now: datetime, state: EndedState, times: LeaseTimes) -> datetime | None:
    """Until when the users of a lease that ended so are not handed on."""
    if state == "expired":
        return now + timedelta(seconds=times.lock_delay)
    return None


def leaves_dirty(state: EndedState, outcome: Outcome | None, *, clean: bool) -> bool:
    """Whether the next holder is told to look at the user first."""
    return state != "released" or not clean or outcome == "crashed"
