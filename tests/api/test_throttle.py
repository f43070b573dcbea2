"""A token sends so many requests, and has so many calls that wait."""

from __future__ import annotations

import uuid

import anyio
import pytest
from support.servers import TOKEN

from botfarm_server.api import lanes as api_lanes
from botfarm_server.domain.tokens import digest_of
from botfarm_server.services import lanes

from .calls import USERS, WANT, answer_to, app_of, bearing, lease, listing, user
from .conftest import running

pytestmark = pytest.mark.anyio


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def refusals_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_lanes, "PAUSE", 0.0)


async def test_a_token_waits_and_sends_no_more_than_its_part(tmp_path: object) -> None:
    """Others go on meanwhile, and no lease is lost for it."""
    app, state = app_of(
        tmp_path, bcrypt_cost=4, max_waiting_per_token=1, max_requests_per_second=1
    )
    clock = FakeClock()
    state.throttle.clock = clock
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = {"name": "other", "role": "lease"}
        other = (await client.post("/api/v1/tokens", json=named)).json()["token"]
        await answer_to(client, user())
        assert await answer_to(client, lease(1)) == (200, None)
        calls.start_soon(answer_to, client, lease(2, wait=60))
        await state.asking.news.room.until_occupied()
        refused = await client.put(
            f"/api/v1/leases/{uuid.UUID(int=3)}", json={"wants": [WANT], "wait": 60}
        )
        assert (refused.status_code, refused.json()["error"]) == (
            *(429, "too_many_waiting"),
        )
        assert refused.headers["Retry-After"] == "1"
        theirs = bearing(other)
        short = lease(4, wait=0.01)
        assert await answer_to(client, short, theirs) == (202, None)
        # Five requests were sent so far, and ten may be in a row.
        told = [await answer_to(client, listing()) for _ in range(6)]
        assert told == [(200, None)] * 5 + [(429, "too_many_requests")]
        # What leases depend on has as much again, and then an end, too.
        renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
        renewed = ("POST", "/api/v1/leases/renew", renewal)
        ending = ("DELETE", f"/api/v1/leases/{uuid.UUID(int=1)}", None)
        of_run = ("POST", "/api/v1/leases/release", {"run_id": "over"})
        of_user = ("POST", f"{USERS}/{uuid.UUID(int=2)}/release", None)
        told = [await answer_to(client, it) for it in (renewed, ending, of_run) * 3]
        assert told == [(200, None), (204, None), (200, None)] * 3
        assert await answer_to(client, of_user) == (404, "user_not_found")
        for method, path, body in (renewed, ending, of_run, of_user):
            refused = await client.request(method, path, json=body)
            assert (refused.status_code, refused.json()["error"]) == (
                *(429, "too_many_requests"),
            )
            assert refused.headers["Retry-After"] == "1"
        assert await answer_to(client, listing(), theirs) == (200, None)
        clock.now += 1
        assert await answer_to(client, renewed) == (200, None)
        assert await answer_to(client, listing()) == (429, "too_many_requests")
        clock.now += 11
        assert await answer_to(client, listing()) == (200, None)


async def test_a_known_token_is_counted_before_its_turn(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    app, state = app_of(tmp_path, max_requests_per_second=1)
    state.throttle.clock = FakeClock()
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert await answer_to(client, listing()) == (200, None)
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        for _ in range(9):
            calls.start_soon(answer_to, client, listing())
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(60):
            refused = await answer_to(client, listing())
        assert refused == (429, "too_many_requests")
        under_way.end()
