"""Where calls wait for their leases, without a connection and without polling."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress

from botfarm_server.domain.errors import ShuttingDownError, TooManyWaitingError
from botfarm_server.domain.models import LeaseId, TokenId


class WaitingRoom:
    """The calls of this process that wait, by lease.

    A call that is woken looks into the database: being woken promises nothing, and a
    wake-up that is lost costs time alone.
    """

    def __init__(self, limit: int, *, per_token: int) -> None:
        self._limit = limit
        self._limit_per_token = per_token
        self._events: defaultdict[LeaseId, set[asyncio.Event]] = defaultdict(set)
        self._closed = False
        self._staying: Counter[TokenId | None] = Counter()
        self._occupied = asyncio.Event()

    @contextmanager
    def enter(self, lease_id: LeaseId) -> Iterator[asyncio.Event]:
        """Register a waiting call *before* it looks, so that no wake-up is missed.

        Raises:
            ShuttingDownError: the server ends; another one will answer.

        """
        if self._closed:
            raise ShuttingDownError
        event = asyncio.Event()
        self._events[lease_id].add(event)
        try:
            yield event
        finally:
            self._events[lease_id].discard(event)
            if not self._events[lease_id]:
                del self._events[lease_id]

    @contextmanager
    def stay(self, token_id: TokenId | None) -> Iterator[None]:
        """Have other processes watched while a call that entered has to wait.

        A call that is granted at once, as most are, is not worth a look.

        Raises:
            TooManyWaitingError: the room is full, or the token's part of it. The call's
                place in the queue is kept, since it has asked already.

        """
        if self.occupancy() >= self._limit:
            raise TooManyWaitingError(self._limit)
        if self._staying[token_id] >= self._limit_per_token:
            raise TooManyWaitingError(self._limit_per_token, of_token=True)
        self._staying[token_id] += 1
        self._occupied.set()
        try:
            yield
        finally:
            self._staying[token_id] -= 1
            self._staying += Counter()  # those that have none left are forgotten
            if not self._staying:
                self._occupied.clear()

    def has_several(self, lease_id: LeaseId) -> bool:
        """Whether several calls wait here for the lease: one was sent twice."""
        return len(self._events.get(lease_id, ())) > 1

    def wake(self, lease_ids: Collection[LeaseId]) -> None:
        for lease_id in lease_ids:
            for event in self._events.get(lease_id, ()):
                event.set()

    def waiting(self) -> list[LeaseId]:
        """The leases that calls of this process wait for."""
        return list(self._events)

    def occupancy(self) -> int:
        """How many calls stay here."""
        return self._staying.total()

    async def until_occupied(self) -> None:
        await self._occupied.wait()

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Send every waiting call away, and let no other in."""
        self._closed = True
        self.wake(self.waiting())


async def wait_up_to(seconds: float, stop: asyncio.Event) -> None:
    """Pause a loop, but not beyond its end."""
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
