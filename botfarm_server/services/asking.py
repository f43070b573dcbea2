"""Asking for leases: at once where nobody is before, in the queue otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from botfarm_server.domain.errors import BotfarmError, ShuttingDownError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import Lease
from botfarm_server.services.answers import (
    Held,
    Waiting,
    check_told,
    log_held,
    log_waiting,
    look,
    look_if_held,
)
from botfarm_server.services.calls import Asked, Left
from botfarm_server.services.news import News
from botfarm_server.services.possibility import outside_of, why_impossible
from botfarm_server.services.sealing import Sealer
from botfarm_server.services.settling import Settled
from botfarm_server.services.sharing import FewOfEach
from botfarm_server.services.turns import Turns
from botfarm_server.store.engine import Database

LOOKS_AT_ONCE = 4
"""Calls of a sender that look at what came of their waits: as many connections."""


@dataclass
class AskService:
    """The use case of asking."""

    database: Database
    news: News
    sealer: Sealer
    times: LeaseTimes
    turns: Turns
    looks: FewOfEach = field(default_factory=lambda: FewOfEach(LOOKS_AT_ONCE))

    async def ask(
        self, asked: Asked, gone: Callable[[], Awaitable[object]] | None = None
    ) -> Held | Waiting:
        """Grant the wants all at once, or wait up to `asked.wait` seconds for them.

        Asking again with the same id gives the same lease, or keeps the same place.
        `gone` completes when the caller has left: it is granted nothing then until it
        asks again, and its place is kept for the time of a re-poll. No database
        connection is held while waiting.

        Raises:
            ForbiddenError: the lease is another's, or a user of it was moved to a
                project that the caller does not know.
            NoSuchPoolError, PoolTooSmallError: waiting could not end.
            DeadlockError: everybody in the way waits as well.
            LeaseMismatchError: the id was used before, with other wants.
            LeaseNotFoundError: the id was used before, by somebody else.
            LeaseEndedError: the lease is over.
            ShuttingDownError, TooManyWaitingError: ask again.

        """
        answer = await self._answer(asked, gone)
        if isinstance(answer, Held):
            projects = [user.project_id for user in answer.users]
            check_told(asked.by, answer.lease, projects)
        return answer

    async def _answer(
        self, asked: Asked, gone: Callable[[], Awaitable[object]] | None
    ) -> Held | Waiting:
        if self.news.room.is_closed():
            raise ShuttingDownError
        if outside_of(asked.by.project_id, asked.wants):
            await self._refuse(asked)
        if asked.wait <= 0:
            settled = await self.turns.settle(asked)
            at_once = await self._at_once(asked, settled, gone)
            return at_once or await self._look(asked)
        ends = time.monotonic() + asked.wait
        settled = Settled()
        with self.news.room.enter(asked.lease_id) as woken:
            while not self.news.room.is_closed():
                woken.clear()
                within = max(0.0, ends - time.monotonic())
                again = await self.turns.settle(replace(asked, wait=within))
                if settled.poll_by is not None and again.earlier == settled.poll_by:
                    # Nobody has asked in between: what it noted is its own.
                    again = replace(again, earlier=settled.earlier)
                settled = again
                at_once = await self._at_once(asked, settled, gone)
                if at_once is not None:
                    return at_once
                with self.news.room.stay(asked.by.token_id):
                    left = await _wait(woken, gone, within=within)
                if left and not self.news.room.has_several(asked.lease_id):
                    await self._leave(asked, settled)
                if self.news.room.is_closed():
                    # Who asks again is told what came of it: for hundreds of calls to
                    # look, one after the other, takes longer than a server has to end.
                    break
                answer = await self._look_again(asked, is_heard=not left)
                if left or isinstance(answer, Held) or time.monotonic() >= ends:
                    return answer
                # Another call about it has left the queue for it, or took it back.
        raise ShuttingDownError

    async def _refuse(self, asked: Asked) -> None:
        """Refuse wants of another project: to the caller it has no users."""
        async with self.database.read() as connection:
            refusal = await why_impossible(connection, asked.wants, asked.by.project_id)
        if refusal is not None:
            raise refusal

    async def _at_once(
        self,
        asked: Asked,
        settled: Settled,
        gone: Callable[[], Awaitable[object]] | None,
    ) -> Held | Waiting | None:
        """The lease if it is held, `None` if it waits.

        A new lease whose caller has left by now is taken back, and waits for a re-poll.
        """
        if settled.is_new and isinstance(settled.answer, Held) and _has_come(gone):
            await self._leave(asked, settled)
            return await self._look_again(asked, is_heard=False)
        return _held(settled)

    async def _look_again(
        self, asked: Asked, *, is_heard: bool = True
    ) -> Held | Waiting:
        """What came of a wait: most often the grant, and the test has it sooner.

        Of what is not heard, since the caller has left, little is looked up.
        """
        async with (
            self.looks.place_of(asked.by),
            self.database.glance() as connection,
        ):
            held = await look_if_held(connection, asked.lease_id, self.sealer)
        if held is None:
            return await self._look(asked, is_heard=is_heard)
        self.news.metrics.handed_on(held.held_for)
        log_held(held.lease, [user.login for user in held.users])
        return held

    async def _look(self, asked: Asked, *, is_heard: bool = True) -> Held | Waiting:
        async with (
            self.looks.place_of(asked.by),
            self.database.read() as connection,
        ):
            answer = await look(
                connection, asked.lease_id, self.sealer, says_why=is_heard
            )
        if isinstance(answer, BotfarmError):
            raise answer
        if isinstance(answer, Held):
            log_held(answer.lease, [user.login for user in answer.users])
        return answer

    async def _leave(self, asked: Asked, settled: Settled) -> None:
        """Take a waiter whose caller is gone out of the queue; its number stays.

        Of a server that ends, to which hundreds of calls may be lost at once, its place
        is kept for its time.
        """
        if self.news.room.is_closed():
            return
        left = Left(
            asked.lease_id,
            poll_by=settled.poll_by,
            earlier=settled.earlier,
            made_it=settled.is_new,
            by=asked.by,
        )
        await self.turns.settle(left)


def _held(settled: Settled) -> Held | None:
    """The lease if it is held, `None` if it waits."""
    match settled.answer:
        case Held() as held:
            log_held(held.lease, [user.login for user in held.users])
            return held
        case Lease() as lease:
            if settled.is_new:
                log_waiting(lease)
            return None
        case BotfarmError() as error:
            raise error
        case _:
            raise TypeError("a call that asks was answered as one that gives back")


def _has_come(event: Callable[[], Awaitable[object]] | None) -> bool:
    """Whether there is nothing left to wait for, without a turn of the event loop."""
    if event is None:
        return False
    waiting = event().__await__()
    try:
        next(waiting)
    except StopIteration:
        return True
    finally:
        waiting.close()
    return False


async def _wait(
    woken: asyncio.Event,
    gone: Callable[[], Awaitable[object]] | None,
    *,
    within: float,
) -> bool:
    """Wait for a wake-up, for the caller to leave or for time to pass; did it leave?"""
    # One task at most: there may be thousands of such calls.
    timer = asyncio.get_running_loop().call_later(within, woken.set)
    leaving = asyncio.ensure_future(gone()) if gone is not None else None
    if leaving is not None:
        leaving.add_done_callback(lambda _: woken.set())
    try:
        await woken.wait()
        return leaving is not None and leaving.done()
    finally:
        timer.cancel()
        if leaving is not None:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
