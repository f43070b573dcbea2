"""One piece of the server replaced by one that is wrong, each as people write them.

The checker has to catch every one of them: a run whose checker does not is worth
nothing. Each is installed behind a switch, so that one server can play all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import func, insert, select, text, update

from botfarm_server.domain.models import Candidate, EndedState, Lease, LeaseId
from botfarm_server.domain.queueing import Grant, Plan, Waiter
from botfarm_server.services import hand_on
from botfarm_server.services.asking import AskService
from botfarm_server.services.calls import Asked
from botfarm_server.services.leases import LeaseService
from botfarm_server.store import engine, grants, leases, tables
from botfarm_server.store.dialects import QUEUE_LOCK, next_fence, read_clock
from botfarm_server.store.users import HANDED_OVER, LeasedRow

from .failpoints import Failpoints
from .wrapping import replaced

IsOn = Callable[[str], bool]


def read_then_write(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """Free users are read without a lock, and taken without another look."""
    lock_queue = replaced(engine, "lock_queue")
    hand_over = replaced(grants, "_hand_over")

    async def without_lock(connection: engine.Connection) -> datetime:
        return await (read_clock if is_on() else lock_queue.original)(connection)

    async def unconditionally(
        connection: engine.Connection, given: Sequence[Grant]
    ) -> dict[LeaseId, list[LeasedRow]]:
        found: dict[LeaseId, list[LeasedRow]]
        if not is_on():
            found = await hand_over.original(connection, given)
            return found
        found = {}
        for grant in given:
            for user_id, want in grant.users.items():
                drawn = await connection.execute(
                    insert(tables.grants)
                    .values(lease_id=grant.lease_id, user_id=user_id, want=want)
                    .values(next_fence(connection))
                    .returning(tables.grants.c.fence)
                )
                handed = await connection.execute(
                    update(tables.users)
                    .where(tables.users.c.id == user_id)
                    .values(
                        lease_id=grant.lease_id,
                        fence=drawn.scalar_one(),
                        rest_until=None,
                    )
                    .returning(*HANDED_OVER)
                )
                row = LeasedRow(*(*handed.one(), want))
                found.setdefault(grant.lease_id, []).append(row)
        return found

    lock_queue.by(without_lock)
    hand_over.by(unconditionally)


def release_by_user(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """A release frees the lease's users, whoever has them now."""
    end = replaced(LeaseService, "end")

    async def end_users(self: LeaseService, lease_id: LeaseId, **others: Any) -> None:
        if not is_on():
            await end.original(self, lease_id, **others)
            return
        async with self.database.queue() as (connection, now):
            had = select(tables.grants.c.user_id).where(
                tables.grants.c.lease_id == lease_id
            )
            await connection.execute(
                update(tables.users)
                .where(tables.users.c.id.in_(had))
                .values(lease_id=None, released_at=now, rest_until=None)
            )
            await connection.execute(
                update(tables.leases)
                .where(tables.leases.c.id == lease_id, tables.leases.c.state == "held")
                .values(state="released", ended_at=now)
            )

    end.by(end_users)


def start_of_transaction(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """PostgreSQL's `now()` in place of the clock behind the lock."""
    lock_queue = replaced(engine, "lock_queue")

    async def lock_and_tell_start(connection: engine.Connection) -> datetime:
        if not is_on():
            told: datetime = await lock_queue.original(connection)
            return told
        answer = await connection.execute(text("SELECT now()"))
        start: datetime = answer.scalar_one()
        await failpoints.hit("before-queue-lock")
        await connection.execute(select(func.pg_advisory_xact_lock(QUEUE_LOCK)))
        return start

    lock_queue.by(lock_and_tell_start)


def stale_sweeper(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """The loop ends leases by ids that it has read, without another look."""
    lapsed = replaced(leases, "lapsed")
    end = replaced(leases, "end")

    async def read_lapsed(
        connection: engine.Connection, now: datetime, *, limit: int
    ) -> list[Lease]:
        if not is_on():
            found: list[Lease] = await lapsed.original(connection, now, limit=limit)
            return found
        rows = await connection.execute(
            select(tables.leases.c.id)
            .where(tables.leases.c.state == "held", tables.leases.c.expires_at <= now)
            .limit(limit)
        )
        read = [await leases.get(connection, LeaseId(row.id)) for row in rows]
        await failpoints.hit("before-ending")
        return [lease for lease in read if lease is not None]

    async def end_by_id(
        connection: engine.Connection,
        ended: Sequence[Lease],
        state: EndedState,
        *,
        now: datetime,
        **others: Any,
    ) -> None:
        if not is_on() or ended[0].state != "held":
            await end.original(connection, ended, state, now=now, **others)
            return
        await connection.execute(
            update(tables.leases)
            .where(tables.leases.c.id.in_([lease.id for lease in ended]))
            .values(state=state, ended_at=now)
        )

    lapsed.by(read_lapsed)
    end.by(end_by_id)


def no_repeatable_id(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """An ask that is sent again gets a lease of its own."""
    ask = replaced(AskService, "ask")

    async def ask_anew(self: AskService, asked: Asked, gone: Any = None) -> Any:
        if not is_on():
            return await ask.original(self, asked, gone)
        async with self.database.read() as connection:
            known = await leases.get(connection, asked.lease_id)
        own = asked.lease_id if known is None else LeaseId(uuid4())
        answer = await ask.original(self, replace(asked, lease_id=own), gone)
        told = replace(answer.lease, id=asked.lease_id)
        return replace(answer, lease=told)

    ask.by(ask_anew)


def hand_on_does_nothing(failpoints: Failpoints, is_on: Callable[[], bool]) -> None:
    """Users become free, and no waiter is granted any."""
    plan = replaced(hand_on, "plan_grants")

    def plan_nothing(
        waiters: Iterable[Waiter], free: Sequence[Candidate], **others: Any
    ) -> Plan:
        if is_on():
            return Plan([], {}, free)
        planned: Plan = plan.original(waiters, free, **others)
        return planned

    plan.by(plan_nothing)


MUTANTS: Mapping[str, Callable[[Failpoints, Callable[[], bool]], None]] = {
    "read-then-write": read_then_write,
    "release-by-user": release_by_user,
    "start-of-transaction": start_of_transaction,
    "stale-sweeper": stale_sweeper,
    "no-repeatable-id": no_repeatable_id,
    "hand-on-does-nothing": hand_on_does_nothing,
}
"""The client's own mutant, which has no deadline, is in `client.py`."""
