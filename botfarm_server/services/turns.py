"""Calls that grant or free users, in groups: the turns that a replica takes.

Every such call needs the queue lock, one transaction after the other. Those that come
while a transaction is under way wait for its end together, and share the next one: one
lock, one commit, and one statement where each had its own. A call that comes alone is
begun at once. (PostgreSQL's group commit does the same for the write-ahead log.)

What one sender has many of waits longer than what another has one of: a turn takes one
call of each, again and again until it is full. (As fair queueing does for packets.)
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import structlog

from botfarm_server.domain.errors import DatabaseUnavailableError, ShuttingDownError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.services.calls import Asked, Call, Left
from botfarm_server.services.locking import until_unlocked
from botfarm_server.services.news import News
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.settling import Settled, Turn
from botfarm_server.store.engine import Database

_log = structlog.get_logger("botfarm.turns")

MOST_TOGETHER = 64
"""Calls of one turn: the others wait until it ends."""
MOST_USERS = 256
"""Users for which the calls of a turn ask, but for the last: all that is sealed of them
is held until the turn ends."""


@dataclass
class Pending:
    """A call that waits for its turn."""

    call: Call
    settled: asyncio.Future[Settled]


@dataclass
class Turns:
    """Settles calls, each exactly once: a sender's in the order of their arrival."""

    database: Database
    news: News
    sealer: Sealer
    times: LeaseTimes
    _pending: dict[Hashable, deque[Pending]] = field(default_factory=dict)
    """By sender: first is the one whose call is taken next."""
    _rows: asyncio.Lock = field(default_factory=asyncio.Lock)
    _work: asyncio.Task[None] | None = None

    async def settle(self, call: Call) -> Settled:
        """What came of the call, committed.

        Cancelling it before its turn withdraws it; a turn that has begun is finished.

        Raises:
            DatabaseUnavailableError: whether it was settled is not known.
            SecretUnreadableError: nothing was done.

        """
        while (settled := await self._in_turn(call)).is_locked:
            # With one connection at most: renewals need the others.
            async with self._rows:
                await until_unlocked(self.database, call.lease_id)
        return settled

    async def _in_turn(self, call: Call) -> Settled:
        pending = self._line_up(call)
        if self._work is None or self._work.done():
            # A task of its own: the caller may be cancelled, and others go on.
            self._work = asyncio.create_task(self._take_turns(), name="botfarm turns")
        return await pending.settled

    def _line_up(self, call: Call) -> Pending:
        pending = Pending(call, asyncio.get_running_loop().create_future())
        self._pending.setdefault(call.by.sender, deque()).append(pending)
        return pending

    async def close(self, within: float) -> None:
        """Let the turn under way end. Calls that still wait are told to ask again."""
        if self._work is not None:
            await asyncio.wait({self._work}, timeout=within)
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def _take_turns(self) -> None:
        try:
            while together := self._next():
                try:
                    await self.take(together)
                except Exception:  # noqa: BLE001 - the next calls have their turn
                    _log.exception("a turn failed after its transaction")
                finally:
                    for pending in together:
                        _fail(pending, ShuttingDownError())
        finally:
            for line in self._pending.values():
                for pending in line:
                    _fail(pending, ShuttingDownError())
            self._pending.clear()

    def _next(self) -> list[Pending]:
        """The calls of the next turn: of one lease not more than one."""
        together: list[Pending] = []
        later: list[Pending] = []
        named = set()
        users = 0
        while self._pending and len(together) < MOST_TOGETHER and users < MOST_USERS:
            sender = next(iter(self._pending))
            line = self._pending.pop(sender)
            pending = line.popleft()
            if line:
                self._pending[sender] = line  # behind all others
            if pending.settled.cancelled():
                continue
            is_first = pending.call.lease_id not in named
            (together if is_first else later).append(pending)
            named.add(pending.call.lease_id)
            users += _users_of(pending.call) if is_first else 0
        for pending in reversed(later):
            line = self._pending.setdefault(pending.call.by.sender, deque())
            line.appendleft(pending)
        return together

    async def take(self, together: Sequence[Pending]) -> None:
        """One turn: settle these calls about different leases in one transaction."""
        try:
            async with self.database.queue() as (connection, now):
                turn = Turn(connection, now, self.sealer, self.times)
                calls = [pending.call for pending in together]
                if self.news.room.is_closed():
                    # Hundreds may be lost at once to a server that ends: their places
                    # are kept for their time.
                    calls = [call for call in calls if not isinstance(call, Left)]
                settled = await turn.settle(calls) if calls else {}
        except DatabaseUnavailableError as error:
            for pending in together:
                _fail(pending, DatabaseUnavailableError(error.why))
        except Exception as error:  # noqa: BLE001 - it is the caller's to handle
            if len(together) == 1:
                _fail(together[0], error)
            else:
                # Nothing was committed. One of them is to blame, and fails alone.
                for pending in together:
                    await self.take([pending])
        else:
            self.news.tell(
                turn.endings, turn.granted, turn.others, at_once=turn.at_once
            )
            for pending in together:
                if not pending.settled.cancelled():
                    name = pending.call.lease_id
                    pending.settled.set_result(settled.get(name, Settled()))


def _users_of(call: Call) -> int:
    """For how many users it asks."""
    return sum(it.count for it in call.wants) if isinstance(call, Asked) else 0


def _fail(pending: Pending, error: Exception) -> None:
    if not pending.settled.done():
        pending.settled.set_exception(error)
