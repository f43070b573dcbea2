"""When each lease of a process is to be renewed, and when it is lost. No I/O.

A lease is lost when the server says so, or when its deadline passes by this side's
clock without a renewal having come back; a heartbeat that merely failed is repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from .clock import jitter as the_jitter
from .models import Lease, Lost, PassedOn, Renewed

FIRST_BEAT = 5.0
"""Seconds from a grant to its first renewal. Most tests are over by then."""
BEATS = 3
"""Renewals in a TTL, so that two in a row may fail."""
MARGIN, MAXIMUM_MARGIN = 0.1, 2.0
"""The part of a lease, and the most seconds, by which it ends early on this side."""
REPEAT_AFTER = (0.5, 1.5)
"""Seconds between tries of a failed heartbeat, at random."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How a lease was lost."""

    at: float
    """The instant since when others may have had its users."""
    reason: str
    users: tuple[PassedOn, ...] = ()


@dataclass(slots=True)
class Lifetime:
    """What a process knows of one of its leases."""

    id: UUID
    fence: int
    due: float
    deadline: float
    loss: Loss | None = None


class Lifetimes:
    """The leases of one process that want to be kept alive. Not thread-safe."""

    def __init__(self, *, jitter: Callable[[float, float], float] = the_jitter) -> None:
        self._alive: dict[UUID, Lifetime] = {}
        self._jitter = jitter

    def watch(self, lease: Lease) -> Lifetime | None:
        """Keep a lease alive from now on; None if it never expires."""
        if lease.expires_in is None:
            return None
        lifetime = Lifetime(
            lease.id,
            lease.fence,
            due=lease.granted + min(FIRST_BEAT, lease.expires_in / BEATS),
            deadline=_deadline(lease.granted, lease.expires_in),
        )
        self._alive[lease.id] = lifetime
        return lifetime

    def forget(self, lease_id: UUID) -> None:
        self._alive.pop(lease_id, None)

    def next_event(self) -> float | None:
        """When the earliest lease wants to be renewed, or ends."""
        return min(
            (min(life.due, life.deadline) for life in self._alive.values()),
            default=None,
        )

    def earliest_deadline(self) -> float | None:
        return min((life.deadline for life in self._alive.values()), default=None)

    def due(self, now: float) -> dict[UUID, int]:
        """The fences of all leases if one of them is due: one call renews all."""
        if any(life.due <= now for life in self._alive.values()):
            return {life.id: life.fence for life in self._alive.values()}
        return {}

    def renewed(self, answers: Mapping[UUID, Renewed | Lost], *, asked: float) -> None:
        """Take in what the server said to a renewal that was sent at `asked`."""
        for lease_id, answer in answers.items():
            life = self._alive.get(lease_id)
            if life is None:
                continue  # released meanwhile
            if isinstance(answer, Lost):
                ended = asked - (answer.ended_ago or 0.0)
                self._lose(life, Loss(ended, answer.detail, answer.users))
            elif answer.expires_in is None:
                self.forget(lease_id)
            else:
                life.due = asked + answer.expires_in / BEATS
                life.deadline = _deadline(asked, answer.expires_in)

    def failed(self, now: float, *, retry_after: float = 0.0) -> None:
        """Have a heartbeat that was in vain repeated soon.

        A server that asks to stay away for some seconds is asked once more before a
        lease is lost.
        """
        pause = self._jitter(*REPEAT_AFTER)
        for life in self._alive.values():
            last = max(now, life.deadline - 2 * pause)
            life.due = min(now + retry_after, last) + pause

    def lose_overdue(self, now: float, reason: str) -> None:
        """Give up the leases whose deadline has passed."""
        for life in list(self._alive.values()):
            if now >= life.deadline:
                self._lose(life, Loss(life.deadline, reason))

    def _lose(self, life: Lifetime, loss: Loss) -> None:
        life.loss = loss
        self.forget(life.id)


def _deadline(start: float, expires_in: float) -> float:
    return start + expires_in - min(expires_in * MARGIN, MAXIMUM_MARGIN)
