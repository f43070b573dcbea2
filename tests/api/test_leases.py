"""Leases over HTTP: shapes, statuses and headers."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from .conftest import ALICE, Start

pytestmark = pytest.mark.anyio

WANT = {"env": "stage", "domain": "regular"}


def lease_path(lease_id: uuid.UUID | str | None = None) -> str:
    return f"/api/v1/leases/{lease_id or uuid.uuid4()}"


async def add_user(client: httpx.AsyncClient, **changes: Any) -> None:
    answer = await client.post("/api/v1/users/", json={**ALICE, **changes})
    assert answer.status_code == 201


async def test_a_held_lease_carries_user_secrets_and_fence(
    client: httpx.AsyncClient,
) -> None:
    await add_user(client, secrets={"totp": "JBSWY3DPEHPK3PXP"})
    answer = await client.put(lease_path(), json={"wants": [WANT]})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Botfarm-Protocol"] == "1"
    [user] = answer.json()["users"]
    assert user["password"] == ALICE["password"]
    assert user["secrets"] == {"totp": "JBSWY3DPEHPK3PXP"}
    assert user["fence"] == answer.json()["fence"]


async def test_a_waiting_lease_is_202_with_place_and_blockers(
    client: httpx.AsyncClient,
) -> None:
    await add_user(client)
    holder = {"test_id": "tests/test_a.py::test_b", "run_id": "r", "worker_id": "gw0"}
    await client.put(lease_path(), json={"wants": [WANT], "holder": holder})
    answer = await client.put(lease_path(), json={"wants": [WANT], "wait": 0})
    assert answer.status_code == 202
    assert answer.json()["place"] == 1
    assert answer.json()["matching"] == {
        "free": 0,
        "held": 1,
        "resting": 0,
        "quarantined": {"count": 0, "first": []},
    }
    [blocker] = answer.json()["blockers"]
    assert blocker["holder"] == {**holder, "host": None, "job_url": None}


async def test_a_wait_ends_with_202(client: httpx.AsyncClient) -> None:
    await add_user(client)
    await client.put(lease_path(), json={"wants": [WANT]})
    answer = await client.put(lease_path(), json={"wants": [WANT], "wait": 0.05})
    assert answer.status_code == 202
    assert answer.json()["waited"] >= 0.05


async def test_a_kept_lease_is_told_from_others(client: httpx.AsyncClient) -> None:
    await add_user(client)
    path = lease_path()
    held = (await client.put(path, json={"wants": [WANT]})).json()
    body = {"fence": held["fence"], "seconds": 600, "outcome": "failed"}
    for wrong in ({"seconds": 0}, {"seconds": 86_401}, {"outcome": None}):
        answer = await client.post(f"{path}/keep", json={**body, **wrong})
        assert answer.status_code == 422
    answer = await client.post(f"{path}/keep", json=body)
    assert answer.json() == {"id": held["id"], "expires_in": 600.0}
    assert (await client.get(path)).json()["kept_at"]
    waiting = await client.put(lease_path(), json={"wants": [WANT]})
    assert [it["kept"] for it in waiting.json()["blockers"]] == [True]


async def test_renew_and_release(client: httpx.AsyncClient) -> None:
    await add_user(client)
    path = lease_path()
    held = (await client.put(path, json={"wants": [WANT], "ttl": 120})).json()
    renewal = {"id": held["id"], "fence": held["fence"]}
    unknown = {"id": str(uuid.uuid4()), "fence": 1}
    answer = await client.post(
        "/api/v1/leases/renew", json={"leases": [renewal, unknown]}
    )
    first, second = answer.json()["leases"]
    assert first == {"id": held["id"], "state": "held", "expires_in": 120.0}
    assert second["state"] == "unknown"
    released = await client.request("DELETE", path, json={"outcome": "passed"})
    assert (released.status_code, released.content) == (204, b"")
    assert (await client.delete(path)).status_code == 204
    shown = (await client.get(path)).json()
    assert (shown["state"], shown["outcome"]) == ("released", "passed")
    again = await client.put(path, json={"wants": [WANT]})
    assert again.status_code == 410
    assert again.json()["error"] == "lease_ended"
    assert again.json()["users"][0]["login"] == "alice"


@pytest.mark.parametrize(
    ("wants", "status", "code"),
    [
        ([{"env": "stage", "domain": "canary"}], 404, "no_such_pool"),
        ([{**WANT, "labels": {"role": "admin"}}], 404, "no_such_pool"),
        ([{**WANT, "count": 2}], 409, "pool_too_small"),
        ([WANT, WANT], 409, "pool_too_small"),
        ([], 422, "invalid_request"),
        ([{**WANT, "count": 0}], 422, "invalid_request"),
        ([{**WANT, "count": 60}, {**WANT, "count": 41}], 422, "invalid_request"),
        ([{"env": "moon", "domain": "regular"}], 422, "invalid_request"),
    ],
)
async def test_wants_that_cannot_be_met_are_refused_at_once(
    client: httpx.AsyncClient, wants: list[Any], status: int, code: str
) -> None:
    await add_user(client)
    answer = await client.put(lease_path(), json={"wants": wants, "wait": 30})
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert answer.json()["detail"]


@pytest.mark.parametrize("ttl", [4.9, 86_401, -1, "soon"])
async def test_a_ttl_out_of_bounds_is_refused(
    client: httpx.AsyncClient, ttl: object
) -> None:
    answer = await client.put(lease_path(), json={"wants": [WANT], "ttl": ttl})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "ttl"


async def test_all_leases_of_a_worker_end_together(client: httpx.AsyncClient) -> None:
    await add_user(client)
    await add_user(client, login="bob")
    holder = {"run_id": "r", "worker_id": "gw0"}
    for number in range(3):
        test = {**holder, "test_id": f"test_{number}"}
        await client.put(lease_path(), json={"wants": [WANT], "holder": test})
    answer = await client.post("/api/v1/leases/release", json=holder)
    told = answer.json()
    assert told["released"] == 3
    freed = {it["test_id"]: it["logins"] for it in told["freed"]}
    assert sorted(freed) == ["test_0", "test_1"]  # the third waited
    assert sorted(login for logins in freed.values() for login in logins) == [
        ALICE["login"],
        "bob",
    ]
    assert (await client.get("/api/v1/leases/")).json() == []


async def test_leases_are_listed_without_secrets_and_paged(
    client: httpx.AsyncClient,
) -> None:
    await add_user(client)
    for _ in range(3):
        path = lease_path()
        await client.put(path, json={"wants": [WANT]})
        await client.delete(path)
    first = await client.get("/api/v1/leases", params={"state": "ended", "limit": 2})
    assert len(first.json()) == 2
    assert ALICE["password"] not in first.text
    second = await client.get(
        "/api/v1/leases",
        params={
            "state": "ended",
            "limit": 2,
            "cursor": first.headers["Botfarm-Next-Cursor"],
        },
    )
    assert len(second.json()) == 1
    user_id = first.json()[0]["users"][0]["id"]
    history = await client.get(f"/api/v1/users/{user_id}/leases")
    assert len(history.json()) == 3


async def test_a_lease_is_broken_on_purpose(client: httpx.AsyncClient) -> None:
    await add_user(client)
    path = lease_path()
    await client.put(path, json={"wants": [WANT]})
    answer = await client.post(f"{path}/break", json={"reason": "stuck"})
    assert (answer.json()["state"], answer.json()["end_reason"]) == ("revoked", "stuck")
    assert (await client.delete(path)).status_code == 410
    missing = await client.post(f"{lease_path()}/break", json={"reason": "stuck"})
    assert missing.status_code == 404


async def test_a_state_is_left_for_the_next_holder_who_alone_is_told(
    client: httpx.AsyncClient,
) -> None:
    await add_user(client)
    path = lease_path()
    held = (await client.put(path, json={"wants": [WANT]})).json()
    [user] = held["users"]
    assert user["state"] is None
    state, body = f"{path}/users/{user['id']}/state", {"fence": held["fence"]}
    given = {**body, "state": "SESSION", "expires_in": 60}
    saved = await client.put(state, json=given)
    assert (saved.status_code, saved.content) == (204, b"")
    await client.delete(path)
    for shown in (f"/api/v1/users/{user['id']}", path, "/api/v1/leases?state=all"):
        assert "SESSION" not in (await client.get(shown)).text
    path = lease_path()
    held = await client.put(path, json={"wants": [WANT]})
    assert held.json()["users"][0]["state"] == "SESSION"
    assert held.headers["Cache-Control"] == "no-store"
    state, body = f"{path}/users/{user['id']}/state", {"fence": held.json()["fence"]}
    for _ in range(2):
        dropped = await client.request("DELETE", state, json=body)
        assert (dropped.status_code, dropped.content) == (204, b"")
    for wrong in ({"state": "é" * 131_073}, {"state": "S", "expires_in": 0}, {}):
        answer = await client.put(state, json={**body, **wrong})
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
        assert "éé" not in answer.text


async def test_without_a_key_no_state_is_kept_and_the_refusal_says_what_to_set(
    start: Start,
) -> None:
    async with start(secret_keys="") as client:
        await add_user(client)
        path = lease_path()
        held = (await client.put(path, json={"wants": [WANT]})).json()
        state, body = (
            f"{path}/users/{held['users'][0]['id']}/state",
            {"fence": held["fence"]},
        )
        answer = await client.put(state, json={**body, "state": "SESSION"})
        assert (answer.status_code, answer.json()["error"]) == (409, "no_sealing_key")
        assert "BOTFARM_SECRET_KEYS" in answer.json()["detail"]
        dropped = await client.request("DELETE", state, json=body)
        assert dropped.status_code == 204


async def test_without_a_key_the_password_is_not_handed_out(start: Start) -> None:
    async with start(secret_keys="") as client:
        await add_user(client)
        answer = await client.put(lease_path(), json={"wants": [WANT]})
        assert answer.json()["users"][0]["password"] is None


async def test_a_secret_of_an_unknown_key_is_an_error_that_says_so(
    start: Start,
) -> None:
    async with start() as client:
        await add_user(client)
    other = "b3RoZXIta2V5LWZvci10ZXN0cy0zMi1ieXRlcy0tLS0="
    for keys in (other, ""):
        async with start(secret_keys=keys) as client:
            answer = await client.put(lease_path(), json={"wants": [WANT]})
            assert answer.status_code == 500
            assert answer.json()["error"] == "secret_unreadable"
            assert f"key {answer.json()['key']}" in answer.json()["detail"]
            assert (await client.get("/api/v1/leases/")).json() == []


async def test_an_import_seals_anew_what_no_key_opens(start: Start) -> None:
    async with start() as client:
        await add_user(client)
    other = "b3RoZXIta2V5LWZvci10ZXN0cy0zMi1ieXRlcy0tLS0="
    async with start(secret_keys=other) as client:
        body = {"users": [ALICE]}
        imported = await client.post("/api/v1/users/import", json=body)
        assert imported.json() == {"created": 0, "updated": 1, "unchanged": 0}
        held = await client.put(lease_path(), json={"wants": [WANT]})
        assert held.json()["users"][0]["password"] == ALICE["password"]
