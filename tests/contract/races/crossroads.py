"""A small farm on which every two operations meet, over the same lease or user.

The user *admin* is held by a lease, under which it is renewed, released, broken or
expires; others may wait for it. The user *plain* is free, for whoever comes first.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import delete, insert, select, update
from support.locks import LockWatch, PostgresqlLockWatch, SqliteLockWatch

from botfarm_server.domain.errors import (
    DeadlockError,
    LeaseEndedError,
    UserLockedError,
)
from botfarm_server.domain.models import (
    Fence,
    Holder,
    Lease,
    LeaseId,
    LeaseState,
    UserId,
    Want,
)
from botfarm_server.services.answers import Held, Lost, Renewed, Waiting
from botfarm_server.services.calls import Call
from botfarm_server.services.settling import Settled
from botfarm_server.services.turns import Pending, Turns
from botfarm_server.store import leases as lease_store
from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database
from botfarm_server.store.tables import grants, leases, queue_entries, users
from contract.conftest import Farm, build_farm

from .invariants import Books, violations

ADMIN = Want("stage", "regular", labels={"role": "admin"})
ANY = Want("stage", "regular")
HOLDER = Holder(run_id="run", worker_id="gw0")
OTHERS = Holder(run_id="others", worker_id="gw1")
TTL = 60.0


def lease_id(name: str) -> LeaseId:
    return LeaseId(uuid.uuid5(uuid.NAMESPACE_OID, name))


HELD, WAITER = lease_id("held"), lease_id("waiter")
ADMIN_ID, PLAIN_ID = (
    UserId(uuid.uuid5(uuid.NAMESPACE_OID, it)) for it in ("admin", "plain")
)


@dataclass(frozen=True, slots=True)
class Replica:
    """One server of two, with a pool of connections and locks of its own."""

    name: str
    farm: Farm


class OwnTurns(Turns):
    """Each call takes a turn of its own, in its own coroutine, so that it is parked."""

    async def _in_turn(self, call: Call) -> Settled:
        pending = Pending(call, asyncio.get_running_loop().create_future())
        await self.take([pending])
        return await pending.settled


def _own_turns(farm: Farm) -> Farm:
    turns = farm.asking.turns
    own = OwnTurns(turns.database, turns.news, turns.sealer, turns.times)
    farm.asking.turns = farm.leases.turns = own
    return farm


Need = Literal[
    "waiter",
    "absent waiter",
    "waiter of the holder",
    "lapse",
    "quarantine",
    "lease of the first API",
]
"""What is there beside the lease that holds *admin*, or is true of these."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A call, what has to be there for it, and which locks it takes, in this order."""

    name: str
    call: Callable[[Replica, Fence], Awaitable[object]]
    allowed: Callable[[object, Books, Fence], bool]
    """Whether its answer or error is true, by the books at the end."""
    needs: Collection[Need] = ()
    leaves: LeaseId | None = None
    """The waiter that may be out of the queue, since nobody asks for it now."""
    takes_queue: bool = True
    locks_lease: bool = True
    """The row of the lease that holds *admin*, and it waits for that if need be."""

    def __str__(self) -> str:
        return self.name


async def ask(replica: Replica, name: str, want: Want) -> Held | Waiting:
    return await replica.farm.ask(want, lease_id=lease_id(name), ttl=TTL, holder=OTHERS)


def is_told_truly(answer: object, books: Books, _: Fence) -> bool:
    if isinstance(answer, Waiting):
        return books.state(answer.lease.id) in {"waiting", "held"}
    assert isinstance(answer, Held)
    return books.state(answer.lease.id) == "held" and {
        user.id: user.fence for user in answer.users
    } == {grant.user_id: grant.fence for grant in books.grants_of(answer.lease.id)}


async def _grant(replica: Replica, _: Fence) -> object:
    return await ask(replica, f"grant by {replica.name}", ANY)


async def _grant_again(replica: Replica, _: Fence) -> object:
    """As a client does that has lost the answer, at whichever replica."""
    return await ask(replica, "grant by first", ANY)


async def _join(replica: Replica, _: Fence) -> object:
    return await ask(replica, f"join by {replica.name}", ADMIN)


async def _wait(replica: Replica, _: Fence) -> object:
    return await replica.farm.ask(
        ADMIN, lease_id=lease_id("wait"), ttl=TTL, holder=OTHERS, wait=0.001
    )


