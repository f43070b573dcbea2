"""The connection that LISTENs, when it is lost in ways that say little."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote

import asyncpg
import pytest
import structlog
from sqlalchemy.engine import make_url

from botfarm_server.store import wakeups
from botfarm_server.store.wakeups import PostgresqlWakeups

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def relay_that_hides_the_end(socket: str) -> AsyncIterator[int]:
    """A port that leads to a Unix socket, whose end of a stream it passes on to nobody.

    So it is behind a proxy or a firewall that has forgotten the connection.
    """
    open_ends: list[asyncio.StreamWriter] = []
    serving: list[asyncio.Task[None] | None] = []

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        below, above = await asyncio.open_unix_connection(socket)
        open_ends.extend((writer, above))
        await asyncio.gather(pass_on(reader, above), pass_on(below, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for end in open_ends:
            end.transport.abort()
        await asyncio.gather(*filter(None, serving), return_exceptions=True)


async def test_a_session_that_was_ended_without_the_end_of_its_stream_is_made_anew(
    migrated_postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "PROBE_INTERVAL", 0.05)
    monkeypatch.setattr(wakeups, "RECONNECT_PAUSE", 0.05)
    name, directory = re.findall(r"@/(\w+)\?host=(.+)", migrated_postgresql)[0]
    socket = f"{unquote(directory)}/.s.PGSQL.5432"
    looks = asyncio.Queue[None]()

    async def look_again() -> None:
        looks.put_nowait(None)

    async with relay_that_hides_the_end(socket) as port:
        url = make_url(
            f"postgresql+asyncpg://postgres@127.0.0.1:{port}/{name}?ssl=disable"
        )
        listening = PostgresqlWakeups(
            url, on_granted=lambda _: None, look_again=look_again
        )
        with structlog.testing.capture_logs() as told:
            running = asyncio.create_task(listening.run())
            await asyncio.wait_for(looks.get(), 10)
            admin = await asyncpg.connect(migrated_postgresql)
            ended = await admin.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
            await admin.close()
            assert len(ended) == 1
            await asyncio.wait_for(looks.get(), 10)  # it has connected again
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert [it["event"] for it in told] == ["listening was cut"]
