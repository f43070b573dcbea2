"""Places for users that suites make, over HTTP."""

from __future__ import annotations

import uuid

import httpx
import pytest

from botfarm_server.services import reservations

from .conftest import ALICE

pytestmark = pytest.mark.anyio

PATH = "/api/v1/reservations"
POOL = {"env": "stage", "domain": "regular"}


async def test_a_place_is_reserved_given_back_or_turned_into_a_user(
    client: httpx.AsyncClient,
) -> None:
    place = {**POOL, "limit": 1, "id": str(uuid.uuid4())}
    reserved = await client.post(PATH, json=place)
    assert reserved.status_code == 201
    assert reserved.json() == {"id": place["id"], "expires_in": 600.0}
    assert (await client.post(PATH, json=place)).status_code == 201
    full = await client.post(PATH, json={**POOL, "limit": 1})
    assert (full.status_code, full.json()["error"]) == (409, "pool_full")
    assert full.json()["limit"] == full.json()["reserved"] == 1
    for _ in range(2):
        assert (await client.delete(f"{PATH}/{place['id']}")).status_code == 204

    user = {**ALICE, "reservation_id": place["id"]}
    late = await client.post("/api/v1/users/", json=user)
    assert (late.status_code, late.json()["error"]) == (404, "reservation_not_found")
    user["reservation_id"] = (
        await client.post(PATH, json={**POOL, "limit": 1})
    ).json()["id"]
    for _ in range(2):
        assert (await client.post("/api/v1/users/", json=user)).status_code == 201
    full = await client.post(PATH, json={**POOL, "limit": 1})
    assert full.json()["existing"] == 1


async def test_who_has_too_many_places_is_told_so(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reservations, "MOST_PLACES", 2)
    place = {**POOL, "limit": 100_000}
    for _ in range(2):
        assert (await client.post(PATH, json=place)).status_code == 201
    refused = await client.post(PATH, json=place)
    assert (refused.status_code, refused.json()["error"]) == (409, "too_many_places")
    assert refused.json()["limit"] == 2


async def test_a_place_in_no_pool_of_this_farm_is_refused(
    client: httpx.AsyncClient,
) -> None:
    for wrong in ({"env": "moon"}, {"limit": 0}):
        answer = await client.post(PATH, json={**POOL, "limit": 1, **wrong})
        assert answer.status_code == 422
