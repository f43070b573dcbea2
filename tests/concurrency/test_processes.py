"""One holder at a time, across server processes that know nothing of each other."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from support.servers import ServerProcess

from .conftest import StartServer

pytestmark = pytest.mark.anyio
over_one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what a process does whatever its database is."""

WANT = {"env": "stage", "domain": "regular"}


@asynccontextmanager
async def clients(servers: Sequence[ServerProcess]) -> AsyncIterator[Any]:
    limits = httpx.Limits(max_connections=None)
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits)
            )
            for server in servers
        ]


async def add_users(client: httpx.AsyncClient, count: int) -> list[str]:
    users = [
        {**WANT, "login": f"user-{number}", "password": "pw"} for number in range(count)
    ]
    answer = await client.post("/api/v1/users/import", json={"users": users})
    assert answer.status_code == 200, answer.text
    return [user["id"] for user in (await client.get("/api/v1/users/")).json()]


async def test_of_fifty_acquires_of_one_user_one_succeeds(
    start_server: StartServer,
) -> None:
    async with clients([start_server() for _ in range(3)]) as servers:
        [user_id] = await add_users(servers[0], 1)
        answers = await asyncio.gather(
            *(
                server.post(f"/api/v1/users/{user_id}/acquire")
                for server in itertools.islice(itertools.cycle(servers), 50)
            )
        )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200] + [409] * 49


async def test_two_hundred_leases_over_twenty_users_never_share_one(
    start_server: StartServer,
) -> None:
    holders: dict[str, str] = {}
    fences: dict[str, list[int]] = {}

    async def use(server: httpx.AsyncClient) -> None:
        lease_id = str(uuid.uuid4())
        path = f"/api/v1/leases/{lease_id}"
        body = {"wants": [WANT], "wait": 60}
        answer = await server.put(path, json=body)
        assert answer.status_code == 200, answer.text
        [user] = answer.json()["users"]
        # Between the answer and the release nobody else may be told of this user.
        assert holders.setdefault(user["id"], lease_id) == lease_id
        fences.setdefault(user["id"], []).append(user["fence"])
        await asyncio.sleep(0)
        del holders[user["id"]]
        assert (await server.delete(path)).status_code == 204

    # On a busy machine the answer may come after the claim window, which is tested
    # elsewhere.
    patient = {"BOTFARM_CLAIM_WINDOW": "120"}
    async with clients([start_server(**patient) for _ in range(2)]) as servers:
        await add_users(servers[0], 20)
        await asyncio.gather(
            *(use(server) for server in itertools.islice(itertools.cycle(servers), 200))
        )
    assert sum(map(len, fences.values())) == 200
    for given in fences.values():
        assert given == sorted(set(given))


async def test_what_is_done_at_one_process_wakes_who_waits_at_another(
    start_server: StartServer, database_url: str
) -> None:
    # The loop would make up for a lost word only after a minute.
    slow = {"BOTFARM_LOOP_INTERVAL": "60"}
    async with clients([start_server(**slow) for _ in range(2)]) as servers:
        (user_id,) = await add_users(servers[0], 1)
        held, granted, cancelled, hopeless = (
            f"/api/v1/leases/{uuid.uuid4()}" for _ in range(4)
        )
        await servers[0].put(held, json={"wants": [WANT]})

        async def answer_to_who_waits(lease: str, *, woken_by: Awaitable[Any]) -> Any:
            asks = servers[1].put(lease, json={"wants": [WANT], "wait": 30})
            call = asyncio.create_task(asks)
            while (await servers[0].get(lease)).json().get("state") != "waiting":
                await asyncio.sleep(0.01)
            await woken_by
            return await asyncio.wait_for(call, 20)

        release = servers[0].delete(held)
        answer = await answer_to_who_waits(granted, woken_by=release)
        assert answer.status_code == 200
        cancel = servers[0].delete(cancelled)
        answer = await answer_to_who_waits(cancelled, woken_by=cancel)
        assert answer.status_code == 410
        address = f"/api/v1/users/{user_id}/quarantine"
        # Another process over one SQLite file hears of it when it asks again.
        near = servers[database_url.startswith("sqlite")]
        quarantine = near.post(address, json={"reason": "locked out"})
        answer = await answer_to_who_waits(hopeless, woken_by=quarantine)
        assert answer.status_code == 404


