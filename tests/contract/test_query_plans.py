"""No statement of the hot paths reads a big table whole, however long the history.

Each is EXPLAINed as the server sends it, after what the store's functions execute, over
many users and a long history. What differs on SQLite is left to the other tests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import event
from support.postgresql import PostgresqlServer

from botfarm_server.domain.audit import AuditFilter
from botfarm_server.domain.models import Holder, Lease, LeaseId, UserId, Want
from botfarm_server.domain.queueing import Grant
from botfarm_server.store import (
    audit,
    candidates,
    census,
    grants,
    holdings,
    leases,
    migrations,
    parties,
    queue,
    tokens,
    users,
)
from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.dialects import read_clock
from botfarm_server.store.engine import Connection, Database

pytestmark = pytest.mark.anyio

USERS, ENDED, HELD_LEASES, WAITERS, EVENTS = 50_000, 1_000_000, 500, 12_000, 50_000
"""Half of the waiters are in either pool, so that to read one pool is too much."""
TOKENS = 50_000
MOST_READ = 5_000
"""Rows that one statement may read of a big table."""
BIG = {"users", "leases", "grants", "audit_events", "tokens"}
"""Of `queue_entries` a scan may find the first that comes: its rows are counted."""
READ_ALL_WAITERS = {
    "waiters",
    "waiters for users of a project",
    "pools waited for",
    "projects waited for",
    "waiters whose parties hold",
    "whether the party of a waiter holds",
    "who waits, and which of these are held",
    "many lapsed",
    "no longer waiting",
    "live leases, counted",
    "waiters, counted",
}
"""Calls that may read each waiter once: those of the loop and of a census, and a
hand-on over several pools, or for a project, for which there is no index."""

# What foreign keys would check was made together, and indexes are built once at the
# end: either takes half of the time.
SEED = f"""\
SET session_replication_role = replica;
UPDATE pg_index SET indisready = false
WHERE indrelid IN ('leases'::regclass, 'grants'::regclass);
INSERT INTO users (id, login, env, domain, labels, label_count, password_hash,
                   created_at, released_at, fence, dirty)
SELECT md5('user' || n)::uuid, 'user' || n, 'stage',
       CASE n % 5 WHEN 0 THEN 'canary' WHEN 2 THEN 'spare' ELSE 'regular' END,
       CASE n % 100 WHEN 1 THEN '{{"role": "admin"}}'::jsonb ELSE '{{}}' END,
       CASE n % 100 WHEN 1 THEN 1 ELSE 0 END,
       repeat('x', 60), now(), now(), 0, false
FROM generate_series(1, {USERS}) n;
INSERT INTO leases (id, state, wants, ttl, run_id, worker_id, fence, created_at,
                    granted_at, expires_at, ended_at, outcome)
SELECT md5('lease' || n)::uuid, 'released', '[]', 60, 'run' || n / 1000, 'gw' || n % 8,
       n, now() - interval '1 day', now() - interval '1 day', now() - interval '1 day',
       now() - interval '1 day' + n * interval '50 ms', 'passed'
FROM generate_series(1, {ENDED}) n;
INSERT INTO grants (lease_id, user_id, want)
SELECT md5('lease' || n)::uuid, md5('user' || n % {USERS})::uuid, 0
FROM generate_series(1, {ENDED}) n;
INSERT INTO leases (id, state, wants, ttl, run_id, worker_id, fence, created_at,
                    granted_at, expires_at)
SELECT md5('held' || n)::uuid, 'held', '[]', 60, 'run', 'gw' || n, {ENDED} + n, now(),
       now(), now() + interval '1 day'
FROM generate_series(1, {HELD_LEASES}) n;
INSERT INTO grants (lease_id, user_id, want)
SELECT md5('held' || n)::uuid, md5('user' || n)::uuid, 0
FROM generate_series(1, {HELD_LEASES}) n;
UPDATE pg_index SET indisready = true
WHERE indrelid IN ('leases'::regclass, 'grants'::regclass);
REINDEX TABLE leases;
REINDEX TABLE grants;
UPDATE users SET quarantined_at = now() WHERE domain = 'canary';
UPDATE users SET lease_id = md5('held' || n)::uuid, fence = {ENDED} + n
FROM generate_series(1, {HELD_LEASES}) n WHERE users.id = md5('user' || n)::uuid;
WITH waiting AS (
    INSERT INTO leases (id, state, wants, ttl, run_id, worker_id, created_at, poll_by)
    SELECT md5('waiting' || n)::uuid, 'waiting', '[]', 60, 'run' || n / 1000,
           'gw' || n, now(), now() + interval '1 day'
    FROM generate_series(1, {WAITERS}) n
    RETURNING number, id
)
INSERT INTO queue_entries
SELECT 'stage', CASE number % 2 WHEN 0 THEN 'canary' ELSE 'regular' END, number, id,
       md5('[]')::uuid
