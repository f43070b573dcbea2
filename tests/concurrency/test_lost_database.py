"""A database that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.postgresql import PostgresqlServer
from support.servers import ServerProcess
from support.waiting import eventually

from botfarm_server.domain.errors import DatabaseUnavailableError
from botfarm_server.store.dialects import database_url
from botfarm_server.store.engine import Database


@pytest.fixture
def own_postgresql() -> Iterator[PostgresqlServer]:
    directory = (
        Path(tempfile.gettempdir()) / f"botfarm-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    )
    server = PostgresqlServer(directory)
    yield server
    server.stop_own()


def test_a_lost_database_is_503_until_it_is_back(
    own_postgresql: PostgresqlServer,
) -> None:
    url = own_postgresql.create_database()
    with ServerProcess(url) as server, httpx.Client(base_url=server.url) as client:
        server.wait_until_ready()
        user = {"login": "a", "password": "pw", "env": "stage", "domain": "regular"}
        assert client.post("/api/v1/users/", json=user).status_code == 201
        own_postgresql.control("stop", "-m", "immediate")
        answer = client.get("/api/v1/users/")
        assert answer.status_code == 503
        assert answer.json()["error"] == "database_unavailable"
        assert answer.headers["Retry-After"] == "1"
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
        own_postgresql.control("start")
        assert eventually(lambda: client.get("/ready").status_code == 200)
        assert [it["login"] for it in client.get("/api/v1/users/").json()] == ["a"]
        lease = {"wants": [{"env": "stage", "domain": "regular"}]}
        path = f"/api/v1/leases/{uuid.uuid4()}"
        assert client.put(path, json=lease).status_code == 200
    assert "Traceback" not in "\n".join(server.log)


def test_a_server_started_before_its_database_serves_once_it_is_there(
    own_postgresql: PostgresqlServer,
) -> None:
    url = own_postgresql.create_database()
    own_postgresql.control("stop", "-m", "fast")
    with ServerProcess(url) as server, httpx.Client(base_url=server.url) as client:
        assert client.get("/ready").status_code == 503
        assert client.get("/api/v1/users/").status_code == 503
        own_postgresql.control("start")
        server.wait_until_ready()
        assert client.get("/api/v1/users/").json() == []


@pytest.mark.anyio
async def test_a_connection_that_is_cut_while_it_is_made_is_no_fault_of_ours() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    listening = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    url = database_url(f"postgresql://postgres@127.0.0.1:{port}/farm?sslmode=disable")
    database = Database(url, pool_size=2)
    with pytest.raises(DatabaseUnavailableError):
        async with database.read():
            pass
    await database.dispose()
    listening.close()