async def _release(replica: Replica, fence: Fence) -> None:
    await replica.farm.leases.end(HELD, fence=fence)


def _is_released(answer: object, books: Books, _: Fence) -> bool:
    if isinstance(answer, LeaseEndedError):
        return answer.state == books.state(HELD) != "released"
    return answer is None and books.state(HELD) == "released"


async def _break(replica: Replica, _: Fence) -> None:
    await replica.farm.leases.break_lease(HELD, "stuck")


def _is_broken(answer: object, books: Books, _: Fence) -> bool:
    if isinstance(answer, LeaseEndedError):
        return books.state(HELD) == answer.state
    return answer is None and books.state(HELD) == "revoked"


async def _renew(replica: Replica, fence: Fence) -> object:
    return await replica.farm.leases.renew([(HELD, fence)])


def _is_renewed(answer: object, books: Books, _: Fence) -> bool:
    assert isinstance(answer, list)
    [told] = answer
    lease = books.leases[HELD]
    assert lease.expires_at is not None
    if isinstance(told, Lost):
        return lease.state != "held" or lease.expires_at <= books.now
    # Its time began when it was renewed: an end comes after that, and is no expiry.
    assert isinstance(told, Renewed)
    began = lease.expires_at - timedelta(seconds=TTL)
    if lease.state == "held":
        return timedelta() <= books.now - began < timedelta(seconds=TTL)
    assert lease.ended_at is not None
    return lease.state in {"released", "revoked"} and began <= lease.ended_at


async def _expire(replica: Replica, _: Fence) -> None:
    await replica.farm.expiry.look()


def _nothing(answer: object, _: Books, __: Fence) -> bool:
    return answer is None


async def _end_holder(replica: Replica, _: Fence) -> object:
    ended = await replica.farm.leases.end_holder(
        "run", "gw0", outcome="crashed", clean=False
    )
    return len(ended)


def _is_holder_ended(answer: object, books: Books, _: Fence) -> bool:
    return answer in {0, 1} and books.state(HELD) not in {"waiting", "held"}


GRANT = Operation("grant", _grant, is_told_truly, locks_lease=False)
JOIN = replace(GRANT, name="join", call=_join)
RELEASE = Operation("release", _release, _is_released)
HAND_ON = replace(RELEASE, name="hand_on", needs=["waiter"])
BREAK = Operation("break", _break, _is_broken)
# The loop passes over a lease that somebody else has locked.
EXPIRY = Operation("expiry", _expire, _nothing, needs=["lapse"])
RENEW = Operation("renew", _renew, _is_renewed, takes_queue=False)
OPERATIONS: Sequence[Operation] = (
    GRANT,
    replace(GRANT, name="grant_again", call=_grant_again),
    JOIN,
    HAND_ON,
    RELEASE,
    BREAK,
    Operation("end_holder", _end_holder, _is_holder_ended),
    EXPIRY,
    RENEW,
)


WAIT = replace(GRANT, name="wait", call=_wait)
"""It takes the same ways as `join`, and stays for a moment."""


