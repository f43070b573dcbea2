"""What a lease may become, and when it ends.

(none) ──► waiting ──► held ──► released | expired | revoked
              └──► cancelled | abandoned

A held lease may be kept: its holder has done with it, and a person looks at its users
until a time that nothing moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeGuard

from botfarm_server.domain.models import EndedState, Lease, LeaseState, Outcome

HEARTBEATS = 3
"""Renewals in a TTL, by the protocol: a holder hears at the next that it has lost."""
HEARTBEAT_GRACE = 5.0
"""Seconds that a heartbeat may be late, and its holder slow to stop."""


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
    cooldown: float = 0.0
    """How long a user rests after every lease: real systems limit logins."""
    quarantine_after: int = 0
    """How many tests may fail in a row with a user, not a time; 0 for any number."""


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


def is_kept(lease: Lease) -> bool:
    return lease.kept_at is not None


def lapsed_state(state: LeaseState) -> EndedState:
    """What a lease whose time is over becomes."""
    return "abandoned" if state == "waiting" else "expired"


def rests_until(
    now: datetime,
    state: EndedState,
    times: LeaseTimes,
    *,
    ttl: float | None = None,
    left: bool = False,
) -> datetime | None:
    """Until when the users of a held lease that ended so are not handed on.

    A holder that has `left` uses them no more, and needs no delay: it is known to be
    dead, or had the lease kept for a person.
    """
    rest = times.cooldown
    if not left:
        rest = max(rest, _may_be_used_for(state, ttl, times))
    return now + timedelta(seconds=rest) if rest else None


def _may_be_used_for(state: EndedState, ttl: float | None, times: LeaseTimes) -> float:
    """For how many seconds the holder of a lease that ended so may not know of it."""
    match state:
        case "released" | "cancelled" | "abandoned":
            return 0.0
        case "revoked" if ttl is not None:
            return max(times.lock_delay, ttl / HEARTBEATS + HEARTBEAT_GRACE)
        case "expired" | "revoked":
            return times.lock_delay


def leaves_dirty(
    state: EndedState, outcome: Outcome | None, *, clean: bool, kept: bool = False
) -> bool:
    """Whether the next holder is told to look at the user first."""
    return state != "released" or not clean or outcome == "crashed" or kept


def failed_in_a_row(
    before: Sequence[str], test_id: str | None, outcome: Outcome | None
) -> Sequence[str]:
    """The tests that failed in a row with a user, each once, after one more lease.

    A test that fails again tells nothing new about the user, and one without a name
    cannot be told from others.
    """
    match outcome:
        case "passed":
            return ()
        case "failed" | "error" | "crashed":
            if test_id is None or test_id in before:
                return before
            return (*before, test_id)
        case "skipped" | "unknown" | None:
            return before