async def test_the_lease_of_a_killed_server_is_there_after_its_restart(
    start_server: StartServer, database_url: str
) -> None:
    first = start_server()
    async with clients([first]) as [server]:
        await add_users(server, 1)
        path = f"/api/v1/leases/{uuid.uuid4()}"
        before = (await server.put(path, json={"wants": [WANT]})).json()
        first.process.kill()
        first.process.wait()
    async with clients([start_server()]) as [server]:
        after = (await server.put(path, json={"wants": [WANT]})).json()
        assert after["state"] == "held"
        assert after["fence"] == before["fence"]


async def test_sigterm_sends_waiting_calls_away_and_ends_the_process(
    start_server: StartServer,
) -> None:
    running = start_server()
    async with clients([running]) as [server]:
        await add_users(server, 1)
        await server.put(f"/api/v1/leases/{uuid.uuid4()}", json={"wants": [WANT]})
        calls = [
            asyncio.create_task(
                server.put(
                    f"/api/v1/leases/{uuid.uuid4()}", json={"wants": [WANT], "wait": 60}
                )
            )
            for _ in range(5)
        ]
        while (
            len(
                (
                    await server.get("/api/v1/leases/", params={"state": "waiting"})
                ).json()
            )
            < 5
        ):
            await asyncio.sleep(0.01)
        running.process.terminate()
        answers = await asyncio.wait_for(asyncio.gather(*calls), 10)
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error"] for answer in answers} == {"shutting_down"}
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
        await asyncio.to_thread(running.process.wait, 10)
    log = "\n".join(running.log)
    assert "Traceback" not in log
    assert "error" not in [line for line in running.log if '"level": "error"' in line]


@over_one_database
async def test_a_kept_alive_connection_does_not_hold_up_the_end(
    start_server: StartServer,
) -> None:
    running = start_server()
    async with clients([running]) as [server]:
        await server.get("/health")
        running.process.terminate()
        await asyncio.to_thread(running.process.wait, 10)


@over_one_database
async def test_logs_tell_lease_user_and_holder_but_no_secret(
    start_server: StartServer,
) -> None:
    running = start_server(BOTFARM_BOOTSTRAP_TOKEN="token-token-token-token")
    async with clients([running]) as [server]:
        server.headers["Authorization"] = "Bearer token-token-token-token"
        user = {**WANT, "login": "alice", "password": "PLANTED-SECRET"}
        await server.post("/api/v1/users/", json=user)
        path = f"/api/v1/leases/{uuid.uuid4()}"
        holder = {"test_id": "test_a", "worker_id": "gw0", "run_id": "r"}
        await server.put(path, json={"wants": [WANT], "holder": holder})
        await server.put(path, json={"wants": [WANT], "password": "PLANTED-SECRET"})
        await server.delete(path)
    running.stop()
    for event in ("lease held", "lease ended"):
        [line] = [json.loads(it) for it in running.log if f'"{event}"' in it]
        assert line["users"] == ["alice"]
        assert line["lease_id"] == path.rsplit("/", 1)[-1]
        assert {**holder, **line} == line
    log = "\n".join(running.log)
    assert "PLANTED-SECRET" not in log
    assert "token-token-token-token" not in log


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_with_every_word_lost_the_loop_makes_up_for_it(
    start_server: StartServer,
) -> None:
    # Behind a pooler, and without another way, a server does not listen at all.
    deaf = {"BOTFARM_DATABASE_POOLER": "transaction", "BOTFARM_LOOP_INTERVAL": "0.5"}
    servers = [start_server(**deaf) for _ in range(2)]
    assert any("BOTFARM_LISTEN_URL is not set" in line for line in servers[0].log)
    async with clients(servers) as (one, other):
        await add_users(one, 1)
        held, waiting = (f"/api/v1/leases/{uuid.uuid4()}" for _ in range(2))
        await one.put(held, json={"wants": [WANT]})
        call = asyncio.create_task(
            other.put(waiting, json={"wants": [WANT], "wait": 30})
        )
        listed = {"state": "waiting"}
        while not (await one.get("/api/v1/leases/", params=listed)).json():
            await asyncio.sleep(0.01)
        await one.delete(held)
        assert (await call).status_code == 200
