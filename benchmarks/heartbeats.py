"""What 1,000 held leases cost a server that gets nothing but their heartbeats.

Leases of 60 s, each renewed every 20 s: by one process that renews as many in one call
as a call takes, and by 16 processes at different times. Beside it the same server with
nothing to do; its loop looks for what has expired, in each case.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack

from _farm import Server, new_database, postgresql, serving
from _http import LEASES, Connection, asking, expect
from _measuring import median, rounds, table

HELD = 1_000
PERIOD = 20.0
"""Seconds between two heartbeats of a lease."""
ROUNDS = 3
LIMIT = 0.02
"""Of one core."""

Renewal = dict[str, object]


async def hold(server: Server) -> list[Renewal]:
    """Take all the users, each under a lease of its own."""
    connection = await Connection.to(server.url)
    renewals: list[Renewal] = []
    for number in range(HELD):
        lease_id = f"00000000-0000-4000-8000-{number:012}"
        answer = await connection.call("PUT", LEASES + lease_id, asking())
        renewals.append(
            {"id": lease_id, "fence": json.loads(expect(200, answer))["fence"]}
        )
        if number % 100 == 99:  # within the time that they have to be claimed
            await renew(connection, renewals)
    connection.close()
    return renewals


async def renew(connection: Connection, renewals: list[Renewal]) -> None:
    body = json.dumps({"leases": renewals})
    answer = await connection.call("POST", f"{LEASES}renew", body)
    told = json.loads(expect(200, answer))["leases"]
    if any(lease["state"] != "held" for lease in told):
        raise SystemExit("a lease was lost")


async def beat(server: Server, renewals: list[Renewal], processes: int) -> float:
    """Cores that the server kept busy for one period of every lease's heartbeat."""
    before, began = server.cpu(), time.perf_counter()

    async def process(number: int) -> None:
        connection = await Connection.to(server.url)
        await asyncio.sleep(number * PERIOD / processes)
        await renew(connection, renewals[number::processes])
        connection.close()

    await asyncio.gather(*map(process, range(processes)))
    await asyncio.sleep(began + PERIOD - time.perf_counter())
    return (server.cpu() - before) / (time.perf_counter() - began)


async def rest(idle: Server, server: Server, renewals: list[Renewal]) -> float:
    """The same of a server that has no leases, while the other one keeps its own."""
    connection = await Connection.to(server.url)
    await renew(connection, renewals)
    connection.close()
    return await beat(idle, [], 0)


def main() -> None:
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        url = new_database(database, users=HELD)
        server = stack.enter_context(serving(url))
        idle = stack.enter_context(serving(new_database(database, users=HELD)))
        renewals = asyncio.run(hold(server))
        found = rounds(
            ROUNDS,
            {
                "nobody": lambda: asyncio.run(rest(idle, server, renewals)),
                "one process": lambda: asyncio.run(beat(server, renewals, 1)),
                "16 processes": lambda: asyncio.run(beat(server, renewals, 16)),
            },
        )
    print(
        f"{HELD:,} leases, each renewed every {PERIOD:.0f} s, medians of {ROUNDS} "
        f"rounds; the limit is {LIMIT:.1%} of a core\n"
    )
    table(
        ("renewed by", "server's processor time, % of a core", "of the limit"),
        *(
            (name, f"{median(its) * 100:.2f}", f"{median(its) / LIMIT:.2f}")
            for name, its in found.items()
        ),
    )


if __name__ == "__main__":
    main()
