"""Pairs of acquire and release per second with 1,000 and with 1,000,000 users.

Two databases on one PostgreSQL, all users of each in one pool, and every tenth with a
label: for any user, and for one with the label.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial

from _farm import Server, execute, new_database, postgresql, serving
from _http import ASKED, asking
from _load import CLIENTS, apart, botfarm_pairs
from _measuring import median, milliseconds, quartiles, rounds, table

FEW, MANY = 1_000, 1_000_000
SECONDS = 3.0
"""Of each measurement."""
ROUNDS = 5
WANTS = {"any": ASKED, "with a label": asking(labels={"role": "admin"})}
LABELLED = """\
UPDATE users SET labels = '{"role": "admin"}', label_count = 1 WHERE login LIKE '%0'"""


def measure(
    pool: ProcessPoolExecutor, server: Server, asked: str = ASKED
) -> list[float]:
    """Seconds of each pair."""
    return pool.submit(botfarm_pairs, server.url, SECONDS, asked).result().took


def main() -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        pool = stack.enter_context(apart())
        variants = {}
        for users in (FEW, MANY):
            url = new_database(database, users=users)
            execute(url, LABELLED)
            execute(url, "VACUUM FULL ANALYZE users")
            server = stack.enter_context(serving(url))
            for want, asked in WANTS.items():
                variants[want, users] = partial(measure, pool, server, asked)
        found = rounds(ROUNDS, variants)
    print(f"{CLIENTS} clients, medians of {ROUNDS} rounds of {SECONDS:.0f} s\n")
    heading = ("users", "want", "pairs/s", "quartiles", "the median pair, ms")
    table(
        (*heading, "times slower"),
        *(_row(want, users, found) for want, users in found),
    )


def _row(
    want: str, users: int, found: dict[tuple[str, int], list[list[float]]]
) -> tuple[str, ...]:
    rates = [len(took) / SECONDS for took in found[want, users]]
    slower = [
        len(few) / len(its)
        for few, its in zip(found[want, FEW], found[want, users], strict=True)
    ]
    return (
        f"{users:,}",
        want,
        f"{median(rates):.0f}",
        " to ".join(f"{rate:.0f}" for rate in quartiles(rates)),
        milliseconds(median([it for took in found[want, users] for it in took])),
        f"{median(slower):.2f}",
    )


if __name__ == "__main__":
    main()
