"""A PostgreSQL of our own, databases with users in it, and servers over them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
import psutil
from support.postgresql import PostgresqlServer

from botfarm_server.store import migrations
from botfarm_server.store.dialects import database_url as parsed_url

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0

ADD_USERS = """\
INSERT INTO users (id, login, env, domain, labels, label_count, password_hash,
                   created_at, released_at, fence, dirty)
SELECT gen_random_uuid(), format('user%s', n), 'stage', 'regular', '{}', 0,
       repeat('x', 60), now(), now(), 0, false
FROM generate_series(1, $1::int) n"""


@contextmanager
def postgresql() -> Iterator[PostgresqlServer]:
    """A new PostgreSQL, set up as `initdb` does, which is gone afterwards."""
    server = PostgresqlServer(Path(tempfile.gettempdir()) / f"botfarm-{os.getpid()}")
    try:
        yield server
    finally:
        server.stop()


def new_database(server: PostgresqlServer, *, users: int) -> str:
    """The URL of a migrated database with users in one pool, made by SQL.

    They have no sealed passwords, so that none is opened for their holders.
    """
    url = server.create_database()
    migrations.upgrade(parsed_url(url))
    execute(url, ADD_USERS, users)
    execute(url, "VACUUM ANALYZE")
    return url


def execute(url: str, statement: str, *arguments: object) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()

    asyncio.run(run())


def fetch(url: str, statement: str) -> list[asyncpg.Record]:
    async def run() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    process: psutil.Process

    def cpu(self) -> float:
        """Processor seconds that it took until now."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> int:
        """Bytes of its own that are in memory."""
        return int(self.process.memory_full_info().uss)


@contextmanager
def serving(database_url: str, **settings: str) -> Iterator[Server]:
    """One server process with the settings as shipped, but for those that are given."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BOTFARM_")}
    given = {f"BOTFARM_{name.upper()}": value for name, value in settings.items()}
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "botfarm_server", "serve", "--port", "0"],
            cwd=tempfile.gettempdir(),  # no .env is read there
            env={**kept, "DATABASE_URL": database_url, **given},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            yield Server(_address(process, Path(log.name)), psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(STOP_TIMEOUT)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server listens, once it is ready too."""
    url, until = None, time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < until:
        for line in log.read_text().splitlines():
            said = json.loads(line)
            if said["event"] == "listening":
                url = str(said["url"])
        if url is not None and _is_ready(url):
            return url
        time.sleep(0.1)
    process.kill()
    raise SystemExit(f"{log.read_text()}\nthe server did not start")


def _is_ready(url: str) -> bool:
    try:
        urlopen(f"{url}/ready").close()
    except HTTPError:
        return False
    return True
