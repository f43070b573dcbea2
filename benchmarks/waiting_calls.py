"""What a call that waits for a user costs the server in memory.

Beside it, in the same run, calls that wait in applications that do nothing else: on
uvicorn alone, on Starlette, and on FastAPI, each of which contains the one before.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg
import psutil
from _farm import STOP_TIMEOUT, Server, new_database, postgresql, serving
from _http import LEASES, Client, Connection, asking
from _measuring import median, quartiles, rounds, table
from _waiting_apps import APPLICATIONS

ROUNDS = 3
CALLS = 2_000
AT_ONCE = 32
"""So many are sent at the same time."""
WAIT = 60.0
SETTLED = 1.0
"""Seconds in which the last of them are read and reach their waiting."""
LIMIT = 20_000
"""Bytes that a waiting call may cost."""
OURS = "Botfarm"
COUNT_WAITERS = "SELECT count(*) FROM leases WHERE state = 'waiting'"

Arrived = Callable[[int], Awaitable[None]]


async def memory_per_call(server: Server, path: str, arrived: Arrived) -> float:
    """Bytes that each of many waiting calls adds to the process.

    `arrived` waits until so many of them wait.
    """
    before, connections = server.memory(), []
    for number in range(1, CALLS + 1):
        connection = await Connection.to(server.url)
        connections.append(connection)
        connection.send("PUT", path + str(uuid.uuid4()), asking(wait=WAIT))
        if number % AT_ONCE == 0 or number == CALLS:
            await arrived(number)
    await asyncio.sleep(SETTLED)
    after = server.memory()
    for connection in connections:
        connection.close()
    return (after - before) / CALLS


async def of_botfarm(server: Server, database_url: str) -> float:
    client = await Client.of(server.url)
    for _ in range(100):  # fill what is filled once
        await client.release(await client.acquire(asking()))
    await client.acquire(asking())
    database = await asyncpg.connect(database_url)

    async def arrived(number: int) -> None:
        while await database.fetchval(COUNT_WAITERS) < number:
            await database.execute("SELECT pg_sleep(0.02)")

    memory = await memory_per_call(server, LEASES, arrived)
    await database.close()
    client.connection.close()
    return memory


async def of_application(server: Server) -> float:
    first = await Connection.to(server.url)  # imports what is imported once
    first.send("PUT", "/first", asking())

    async def arrived(_: int) -> None:
        await asyncio.sleep(0.02)

    memory = await memory_per_call(server, "/", arrived)
    first.close()
    return memory


def measure_botfarm(make_database: Callable[[], str]) -> float:
    url = make_database()
    with serving(url, max_waiting=str(CALLS * 2), claim_window="60") as server:
        return asyncio.run(of_botfarm(server, url))


def measure_application(name: str) -> float:
    with application(name) as server:
        return asyncio.run(of_application(server))


@contextmanager
def application(name: str) -> Iterator[Server]:
    program = Path(__file__).with_name("_waiting_apps.py")
    with subprocess.Popen(
        [sys.executable, str(program), name], stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdout is None:
            raise TypeError("it prints nothing")
        try:
            url = process.stdout.readline().strip()
            yield Server(url, psutil.Process(process.pid))
        finally:
            process.kill()
            process.wait(STOP_TIMEOUT)


def main() -> None:
    with postgresql() as database:
        variants: dict[str, Callable[[], float]] = {
            name: partial(measure_application, name) for name in APPLICATIONS
        }
        with_one_user = partial(new_database, database, users=1)
        variants[OURS] = partial(measure_botfarm, with_one_user)
        found = rounds(ROUNDS, variants)
    print(f"{CALLS:,} waiting calls; the limit is {LIMIT / 1000:.0f} kB for each\n")
    rows = [
        (
            name,
            f"{median(each) / 1000:.1f}",
            " to ".join(f"{it / 1000:.1f}" for it in quartiles(each)),
            f"{median(found[OURS]) / median(each):.2f}",
        )
        for name, each in found.items()
    ]
    table(("", "kB a waiting call", "quartiles", "Botfarm / it"), *rows)


if __name__ == "__main__":
    main()
