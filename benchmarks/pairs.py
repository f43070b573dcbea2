"""Pairs of acquire and release per second, beside what else could hold accounts.

Each holds one of a pool of accounts for nobody in particular and gives it back, with
16 clients at once and more accounts than clients. pgbench runs the two plain statements
that a table of accounts needs, on the PostgreSQL server that Botfarm uses: no more can
be had from that server. Redis and etcd are left out where they are not installed.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import socket
import subprocess
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from _farm import Server, execute, new_database, postgresql, serving
from _http import Connection, expect
from _load import CLIENTS, Load, Pair, apart, botfarm_pairs, drive, health_pairs
from _measuring import folder, median, milliseconds, quartiles, rounds, table
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from support.postgresql import PostgresqlServer

ACCOUNTS = 100
SECONDS = 3.0
"""Of each measurement."""
ROUNDS = 5
OURS, HEALTH, PGBENCH = "Botfarm", "its GET /health, twice", "pgbench"
START_TIMEOUT = 10.0

PLAIN_TABLE = """\
CREATE TABLE accounts (
    id int PRIMARY KEY, holder uuid, expires_at timestamptz, released_at timestamptz
);
CREATE INDEX ON accounts (released_at) WHERE holder IS NULL;
INSERT INTO accounts SELECT n, NULL, NULL, now() FROM generate_series(1, {accounts}) n;
"""
PLAIN_STATEMENTS = """\
UPDATE accounts SET holder = gen_random_uuid(), expires_at = now() + interval '60 s' \
WHERE id = (SELECT id FROM accounts WHERE holder IS NULL ORDER BY released_at LIMIT 1 \
FOR UPDATE SKIP LOCKED) RETURNING id \\gset
UPDATE accounts SET holder = NULL, expires_at = NULL, released_at = now() \
WHERE id = :id;
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One measurement, and the cores that each side of it kept busy."""

    rate: float
    server: float
    load: float
    took: list[float]


def measured(load: Load, server_cpu: float) -> Measured:
    return Measured(
        load.rate, server_cpu / load.seconds, load.cpu / load.seconds, load.took
    )


def botfarm(
    pool: ProcessPoolExecutor,
    server: Server,
    pairs: Callable[[str, float], Load] = botfarm_pairs,
) -> Measured:
    before = server.cpu()
    load = pool.submit(pairs, server.url, SECONDS).result()
    return measured(load, server.cpu() - before)


class Plain:
    """pgbench over a table of accounts, in a database of its own."""

    def __init__(self, server: PostgresqlServer, path: Path) -> None:
        url = server.create_database()
        execute(url, PLAIN_TABLE.format(accounts=ACCOUNTS))
        execute(url, "VACUUM ANALYZE accounts")
        script = path / "pair.sql"
        script.write_text(PLAIN_STATEMENTS)
        self._command = [
            *(str(server.program("pgbench")), "--no-vacuum", "--protocol=prepared"),
            *(f"--client={CLIENTS}", f"--time={SECONDS:.0f}", f"--file={script}", url),
        ]

    def measure(self) -> Measured:
        with psutil.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            printed = process.stdout.read()
        found = re.search(r"tps = ([\d.]+)", printed)
        if found is None or "processed: 0" in printed:
            raise SystemExit(f"{printed}\npgbench failed")
        return Measured(float(found[1]), 0.0, 0.0, [])


def other(
    pool: ProcessPoolExecutor,
    server: psutil.Process,
    pairs: Callable[[int, float], Load],
    port: int,
) -> Measured:
    before = server.cpu_times()
    load = pool.submit(pairs, port, SECONDS).result()
    after = server.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return measured(load, cpu)


def redis_pairs(port: int, seconds: float) -> Load:
    """Try the locks of the accounts in a random order, as a pool of Locks does."""

    async def new() -> Pair:
        redis = Redis(port=port)
        locks = [
            Lock(redis, f"account{n}", timeout=60, blocking=False)
            for n in range(ACCOUNTS)
        ]

        async def pair() -> None:
            while True:
                lock = random.choice(locks)
                if await lock.acquire():
                    await lock.release()
                    return

        return pair

    return drive(new, seconds)


def etcd_pairs(port: int, seconds: float) -> Load:
    """A lease, a transaction that takes a free key under it, and the lease revoked."""

    async def new() -> Pair:
        connection = await Connection.to(f"http://127.0.0.1:{port}")

        async def call(path: str, **asked: object) -> dict[str, object]:
            answer = await connection.call("POST", path, json.dumps(asked))
            told: dict[str, object] = json.loads(expect(200, answer))
            return told

        async def pair() -> None:
            lease = (await call("/v3/lease/grant", TTL=60))["ID"]
            while True:
                key = b64encode(b"account%d" % random.randrange(ACCOUNTS)).decode()
                free = {"key": key, "target": "CREATE", "create_revision": 0}
                put = {"key": key, "value": "", "lease": lease}
                answer = await call(
                    "/v3/kv/txn", compare=[free], success=[{"request_put": put}]
                )
                if answer.get("succeeded"):
                    break
            await call("/v3/lease/revoke", ID=lease)

        return pair

    return drive(new, seconds)


@contextmanager
def running(command: list[str], port: int) -> Iterator[psutil.Process]:
    process = psutil.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                if time.monotonic() > until:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.1)
            else:
                break
        yield process
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def redis_command(path: Path, port: int, *options: str) -> list[str]:
    place = path / uuid.uuid4().hex
    place.mkdir()
    address = ("--bind", "127.0.0.1", "--port", str(port))
    return ["redis-server", *address, "--dir", str(place), *options]


def etcd_command(path: Path, port: int) -> list[str]:
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{free_port()}"
    return [
        *("etcd", "--data-dir", str(path / "etcd")),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", f"default={peer}"),
    ]


def others(
    pool: ProcessPoolExecutor, path: Path, stack: ExitStack
) -> dict[str, Callable[[], Measured]]:
    """The peers that are installed here."""
    found: dict[str, Callable[[], Measured]] = {}
    always = ("--appendonly", "yes", "--appendfsync", "always")
    for name, options in (("as shipped", ()), ("every write on disk", always)):
        port = free_port()
        if shutil.which("redis-server"):
            command = redis_command(path, port, *options)
            process = stack.enter_context(running(command, port))
            found[f"redis-py Lock pool, Redis {name}"] = partial(
                other, pool, process, redis_pairs, port
            )
    if shutil.which("etcd"):
        port = free_port()
        process = stack.enter_context(running(etcd_command(path, port), port))
        found["etcd leases"] = partial(other, pool, process, etcd_pairs, port)
    return found


def main() -> None:
    with ExitStack() as stack:
        path = stack.enter_context(folder())
        database = stack.enter_context(postgresql())
        pool = stack.enter_context(apart())
        url = new_database(database, users=ACCOUNTS)
        server = stack.enter_context(serving(url))
        variants: dict[str, Callable[[], Measured]] = {
            OURS: partial(botfarm, pool, server),
            HEALTH: partial(botfarm, pool, server, health_pairs),
            PGBENCH: Plain(database, path).measure,
            **others(pool, path, stack),
        }
        found = rounds(ROUNDS, variants)
    print(
        f"{CLIENTS} clients, {ACCOUNTS} accounts, medians of {ROUNDS} rounds of "
        f"{SECONDS:.0f} s; pgbench runs the two plain statements\n"
    )
    heading = ("", "pairs/s", "quartiles", "Botfarm / it", "the median pair, ms")
    table(
        (*heading, "server, cores", "load, cores"),
        *(_row(name, found) for name in found),
    )


def _row(name: str, found: dict[str, list[Measured]]) -> tuple[str, ...]:
    its = found[name]
    rates = [it.rate for it in its]
    ratios = [ours.rate / it.rate for ours, it in zip(found[OURS], its, strict=True)]
    pairs = [seconds for it in its for seconds in it.took]
    took = milliseconds(median(pairs)) if pairs else "-"
    return (
        name,
        f"{median(rates):.0f}",
        " to ".join(f"{rate:.0f}" for rate in quartiles(rates)),
        f"{median(ratios):.3f}",
        took,
        f"{median([it.server for it in its]):.2f}" if pairs else "-",
        f"{median([it.load for it in its]):.2f}" if pairs else "-",
    )


if __name__ == "__main__":
    main()
