"""The loop that ends what nobody ends or can end, and makes up for lost wake-ups."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from botfarm_server.domain.errors import UnavailableError
from botfarm_server.domain.lifecycle import LeaseTimes
from botfarm_server.domain.models import LeaseId, Pool
from botfarm_server.services.deadlocks import break_knots
from botfarm_server.services.ending import end_lapsed
from botfarm_server.services.hand_on import hand_on
from botfarm_server.services.news import News
from botfarm_server.services.waiting import wait_up_to
from botfarm_server.store import audit, candidates, leases, queue
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

BATCH = 200
"""Leases that one transaction ends: it holds the queue lock for all of them."""
FORGET_BATCH = 1_000
FORGET_INTERVAL = 600.0
"""Seconds between two looks for history that is past its retention."""

_log = structlog.get_logger("botfarm.expiry")


@dataclass
class ExpiryLoop:
    """Ends lapsed leases, hands on rested users and wakes calls that missed a word.

    It runs on every replica. What a replica ends is locked while it does, and each
    update checks again, so that several loops neither fight nor do a thing twice.
    """

    database: Database
    news: News
    times: LeaseTimes
    interval: float
    retention: timedelta
    audit_retention: timedelta

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop`; a database that is away is looked for again."""
        since_forgetting = FORGET_INTERVAL
        while not stop.is_set():
            try:
                await self.look()
                self.news.metrics.looked()
                if since_forgetting >= FORGET_INTERVAL:
                    await self.forget()
                    since_forgetting = 0.0
            except UnavailableError as error:
                _log.warning("expiry loop waits for the database", why=error.detail)
            except Exception:  # noqa: BLE001 - without the loop nothing expires
                _log.exception("expiry loop failed, and goes on")
            # Replicas that started together would otherwise look together.
            pause = self.interval * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            await wait_up_to(pause, stop)
            since_forgetting += pause

    async def look(self) -> None:
        """One round."""
        while await self._is_something_due():
            if await self._end_lapsed_and_hand_on() < BATCH:
                break
        await self._break_knots()
        await self.wake_granted()

    async def _is_something_due(self) -> bool:
        # Without the queue lock, so that an idle farm costs two small reads.
        async with self.database.read() as connection:
            now = await read_clock(connection)
            if await leases.any_lapsed(connection, now):
                return True
            pools = await queue.pools_waited_for(connection)
            return bool(await _projects_due(connection, pools, now))

    async def _end_lapsed_and_hand_on(self) -> int:
        async with self.database.queue() as (connection, now):
            lapsed = await leases.lapsed(connection, now, limit=BATCH)
            endings = await end_lapsed(connection, lapsed, now=now, times=self.times)
            pools = {pool for ending in endings for pool in ending.pools}
            projects = {named for ending in endings for named in ending.projects}
            waited_for = await queue.pools_waited_for(connection)
            projects |= await _projects_due(connection, waited_for, now)
            granted = await hand_on(
                connection,
                pools | waited_for,
                now=now,
                times=self.times,
                projects=projects,
            )
        self.news.tell(endings, granted)
        return len(lapsed)

    async def _break_knots(self) -> None:
        endings, granted = await break_knots(self.database, self.times)
        self.news.tell(endings, granted)

    async def wake_granted(self) -> None:
        """Wake the calls of this process whose leases no longer wait."""
        waiting = self.news.room.waiting()
        if waiting:
            async with self.database.read() as connection:
                ready: set[LeaseId] = await leases.no_longer_waiting(
                    connection, waiting
                )
            self.news.tell(others=ready)

    async def forget(self) -> None:
        """Delete history that is past its retention."""
        for forget, retention in (
            (leases.forget_ended, self.retention),
            (audit.forget, self.audit_retention),
        ):
            gone = FORGET_BATCH
            while gone == FORGET_BATCH:
                async with self.database.write() as connection:
                    before = await read_clock(connection) - retention
                    gone = await forget(connection, before, limit=FORGET_BATCH)


async def _projects_due(
    connection: Connection, pools: Collection[Pool], now: datetime
) -> set[UUID | None]:
    """The projects that have free users in the pools, and are waited for.

    `None` stands for any. Who waits for users of another one is not looked at.
    """
    return {
        project_id
        for project_id in (await queue.projects_waited_for(connection) if pools else ())
        if await candidates.any_free_and_waited_for(
            connection, pools, now=now, projects=[project_id]
        )
    }
