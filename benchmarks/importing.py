"""What an import of 1,000 users does to whoever leases meanwhile.

One client acquires and releases without a pause, over a server and a PostgreSQL as
shipped: while nobody else does anything, and while a process of its own imports users,
each of whose passwords takes bcrypt about a third of a second of one core.
"""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context

from _farm import Server, new_database, postgresql, serving
from _http import ASKED, Client, Connection, expect
from _measuring import median, milliseconds, percentile, quartiles, table

IMPORTED = 1_000
BATCH = 20
"""Users of one call: about as many as `botfarm users import` sends in one."""
ALONE = 30.0
"""Seconds of measuring before the import, and again after it."""


def import_users(url: str) -> float:
    """Import users into another pool; the seconds that it took."""
    return asyncio.run(_import_users(url))


async def _import_users(url: str) -> float:
    connection, began = await Connection.to(url), time.perf_counter()
    for start in range(0, IMPORTED, BATCH):
        users = [
            {
                "login": f"imported{number}",
                "password": f"password {number}",
                "env": "stage",
                "domain": "canary",
            }
            for number in range(start, start + BATCH)
        ]
        body = json.dumps({"users": users})
        expect(200, await connection.call("POST", "/api/v1/users/import", body))
    connection.close()
    return time.perf_counter() - began


async def pairs(server: Server, has_ended: asyncio.Future[float]) -> list[float]:
    """Seconds of each pair of acquire and release, until something has ended."""
    client, took = await Client.of(server.url), []
    while not has_ended.done():
        began = time.perf_counter()
        await client.release(await client.acquire(ASKED))
        took.append(time.perf_counter() - began)
    client.connection.close()
    return took


async def alone(server: Server) -> list[float]:
    return await pairs(server, asyncio.ensure_future(asyncio.sleep(ALONE, ALONE)))


async def beside_import(
    server: Server, apart: ProcessPoolExecutor
) -> tuple[list[float], float]:
    loop = asyncio.get_running_loop()
    importing = loop.run_in_executor(apart, import_users, server.url)
    return await pairs(server, importing), await importing


def main() -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        server = stack.enter_context(serving(new_database(database, users=100)))
        apart = stack.enter_context(
            ProcessPoolExecutor(1, mp_context=get_context("spawn"))
        )
        asyncio.run(alone(server))  # fills caches, and is not counted
        before = asyncio.run(alone(server))
        meanwhile, seconds = asyncio.run(beside_import(server, apart))
        after = asyncio.run(alone(server))
    print(
        f"{IMPORTED:,} users were imported in {seconds:.0f} s, "
        f"{seconds / IMPORTED:.2f} s each\n"
    )
    unit = median([*before, *after])
    table(
        ("meanwhile", "the median pair, ms", "quartiles", "p99, ms", "over nothing"),
        *(
            (
                name,
                milliseconds(median(took)),
                " to ".join(map(milliseconds, quartiles(took))),
                milliseconds(percentile(took, 99)),
                f"{median(took) / unit:.2f}",
            )
            for name, took in (
                ("nothing", before),
                ("the import", meanwhile),
                ("nothing, after it", after),
            )
        ),
    )


if __name__ == "__main__":
    main()
