"""What Prometheus reads, over both databases."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from botfarm_server.domain.census import Census
from botfarm_server.services import census as counting
from botfarm_server.store import census

from .conftest import ALICE, Start

pytestmark = pytest.mark.anyio

TOKEN = "a-long-enough-token"
OURS, THEIRS = (str(uuid.UUID(int=number)) for number in (1, 2))
POOL = {"env": "stage", "domain": "regular"}
UNBOUNDED = (ALICE["login"], ALICE["password"], OURS, THEIRS, TOKEN, "tests/test_a.py")
"""What is told nowhere, since there is no end to it, or nobody may know it."""
Samples = Mapping[tuple[str, ...], float]


@pytest.fixture
async def client(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """It is told of what there is now, and not of what there was a second ago."""
    monkeypatch.setattr(counting, "MAXIMUM_AGE", 0.0)
    async with start(bootstrap_token=TOKEN) as running_client:
        running_client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield running_client


async def scrape(client: httpx.AsyncClient, token: str = TOKEN) -> Samples:
    """By their names and the values of their labels, in the order of those' names."""
    answer = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert not [it for it in UNBOUNDED if it in answer.text]
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def add_user(client: httpx.AsyncClient, project_id: str) -> str:
    user = {**ALICE, "login": f"alice-{uuid.uuid4().hex}", "project_id": project_id}
    added = await client.post("/api/v1/users", json=user)
    return str(added.json()["id"])


async def ask(client: httpx.AsyncClient, wait: float = 0.0) -> dict[str, Any]:
    """Lease a user of our project, or take a place among those that wait for one."""
    holder = {"test_id": "tests/test_a.py::test_b"}
    body = {"wants": [{**POOL, "project_id": OURS}], "holder": holder, "wait": wait}
    asked = await client.put(f"/api/v1/leases/{uuid.uuid4()}", json=body)
    told: dict[str, Any] = asked.json()
    return told


async def test_it_tells_what_there_is_and_what_this_process_has_done(
    client: httpx.AsyncClient,
) -> None:
    await add_user(client, OURS)
    ill = await add_user(client, THEIRS)
    reason = {"reason": "locked out"}
    await client.post(f"/api/v1/users/{ill}/quarantine", json=reason)
    first = await ask(client)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client, 30.0)
        with anyio.fail_after(30):
            told = await scrape(client)
            while not (
                told["botfarm_waiting_calls",] == told["botfarm_leases", "waiting"] == 1
            ):
                await anyio.sleep(0.01)
                told = await scrape(client)
        for state, number in (("held", 1), ("quarantined", 1), ("free", 0)):
            assert told["botfarm_users", "regular", "stage", state] == number
        assert told["botfarm_leases", "held"] == 1
        assert told["botfarm_waiters", "regular", "stage"] == 1
        assert 0 < told["botfarm_oldest_waiter_seconds", "regular", "stage"] < 60
        lease = {"id": first["id"], "fence": first["fence"]}
        renewals = {"leases": [lease, {**lease, "id": str(uuid.uuid4())}]}
        await client.post("/api/v1/leases/renew", json=renewals)
        ended = {"outcome": "failed"}
        path = f"/api/v1/leases/{first['id']}"
        await client.request("DELETE", path, json=ended)
    await client.post(f"/api/v1/users/{ill}/acquire")
    for path in (f"users/{THEIRS}", f"leases/{OURS}/", "tests/test_a.py"):
        assert (await client.get(f"/api/v1/{path}")).status_code == 404
    told = await scrape(client)
    assert told["botfarm_waiters", "regular", "stage"] == 0
    assert told["botfarm_oldest_waiter_seconds", "regular", "stage"] == 0
    counted = {
        ("botfarm_leases_granted_total", "false"): 1,
        ("botfarm_leases_granted_total", "true"): 1,
        ("botfarm_lease_wait_seconds_count",): 1,
        ("botfarm_hand_on_seconds_count",): 1,
        ("botfarm_leases_ended_total", "failed", "released"): 1,
        ("botfarm_leases_ended_total", "none", "expired"): 0,
        ("botfarm_renewals_total", "renewed"): 1,
        ("botfarm_renewals_total", "lost"): 1,
        ("botfarm_errors_total", "user_not_found"): 1,
        ("botfarm_errors_total", "user_locked"): 1,
        ("botfarm_errors_total", "not_found"): 1,
        ("botfarm_http_requests_total", "leases_ask", "2xx"): 2,
        ("botfarm_http_requests_total", "leases_show", "4xx"): 1,
        ("botfarm_http_requests_total", "none", "4xx"): 1,
        ("botfarm_database_up",): 1,
        ("botfarm_database_connections",): 10,
    }
    assert {name: told.get(name) for name in counted} == counted
    assert told["botfarm_expiry_last_success_timestamp_seconds",] > 0
    assert told["process_resident_memory_bytes",] > 0


async def test_a_token_of_a_project_is_told_of_that_project_alone(
    client: httpx.AsyncClient,
) -> None:
    """And nothing of what the process does, which others have it do."""
    made = {"name": "shop", "role": "read"}
    tokens = {
        project: (
            await client.post("/api/v1/tokens", json={**made, "project_id": project})
        ).json()["token"]
        for project in (OURS, THEIRS)
    }
    await add_user(client, OURS)
    for _ in range(2):
        await ask(client)
    ours = await scrape(client, tokens[OURS])
    assert {name for name, *_ in ours} == {
        *("botfarm_database_up", "botfarm_users", "botfarm_leases"),
        *("botfarm_waiters", "botfarm_oldest_waiter_seconds"),
    }
    assert ours["botfarm_users", "regular", "stage", "held"] == 1
    assert ours["botfarm_leases", "held"] == ours["botfarm_leases", "waiting"] == 1
    nothing: dict[tuple[str, ...], float] = {("botfarm_database_up",): 1}
    nothing |= {("botfarm_leases", it): 0 for it in ("held", "kept", "waiting")}
    assert await scrape(client, tokens[THEIRS]) == nothing
    for project, number in ((OURS, 1), (THEIRS, 0)):
        headers = {"Authorization": f"Bearer {tokens[project]}"}
        counted = await client.get("/api/v1/pools/counts", headers=headers)
        told = counted.json()["pools"]
        assert [(it["held"], it["waiters"]) for it in told] == [(1, 1)] * number


async def test_those_who_read_at_once_share_a_count_and_wait_for_it_for_a_while(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else there is to tell is told without it."""
    begun, may_end, count = 0, anyio.Event(), census.count

    async def count_late(*given: Any) -> Census:
        nonlocal begun
        begun += 1
        await may_end.wait()
        return await count(*given)

    monkeypatch.setattr(census, "count", count_late)
    monkeypatch.setattr(counting, "PATIENCE", 0.1)
    for _ in range(2):
        told = await scrape(client)
        assert told["botfarm_database_up",] == 0
        assert told["botfarm_leases_granted_total", "true"] == 0
        assert ("botfarm_leases", "held") not in told
    monkeypatch.setattr(counting, "PATIENCE", 30.0)
    monkeypatch.setattr(counting, "MAXIMUM_AGE", 60.0)
    may_end.set()
    assert (await scrape(client))["botfarm_leases", "held"] == 0
    await add_user(client, OURS)
    assert ("botfarm_waiters", "regular", "stage") not in await scrape(client)
    assert begun == 1