FROM waiting;
INSERT INTO audit_events (at, caller, role, action, subject_id, project_id)
SELECT now() - interval '1 year' + n * interval '1 min', 'botfarm', 'admin',
       'user.quarantine', md5('user' || n % 1000)::uuid, md5('project' || n % 100)::uuid
FROM generate_series(1, {EVENTS}) n;
INSERT INTO tokens (id, name, role, hash, created_at)
SELECT md5('token' || n)::uuid, 'token' || n, 'lease', repeat(md5('token' || n), 2),
       now()
FROM generate_series(1, {TOKENS}) n;
SET session_replication_role = origin;
"""

ANY = Want("stage", "regular")
ADMIN = Want("stage", "regular", labels={"role": "admin"})
MANY = [Want("stage", "regular", labels={"seat": str(it)}) for it in range(40)]
NOBODY = Want("stage", "regular", labels={"role": "nobody"})
QUARANTINED = Want("stage", "canary")
"""No user of this pool is free, though most users are."""
NOT_WAITED_FOR = Want("stage", "spare")
POOL = ANY.pool


def named(kind: str, number: int) -> UUID:
    """The id that the seed gave it."""
    return UUID(hashlib.md5(f"{kind}{number}".encode()).hexdigest())


ENDED_LEASE = LeaseId(named("lease", 77))
HELD = [LeaseId(named("held", number)) for number in range(1, 101)]
WAITING = [LeaseId(named("waiting", number)) for number in range(1, 101)]
HELD_USER = UserId(named("user", 1))
FREE_USER = UserId(named("user", HELD_LEASES + 3))

Call = Callable[[Connection, datetime], Awaitable[object]]


def asking(
    function: Callable[..., Awaitable[object]], want: Want, **others: Any
) -> Call:
    return lambda connection, _: function(connection, [want], **others)


async def end_held(connection: Connection, now: datetime) -> None:
    locked = await grants.lock_with_users(connection, HELD, now)
    ended, held = list(locked.found.values()), locked.users
    await leases.end(connection, ended, "released", now=now, outcome="passed")
    await grants.free_users(connection, held, now=now, rest_until=None, dirty=False)


async def grant(connection: Connection, now: datetime) -> None:
    await grants.grant_waiting(
        connection, [(Grant(WAITING[0], {FREE_USER: 0}), now)], now=now
    )


async def grant_at_once(connection: Connection, now: datetime) -> None:
    lease = Lease(
        id=LeaseId(uuid4()),
        state="held",
        wants=[ANY],
        holder=Holder(),
        ttl=60.0,
        created_at=now,
        granted_at=now,
    )
    await grants.insert_held(connection, [(lease, Grant(lease.id, {FREE_USER: 0}))])


async def place(connection: Connection, _: datetime) -> None:
    waiting = await leases.get(connection, WAITING[-1])
    assert waiting is not None
    await queue.place(connection, replace(waiting, wants=[ANY, QUARANTINED]))


def free(want: Want) -> Call:
    return lambda connection, now: candidates.free_for(
        connection, [want], now=now, limit=1
    )


def counting(*wants: Want) -> Call:
    return lambda connection, now: candidates.count_by_state(
        connection, wants, now=now, limit=1_000
    )


CALLS: dict[str, Call] = {
    "a lease": lambda connection, _: leases.get(connection, ENDED_LEASE),
    "a lease, locked": lambda connection, _: leases.lock(connection, HELD[0]),
    "free users": free(ANY),
    "free users with a label": free(ADMIN),
    "free users with a label that none has": free(NOBODY),
    "this user, if free": free(Want("stage", "regular", user_id=FREE_USER)),
    "free users besides some": lambda connection, now: candidates.free_for(
        connection, [ANY], now=now, limit=64, besides=[FREE_USER]
    ),
    "free users and preferred ones": lambda connection, now: candidates.free_for(
        connection, [ANY, ADMIN], now=now, limit=1, preferred=[FREE_USER, HELD_USER]
    ),
    "preferred ones where none is free": lambda connection, now: candidates.free_for(
        connection, [QUARANTINED, NOBODY], now=now, limit=1, preferred=[FREE_USER]
    ),
    "free and waited for": lambda connection, now: candidates.any_free_and_waited_for(
        connection, [POOL], now=now
    ),
    "free and waited for, none": lambda connection, now: (
        candidates.any_free_and_waited_for(connection, [QUARANTINED.pool], now=now)
    ),
    "free and not waited for": lambda connection, now: (
        candidates.any_free_and_waited_for(connection, [NOT_WAITED_FOR.pool], now=now)
    ),
    "free users, none": free(QUARANTINED),
    "users in rotation": asking(candidates.in_rotation_for, ANY, limit=1),
    "users in rotation with a label": asking(
        candidates.in_rotation_for, ADMIN, limit=1
    ),
    "users in rotation, none": asking(candidates.in_rotation_for, NOBODY, limit=1),
    "who is before a waiter": asking(candidates.blocking, ANY, limit=10),
    "who is before a waiter for a label": asking(candidates.blocking, ADMIN, limit=10),
    "how many match": counting(ANY),
    "how many match a label, or are in quarantine": counting(ADMIN, QUARANTINED),
    "waiters": lambda connection, _: queue.waiters(
        connection, [POOL, QUARANTINED.pool], after=0, limit=64
    ),
    "waiters of one pool": lambda connection, _: queue.waiters(
        connection, [POOL], after=0, limit=64
    ),
    "waiters besides those of some kinds": lambda connection, _: queue.waiters(
        connection, [POOL], after=0, limit=64, besides=[uuid4(), uuid4()]
    ),
    "waiters for users of a project": lambda connection, _: queue.waiters(
        connection, [POOL], after=0, limit=64, projects=[named("project", 1)]
    ),
    "free and waited for, of a project": lambda connection, now: (
        candidates.any_free_and_waited_for(
            connection, [POOL], now=now, projects=[named("project", 1)]
        )
    ),
    "free users for many wants": lambda connection, now: candidates.free_for(
        connection, MANY, now=now, limit=1_000
    ),
    "users in rotation for many wants": asking(
        lambda connection, wants: candidates.in_rotation_for(
            connection, [*wants, *MANY], limit=1_000
        ),
        ANY,
    ),
    "whether a waiter holds its users": lambda connection, _: grants.held_with_users(
        connection, HELD[0]
    ),
    "projects waited for": lambda connection, _: queue.projects_waited_for(connection),
    "pools waited for": lambda connection, _: queue.pools_waited_for(connection),
    "whether any has lapsed": leases.any_lapsed,
    "lapsed": lambda connection, now: leases.lapsed(connection, now, limit=200),
    "many lapsed": lambda connection, now: leases.lapsed(
        connection, now + timedelta(days=2), limit=200
    ),
    "no longer waiting": lambda connection, _: leases.no_longer_waiting(
        connection, WAITING
    ),
    "the users of a held lease": lambda connection, _: users.leased(connection, HELD),
    "the users of an ended lease": lambda connection, _: holdings.users_of(
        connection, [ENDED_LEASE]
    ),
    "who holds users": lambda connection, _: holdings.holdings_of(
        connection, [HELD_USER, FREE_USER]
    ),
    "leases to renew": lambda connection, _: leases.lock_held(connection, HELD),
    "renewing": lambda connection, now: leases.extend(
        connection, HELD, now=now, expires_at=now + timedelta(days=1)
    ),
    "keeping a lease": lambda connection, now: leases.keep(
        connection, HELD[0], now=now, expires_at=now, outcome="failed"
    ),
    "keeping a place": lambda connection, now: leases.keep_place(
        connection, WAITING[0], now
    ),
    "the place of a waiter": place,
    "granting": grant,
    "granting at once": grant_at_once,
    "who waits for a pool": lambda connection, _: queue.waited_for(
        connection, [POOL, NOT_WAITED_FOR.pool]
    ),
    "leases about which calls are": lambda connection, now: grants.lock_with_users(
        connection, [*HELD, *WAITING], now
    ),
    "leases that are not held": lambda connection, _: leases.get_all(
        connection, WAITING
    ),
    "ending": end_held,
    "waiters whose parties hold": lambda connection, _: parties.waiting_with_users(
        connection
    ),
    "whether the party of a waiter holds": lambda connection, _: (
        parties.any_waits_with_users(connection)
    ),
    "what parties hold": lambda connection, _: parties.held_by(
        connection, [(None, "run", "gw1"), (None, "run", "gw2")]
    ),
    "the live leases of a run": lambda connection, _: leases.live_of_holder(
        connection, "run", None, lambda _: True
    ),
    "who waits, and which of these are held": lambda connection, _: leases.live(
        connection, HELD
    ),
    "who has these tokens": lambda connection, _: tokens.all_known_by(
        connection, [named("token", number).hex * 2 for number in range(1, 101)]
    ),
    "the live leases": lambda connection, _: leases.find(
        connection, states=["waiting", "held"], limit=100
    ),
    "live leases, counted": lambda connection, _: census.count_leases(connection),
    "waiters, counted": census.count_waiters,
    "a page of the audit log": lambda connection, _: audit.find(
        connection, AuditFilter(), before=EVENTS // 2, limit=100
    ),
    "what was done to a user": lambda connection, _: audit.find(
        connection, AuditFilter(subject_id=HELD_USER), before=None, limit=100
    ),
    "what was done in a project": lambda connection, _: audit.find(
        connection, AuditFilter(project_id=named("project", 1)), before=None, limit=100
    ),
    "history past its retention": lambda connection, now: leases.forget_ended(
        connection, now - timedelta(days=1), limit=1_000
    ),
}


@pytest.fixture
def crowded_url(postgresql: PostgresqlServer) -> Iterator[str]:
    url = postgresql.create_database()
    migrations.upgrade(parsed_url(url))
    yield url
    postgresql.drop_database(url)


async def seed(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(SEED)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def test_no_hot_statement_reads_a_big_table_whole(crowded_url: str) -> None:
    await seed(crowded_url)
    database = Database(parsed_url(crowded_url), pool_size=2)
    faults = [
        f"{name}: {fault}"
        for name, call in CALLS.items()
        for fault in await faults_of(
            database, call, MOST_READ + (WAITERS if name in READ_ALL_WAITERS else 0)
        )
    ]
    await database.dispose()
    assert not faults, "\n\n".join(faults)


async def faults_of(database: Database, call: Call, most_read: int) -> list[str]:
    """What is wrong with the plans of the statements that a call sends."""
    async with database.engine.connect() as connection:
        with sent(database) as statements:
            await call(connection, await read_clock(connection))
        await connection.rollback()
        found = []
        for statement, parameters in statements[1:]:  # the first reads the clock
            explained = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            )
            told = explained.scalar_one()
            plan = json.loads(told) if isinstance(told, str) else told
            found += [
                f"{fault} in {statement}"
                for fault in faults_in(plan[0]["Plan"], most_read)
            ]
            await connection.rollback()
        assert len(statements) > 1
        return found


@contextmanager
def sent(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that are sent, with their parameters."""
    statements: list[tuple[str, Any]] = []

    def note(
        _connection: object,
        _cursor: object,
        statement: str,
        parameters: Any,
        _context: object,
        _many: bool,
    ) -> None:
        statements.append((statement, parameters))

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def faults_in(plan: dict[str, Any], most_read: int) -> Iterator[str]:
    for node in nodes_of(plan):
        kind, table = node["Node Type"], node.get("Relation Name")
        if kind.endswith("Seq Scan") and table in BIG:
            yield f"{kind} on {table}"
        elif rows_read(node) > most_read:
            yield f"{kind} of {rows_read(node)} rows ({node.get('Index Name', table)})"


def rows_read(node: dict[str, Any]) -> int:
    """The rows that a node took in, over all its loops."""
    each: float = node["Actual Rows"] + sum(
        number for name, number in node.items() if name.startswith("Rows Removed")
    )
    loops: float = node["Actual Loops"]
    return round(each * loops)


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    inner: Sequence[dict[str, Any]] = plan.get("Plans", ())
    for node in inner:
        yield from nodes_of(node)