@dataclass
class Crossroads:
    """Two replicas over one database, and a third pair of eyes."""

    replicas: Sequence[Replica]
    database: Database
    watch: LockWatch
    """Of the second replica."""
    fence: Fence = field(default=Fence(0))
    deadlocks: int = 0
    absent: Collection[LeaseId] = ()
    """Waiters that may be out of the queue."""

    @classmethod
    async def open(cls, url: str) -> Crossroads:
        replicas = [
            Replica(name, _own_turns(build_farm(url))) for name in ("first", "second")
        ]
        database = Database(parsed_url(url), pool_size=1)
        if database.is_sqlite:
            return cls(replicas, database, SqliteLockWatch(replicas[1].farm.database))
        watch = await PostgresqlLockWatch.start(database.url)
        return cls(replicas, database, watch, deadlocks=await watch.deadlocks())

    async def close(self) -> None:
        for replica in self.replicas:
            await replica.farm.database.dispose()
        await self.database.dispose()
        await self.watch.close()

    async def set_up(self, *operations: Operation) -> None:
        """The farm as the operations need it."""
        async with self.database.write() as connection:
            # Grants and places in the queue go with them.
            await connection.execute(delete(users))
            await connection.execute(delete(leases))
            now = await read_clock(connection)
            await connection.execute(
                insert(users),
                [
                    _user(ADMIN_ID, "admin", {"role": "admin"}, now),
                    _user(PLAIN_ID, "plain", {}, now),
                ],
            )
            needs = {need for operation in operations for need in operation.needs}
            await self._hold(connection, now, needs)
            await self._queue(connection, now, needs)
            if "quarantine" in needs:
                await connection.execute(
                    update(users)
                    .where(users.c.id == ADMIN_ID)
                    .values(quarantined_at=now, quarantine_reason="stuck")
                )
        self.absent = [it.leaves for it in operations if it.leaves is not None]

    async def _queue(
        self, connection: Connection, now: datetime, needs: Collection[Need]
    ) -> None:
        """Let somebody wait at another replica, or have left it."""
        if not {"waiter", "absent waiter", "waiter of the holder"} & {*needs}:
            return
        of_holder = "waiter of the holder" in needs
        waiter = replace(_lease(WAITER, now), holder=HOLDER if of_holder else OTHERS)
        await lease_store.insert_waiting(connection, waiter)
        if "absent waiter" in needs:
            await connection.execute(delete(queue_entries))

    async def _hold(
        self, connection: Connection, now: datetime, needs: Collection[Need]
    ) -> None:
        answer = await connection.execute(
            insert(grants).returning(grants.c.fence),
            {"lease_id": HELD, "user_id": ADMIN_ID, "want": 0},
        )
        self.fence = Fence(answer.scalar_one())
        of_first_api = Want("stage", "regular", user_id=ADMIN_ID)
        held = replace(
            _lease(HELD, now),
            wants=[of_first_api if "lease of the first API" in needs else ADMIN],
            state="held",
            fence=self.fence,
            granted_at=now - timedelta(seconds=20),
            expires_at=now + timedelta(seconds=-1 if "lapse" in needs else TTL / 2),
            poll_by=None,
        )
        await lease_store._insert(connection, held)
        await connection.execute(
            update(users)
            .where(users.c.id == ADMIN_ID)
            .values(lease_id=HELD, fence=self.fence)
        )

    async def call(self, which: int, operation: Operation) -> object:
        """The answer, or an error that the protocol knows in such a race."""
        try:
            return await operation.call(self.replicas[which], self.fence)
        except (LeaseEndedError, DeadlockError, UserLockedError) as error:
            return error

    async def holds_up(self, task: asyncio.Task[object]) -> bool:
        """Wait until the task is over, or a lock of another one stops it; does it?"""
        while not task.done():
            if await self.watch.is_blocked():
                return True
            await asyncio.wait({task}, timeout=0.004)
        return False

    async def books(self) -> Books:
        async with self.database.read() as connection:
            return Books.of(
                now=await read_clock(connection),
                leases=map(
                    lease_store.lease_of, await connection.execute(select(leases))
                ),
                users=await connection.execute(select(users)),
                grants=await connection.execute(select(grants)),
                queue=await connection.execute(select(queue_entries)),
            )

    async def check(self, *answers: tuple[Operation, object]) -> None:
        """That no rule is broken, and that nobody was told an untruth."""
        books = await self.books()
        assert not violations(books, self.absent)
        for operation, answer in answers:
            assert operation.allowed(answer, books, self.fence), (
                f"{operation} was told {answer!r}, and the lease is "
                f"{books.leases[HELD]}"
            )
        for replica in self.replicas:
            assert replica.farm.database.checked_out() == 0
            assert replica.farm.room.waiting() == []


def _user(
    user_id: UserId, login: str, labels: dict[str, str], now: datetime
) -> dict[str, Any]:
    return {
        "id": user_id,
        "login": login,
        "env": "stage",
        "domain": "regular",
        "labels": labels,
        "label_count": len(labels),
        "password_hash": "",
        "created_at": now,
        "released_at": now,
        "fence": 0,
        "dirty": False,
    }


def _lease(name: LeaseId, now: datetime) -> Lease:
    state: LeaseState = "waiting"
    return Lease(
        id=name,
        state=state,
        wants=[ADMIN],
        holder=HOLDER,
        ttl=TTL,
        created_at=now - timedelta(seconds=21),
        poll_by=now + timedelta(seconds=60),
    )
