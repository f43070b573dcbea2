"""Pools over HTTP: what there is, before anybody asks for it."""

from __future__ import annotations

import uuid

import httpx
import pytest

from .conftest import ALICE

pytestmark = pytest.mark.anyio

WANT = {"env": "stage", "domain": "regular"}
ADMIN = {**WANT, "labels": {"role": "admin"}}
LEASES = (
    [WANT],
    [ADMIN, WANT],
    [ADMIN, {**WANT, "count": 2}],
    [{"env": "prod", "domain": "regular"}, WANT],
    [{"env": "moon", "domain": "regular"}],
)


async def test_each_lease_is_checked_as_asking_for_it_would_be_answered(
    client: httpx.AsyncClient,
) -> None:
    """Users that are held count, those in quarantine do not, and nothing is asked."""
    for changes in ({}, {"labels": {"role": "admin"}}, {}):
        user = {**ALICE, **changes, "login": uuid.uuid4().hex}
        created = (await client.post("/api/v1/users/", json=user)).json()
    broken = f"/api/v1/users/{created['id']}/quarantine"
    await client.post(broken, json={"reason": "locked out"})
    pools = (await client.get("/api/v1/pools/")).json()
    assert pools == {"pools": [{**WANT, "users": 2}]}
    await client.put(f"/api/v1/leases/{uuid.uuid4()}", json={"wants": [WANT]})
    told = await client.post(
        "/api/v1/pools/check", json={"leases": [{"wants": it} for it in LEASES]}
    )
    asked_for = await client.get("/api/v1/leases", params={"state": "all"})
    assert len(asked_for.json()) == 1
    checked = told.json()["leases"]
    assert [it["matching"] for it in checked] == [[2], [1, 2], [1, 2], [0, 2], [0]]
    assert [it["error"] and it["error"]["error"] for it in checked] == [
        *(None, None),
        *("pool_too_small", "no_such_pool", "invalid_request"),
    ]
    for wants, prospect in zip(LEASES, checked, strict=True):
        path = f"/api/v1/leases/{uuid.uuid4()}"
        asked = await client.put(path, json={"wants": wants})
        refusal = None if asked.status_code in {200, 202} else asked.json()
        assert prospect["error"] == refusal
        await client.delete(path)


async def test_a_check_is_bounded(client: httpx.AsyncClient) -> None:
    for leases in ([[WANT]] * 51, [[WANT] * 20] * 5 + [[WANT]]):
        answer = await client.post(
            "/api/v1/pools/check", json={"leases": [{"wants": it} for it in leases]}
        )
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request")
    assert "must have at most 100 wants in all" in answer.json()["detail"]


async def test_the_largest_check_passes(client: httpx.AsyncClient) -> None:
    """No other bound comes before those of leases, of wants and of labels."""
    labels = {f"label-{number}": "x" * 40 for number in range(20)}
    want = {**WANT, "project_id": str(uuid.uuid4()), "labels": labels, "count": 1}
    leases = [[want] * 20, [want] * 20, [want] * 12, *([[want]] * 46), [want] * 2]
    body = {"leases": [{"wants": wants} for wants in leases]}
    answer = await client.post("/api/v1/pools/check", json=body)
    assert (len(leases), sum(map(len, leases))) == (50, 100)
    assert answer.status_code == 200, answer.text
