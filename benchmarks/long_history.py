"""Pairs of acquire and release per second after 1,000,000 leases on 100 users.

Two databases on one PostgreSQL, one without a past. The past of the other is made by
SQL that writes what the API would: each lease is inserted as held and ended by an
update, each grant is inserted, and each user is updated twice a lease, with a commit
after each of the two steps. A step takes all 100 users at once, and does not wait for
the disk. Autovacuum is as shipped, during that and afterwards.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from time import perf_counter

from _farm import execute, fetch, new_database, postgresql, serving
from _load import CLIENTS, apart
from _measuring import median, milliseconds, quartiles, rounds, table
from many_users import measure

USERS = 100
LEASES = 1_000_000
SECONDS = 3.0
ROUNDS = 7
TURNS = 100
"""Of all users, in one call: what is dead is told to autovacuum after each."""
FRESH, AGED = "none", f"{LEASES:,} leases"

PAST = f"""\
DO $$
BEGIN
    SET synchronous_commit = off;
    SET enable_seqscan = off;  -- plans made while the tables are small are kept
    FOR turn IN 1..{TURNS} LOOP
        WITH given AS (
            SELECT id AS user_id, gen_random_uuid() AS lease_id FROM users
        ), held AS (
            INSERT INTO leases (id, state, wants, ttl, fence, created_at, granted_at,
                                expires_at)
            SELECT lease_id, 'held', '[{{"env": "stage", "domain": "regular",
                       "project_id": null, "labels": {{}}, "count": 1,
                       "user_id": null}}]', 60, turn, clock_timestamp(),
                   clock_timestamp(), clock_timestamp() + interval '15 s'
            FROM given
        ), granted AS (
            INSERT INTO grants (lease_id, user_id, want)
            SELECT lease_id, user_id, 0 FROM given
            RETURNING lease_id, user_id, fence
        )
        UPDATE users SET lease_id = granted.lease_id, fence = granted.fence
        FROM granted WHERE users.id = granted.user_id;
        COMMIT;
        UPDATE leases SET state = 'released', ended_at = clock_timestamp(),
                          outcome = 'passed'
        WHERE id IN (SELECT lease_id FROM users WHERE lease_id IS NOT NULL);
        UPDATE users SET lease_id = NULL, released_at = clock_timestamp();
        COMMIT;
    END LOOP;
END $$"""
STATISTICS = """\
SELECT relname, n_dead_tup, autovacuum_count,
       pg_size_pretty(pg_table_size(relid)) AS size,
       pg_size_pretty(pg_indexes_size(relid)) AS indexes
FROM pg_stat_user_tables WHERE relname IN ('leases', 'users', 'grants')
ORDER BY relname"""


def main() -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        pool = stack.enter_context(apart())
        fresh, aged = (new_database(database, users=USERS) for _ in range(2))
        began = perf_counter()
        for _ in range(LEASES // USERS // TURNS):
            execute(aged, PAST)
        took = perf_counter() - began
        statistics = fetch(aged, STATISTICS)
        variants = {
            name: partial(measure, pool, stack.enter_context(serving(url)))
            for name, url in ((FRESH, fresh), (AGED, aged))
        }
        found = rounds(ROUNDS, variants)
    print(f"the past was made in {took:.0f} s, and left:\n")
    table(
        ("table", "dead rows", "autovacuums", "size", "indexes"),
        *(tuple(map(str, row)) for row in statistics),
    )
    rates = {
        name: [len(pairs) / SECONDS for pairs in its] for name, its in found.items()
    }
    kept = [old / new for new, old in zip(rates[FRESH], rates[AGED], strict=True)]
    print(f"\n{CLIENTS} clients, medians of {ROUNDS} rounds of {SECONDS:.0f} s\n")
    table(
        ("the past", "pairs/s", "quartiles", "the median pair, ms"),
        *(
            (
                name,
                f"{median(its):.0f}",
                " to ".join(f"{rate:.0f}" for rate in quartiles(its)),
                milliseconds(median([it for pairs in found[name] for it in pairs])),
            )
            for name, its in rates.items()
        ),
    )
    low, high = quartiles(kept)
    print(f"\nof the start: {median(kept):.2f}, quartiles {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
