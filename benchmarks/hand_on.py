"""How long a freed user takes to its next holder: two replicas over one PostgreSQL.

From the release being sent to one replica until the waiter's call at the other has its
answer. The unit is one `GET /health` and one committed single-row UPDATE through the
engine that the server uses, measured in turns with it. Besides: how much longer it
takes behind and before other waiters.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import asyncpg
from _farm import Server, execute, new_database, postgresql, serving
from _http import LEASES, Client, asking, expect
from _measuring import median, milliseconds, percentile, rounds, table
from sqlalchemy import text

from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.engine import Database

ROUNDS = 4
HAND_ONS = 40
"""In each measurement."""
POOLS = 500
FEW, MANY = 10, 10_000
WAIT = 60.0
AHEAD, OURS, BEHIND = 1_000, 1_000_000_000, 2_000_000_000
"""Where numbers in the queue begin: of the calls here, and of rows around them."""

WAITERS = """\
WITH waiting AS (
    INSERT INTO leases (number, id, state, wants, ttl, created_at, poll_by)
    SELECT $1::bigint + n, gen_random_uuid(), 'waiting', jsonb_build_array(
               jsonb_build_object(
                   'env', 'stage', 'domain', CASE n % $3::int
                       WHEN 0 THEN 'regular' ELSE format('domain%s', n % $3::int) END,
                   'project_id', NULL, 'labels', $4::text::jsonb, 'count', 1,
                   'user_id', NULL)),
           60, now(), now() + interval '1 day'
    FROM generate_series(1, $2::int) n
    RETURNING number, id, wants
)
INSERT INTO queue_entries (env, domain, number, lease_id, kind)
SELECT 'stage', wants -> 0 ->> 'domain', number, id, md5(wants::text)::uuid
FROM waiting"""
NO_WAITERS = "DELETE FROM leases WHERE state = 'waiting'"
HELD_USERS = f"""\
WITH holder AS (
    INSERT INTO leases (id, state, wants, fence, created_at, granted_at)
    VALUES (gen_random_uuid(), 'held', '[]', 1, now(), now()) RETURNING id
)
INSERT INTO users (id, login, env, domain, labels, label_count, password_hash,
                   created_at, released_at, fence, dirty, lease_id)
SELECT gen_random_uuid(), format('held%s', n), 'stage', format('domain%s', n), '{{}}',
       0, repeat('x', 60), now(), now(), 1, false, holder.id
