"""Leasing through PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from support.pgbouncer import PGBOUNCER, pgbouncer
from support.servers import ServerProcess

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
    pytest.mark.parametrize("database_url", ["postgresql"], indirect=True),
]

WANT = {"env": "stage", "domain": "regular"}


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    parts = urlsplit(database_url)
    socket_directory = parse_qs(parts.query)["host"][0]
    # pytest's own directories are closed to the user that PgBouncer runs as.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)  # noqa: PTH101 - of a path that is a string
        with pgbouncer(Path(name), socket_directory, parts.path.strip("/")) as url:
            yield url


async def test_waiting_and_waking_work_as_without_it(
    pooled_url: str, database_url: str
) -> None:
    environment = {
        "BOTFARM_DATABASE_POOLER": "transaction",
        "BOTFARM_LISTEN_URL": database_url,
        # The loop would make up for a lost word only after a minute.
        "BOTFARM_LOOP_INTERVAL": "60",
    }
    with (
        ServerProcess(pooled_url, environment) as first,
        ServerProcess(pooled_url, environment) as second,
    ):
        one, other = (it.wait_until_ready().url for it in (first, second))
        async with httpx.AsyncClient(timeout=60) as client:

            async def use(url: str) -> str:
                path = f"{url}/api/v1/leases/{uuid.uuid4()}"
                answer = await client.put(path, json={"wants": [WANT], "wait": 30})
                assert answer.status_code == 200, answer.text
                [user] = answer.json()["users"]
                renewal = {"id": answer.json()["id"], "fence": user["fence"]}
                await client.post(
                    f"{url}/api/v1/leases/renew", json={"leases": [renewal]}
                )
                assert (await client.delete(path)).status_code == 204
                return str(user["login"])

            for number in range(3):
                user = {**WANT, "login": f"user-{number}", "password": "pw"}
                answer = await client.post(f"{one}/api/v1/users/", json=user)
                assert answer.status_code == 201, answer.text
            logins = await asyncio.gather(
                *(use(url) for _ in range(20) for url in (one, other))
            )
    assert set(logins) == {"user-0", "user-1", "user-2"}
    lines = [json.loads(line) for server in (first, second) for line in server.log]
    assert not [line for line in lines if line["level"] in {"warning", "error"}]