FROM generate_series(1, {POOLS - 1}) n, holder"""


@dataclass(frozen=True, slots=True)
class Measured:
    hand_ons: list[float]
    units: list[float]


@dataclass(frozen=True, slots=True)
class Queue:
    """Waiters that are rows, whom no call asks about, and who never lapse."""

    waiters: int
    pools: int = 1
    before_us: bool = False
    """They came first, and want what no user has."""
    hand_ons: int = HAND_ONS


async def hand_ons(queue: Queue, replicas: Sequence[Server], url: str) -> Measured:
    """Hand one user back and forth between calls at two replicas."""
    database = Database(parsed_url(url), pool_size=2)
    clients = [await Client.of(replica.url) for replica in replicas]
    askers = [await Client.of(replica.url) for replica in replicas]
    found = Measured([], [])
    held = await clients[0].acquire(asking())
    rows = await asyncpg.connect(url)
    if queue.waiters:  # only now, or one of them would get the user
        wanted = '{"role": "nobody"}' if queue.before_us else "{}"
        first = AHEAD if queue.before_us else BEHIND
        await rows.execute(WAITERS, first, queue.waiters, queue.pools, wanted)
        await rows.execute("VACUUM ANALYZE leases, queue_entries")
    for number in range(queue.hand_ons):
        found.units.append(await unit(clients[0], database))
        holder, waiter = clients[number % 2], askers[1 - number % 2]
        waiting = str(uuid.uuid4())
        waiter.connection.send("PUT", LEASES + waiting, asking(wait=WAIT))
        while (state := await holder.state(waiting)) != "waiting":
            if state is not None:
                raise SystemExit(f"a lease is {state} that should wait")
        began = time.perf_counter()
        holder.connection.send("DELETE", LEASES + held)
        expect(200, await waiter.connection.answer())
        found.hand_ons.append(time.perf_counter() - began)
        expect(204, await holder.connection.answer())
        held = waiting
    await rows.execute(NO_WAITERS)
    await rows.close()
    await clients[0].release(held)
    for client in (*clients, *askers):
        client.connection.close()
    await database.dispose()
    return found


async def unit(client: Client, database: Database) -> float:
    began = time.perf_counter()
    expect(200, await client.connection.call("GET", "/health"))
    async with database.write() as connection:
        await connection.execute(text("UPDATE beats SET beat = beat + 1"))
    return time.perf_counter() - began


def measure(queue: Queue, replicas: Sequence[Server], url: str) -> Measured:
    return asyncio.run(hand_ons(queue, replicas, url))


@contextmanager
def farm() -> Iterator[tuple[str, list[Server]]]:
    """One free user in one pool, one that is held in each other, and two replicas."""
    with ExitStack() as stack:
        url = new_database(stack.enter_context(postgresql()), users=1)
        execute(url, HELD_USERS)
        execute(url, f"SELECT setval('leases_number_seq', {OURS})")
        execute(url, "CREATE TABLE beats AS SELECT 0 AS beat")
        execute(url, "VACUUM ANALYZE")
        domains = ",".join(["regular", *(f"domain{n}" for n in range(1, POOLS))])
        yield (
            url,
            [
                stack.enter_context(
                    serving(
                        url,
                        domains=domains,
                        claim_window="60",  # no lease is renewed here
                    )
                )
                for _ in range(2)
            ],
        )


NOBODY = "nobody else waits"
QUEUES = {
    NOBODY: Queue(0),
    f"{FEW} wait behind, in the pool": Queue(FEW),
    f"{MANY:,} wait behind, in the pool": Queue(MANY),
    f"{MANY:,} wait behind, in {POOLS} pools": Queue(MANY, POOLS),
    f"{FEW} wait before, for labels that none has": Queue(FEW, before_us=True),
    f"{MANY:,} wait before, for labels that none has": Queue(
        MANY, before_us=True, hand_ons=5
    ),
}


def main() -> None:
    with farm() as (url, replicas):
        found = rounds(
            ROUNDS,
            {
                name: partial(measure, queue, replicas, url)
                for name, queue in QUEUES.items()
            },
        )
    units = [seconds for it in found[NOBODY] for seconds in it.units]
    print(
        f"{ROUNDS} rounds of {HAND_ONS} hand-ons; the unit, GET /health and a "
        f"committed UPDATE, takes {milliseconds(median(units))} ms, and at p99 "
        f"{milliseconds(percentile(units, 99))} ms\n"
    )
    heading = ("", "p50, ms", "p50, units", "p99, ms", "p99, units", "p50 / of few")
    table(heading, *(_row(name, found) for name in found))


def _row(name: str, found: dict[str, list[Measured]]) -> tuple[str, ...]:
    took = [seconds for it in found[name] for seconds in it.hand_ons]
    unit_took = median([seconds for it in found[name] for seconds in it.units])
    half, most = median(took), percentile(took, 99)
    before_us = QUEUES[name].before_us
    few = next(
        its
        for of, its in found.items()
        if QUEUES[of].waiters == FEW and QUEUES[of].before_us == before_us
    )
    ratios = [
        median(its.hand_ons) / median(fews.hand_ons)
        for its, fews in zip(found[name], few, strict=True)
    ]
    return (
        name,
        milliseconds(half),
        f"{half / unit_took:.2f}",
        milliseconds(most),
        f"{most / unit_took:.2f}",
        f"{median(ratios):.2f}",
    )


if __name__ == "__main__":
    main()
