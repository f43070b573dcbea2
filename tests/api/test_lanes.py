"""Calls of one caller wait for each other, and not for those of others."""

from __future__ import annotations

import uuid
from collections.abc import Hashable
from typing import Any

import anyio
import pytest
from sqlalchemy import event
from support.servers import TOKEN

from botfarm_server.api import lanes as api_lanes
from botfarm_server.domain.tokens import digest_of, new_token
from botfarm_server.services import lanes

from .calls import (
    JSON,
    LEASE,
    USERS,
    Answer,
    Call,
    answer_to,
    app_of,
    bearing,
    lease,
    listing,
    user,
)
from .conftest import running

pytestmark = pytest.mark.anyio


async def test_who_sends_much_at_once_waits_for_itself_and_nobody_else(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what keeps or ends its leases does not wait for the rest of it."""
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    app, state = app_of(tmp_path)
    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = {"name": "other", "role": "read"}
        other = (await client.post("/api/v1/tokens", json=named)).json()["token"]
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        told: list[Answer] = []

        async def ask() -> None:
            told.append(await answer_to(client, listing()))

        calls.start_soon(ask)
        with anyio.fail_after(60):
            renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
            renewed = ("POST", "/api/v1/leases/renew", renewal)
            assert await answer_to(client, renewed) == (200, None)
            theirs = bearing(other)
            seen = await answer_to(client, listing(), theirs)
            assert (seen, told) == ((200, None), [])
            under_way.end()
            while not told:
                await anyio.sleep(0.01)
        assert told == [(200, None)]


ELSEWHERE = "https://elsewhere.test"
PREFLIGHT = {"Origin": ELSEWHERE, "Access-Control-Request-Method": "GET"}
ANYTHING: list[tuple[str, str, dict[str, str], int]] = [
    ("GET", "/nothing", {}, 404),
    ("BREW", "/nothing", {}, 404),
    ("DELETE", "/api/v1/leases", {}, 405),
    ("PATCH", "/api/v1/leases/release", {}, 405),
    ("GET", "/health", {}, 200),
    ("HEAD", "/ready", {}, 200),
    ("GET", USERS, {"Host": "elsewhere.test"}, 400),
    ("OPTIONS", USERS, PREFLIGHT, 200),
]
KEEPING: list[tuple[Call, Answer]] = [
    (("POST", "/api/v1/leases/renew/", {"leases": []}), (422, "invalid_request")),
    (("POST", "/api/v1/leases/release", {"run_id": "over"}), (200, None)),
    (("DELETE", LEASE, None), (204, None)),
    (("POST", f"{USERS}/{uuid.UUID(int=2)}/release", None), (404, "user_not_found")),
]


async def test_whatever_a_known_token_calls_waits_in_its_lane(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that are none and methods that they do not take, too; but for what keeps or
    ends leases, with a slash at its end or without.
    """
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    app, state = app_of(tmp_path, allowed_hosts=["127.0.0.1"], cors_origins=[ELSEWHERE])
    told: list[tuple[str, str, dict[str, str], int]] = []

    async def ask(method: str, path: str, headers: dict[str, str]) -> None:
        answer = await client.request(method, path, headers=headers)
        told.append((method, path, headers, answer.status_code))

    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        assert await answer_to(client, listing()) == (200, None)
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        for method, path, headers, _ in ANYTHING:
            calls.start_soon(ask, method, path, headers)
        with anyio.fail_after(60):
            for call, answer in KEEPING:
                assert await answer_to(client, call) == answer
        await anyio.wait_all_tasks_blocked()
        assert told == []
        under_way.end()
        with anyio.fail_after(60):
            while len(told) < len(ANYTHING):
                await anyio.sleep(0.01)
        assert sorted(told, key=str) == sorted(ANYTHING, key=str)


async def test_one_who_goes_on_and_on_waits_for_each_refusal_and_holds_up_nobody(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusals at once kept a server busy which did nothing else."""
    monkeypatch.setattr(api_lanes, "PAUSE", 3_600.0)
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    app, state = app_of(
        tmp_path, max_requests_per_second=1, max_waiting_per_token=1, bcrypt_cost=4
    )
    state.throttle.clock = lambda: 0.0
    told: list[Answer] = []

    async def ask(call: Call) -> None:
        told.append(await answer_to(client, call, bearing(token)))

    async with running(app) as client, anyio.create_task_group() as calls:
        known = bearing(TOKEN)
        named = {"name": "suite", "role": "lease"}
        made = await client.post("/api/v1/tokens", json=named, headers=known)
        token = made.json()["token"]
        await answer_to(client, user(), known)
        assert await answer_to(client, lease(1), bearing(token)) == (200, None)
        calls.start_soon(ask, lease(2, wait=60))
        await state.asking.news.room.until_occupied()
        calls.start_soon(ask, lease(3, wait=60))  # one too many that waits
        await anyio.wait_all_tasks_blocked()
        nothing: Call = ("GET", "/nothing", None)
        with anyio.fail_after(60):
            for _ in range(7):
                answer = await client.get("/nothing", headers=bearing(token))
                assert answer.status_code == 404
        for _ in range(5):
            calls.start_soon(ask, nothing)
            calls.start_soon(ask, ("GET", "/health", None))
        await anyio.wait_all_tasks_blocked()
        assert told == []
        with anyio.fail_after(60):
            renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
            renewed: Call = ("POST", "/api/v1/leases/renew", renewal)
            assert await answer_to(client, renewed, bearing(token)) == (200, None)
            assert await answer_to(client, listing(), known) == (200, None)
        calls.cancel_scope.cancel()


SPELLINGS = (f"Bearer {TOKEN}", f"bEaReR {TOKEN}", f"Bearer   {TOKEN}  ")


async def test_a_token_has_one_lane_and_one_part_of_the_bodies_however_it_is_spelt(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, state = app_of(tmp_path)
    entered: list[object] = []
    whose: list[object] = []
    turn, read = state.lanes.turn, state.bodies.read

    def noted_turn(lane: Hashable, **more: Any) -> lanes.Turn:
        entered.append(lane)
        return turn(lane, **more)

    async def noted_read(*given: Any, sender: Hashable, **more: Any) -> Any:
        whose.append(sender)
        return await read(*given, sender=sender, **more)

    monkeypatch.setattr(state.lanes, "turn", noted_turn)
    monkeypatch.setattr(state.bodies, "read", noted_read)
    async with running(app) as client:
        named = {"name": "suite", "role": "admin"}
        made = await client.post(
            "/api/v1/tokens", json=named, headers={"Authorization": SPELLINGS[0]}
        )
        token = made.json()["token"]
        first = {"Authorization": f"Bearer {token}"}
        await answer_to(client, listing(), first)  # known from here on
        entered.clear()
        whose.clear()
        for spelling in SPELLINGS:
            spelt = {**JSON, "Authorization": spelling.replace(TOKEN, token)}
            assert (await answer_to(client, user(), spelt))[0] in {201, 400}
    assert entered == [(digest_of(token), False)] * len(SPELLINGS)
    assert whose == [uuid.UUID(made.json()["id"])] * len(SPELLINGS)


async def test_of_those_that_wait_in_line_one_too_many_is_refused_and_who_left_dropped(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(lanes, "MOST_IN_LINE", 2)
    app, state = app_of(tmp_path)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    identified: list[object] = []
    identify = state.access.identify

    async def noted(given: str | None, **more: Any) -> Any:
        identified.append(given)
        return await identify(given, **more)

    async def call(client_has_left: bool, told: list[int]) -> None:
        came = {"type": "http.request", "body": b"", "more_body": False}
        messages = [] if client_has_left else [came]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            if not client_has_left:
                await anyio.sleep_forever()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])

        headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
        scope = {
            "type": "http",
            "method": "GET",
            "path": USERS,
            "headers": headers,
            "query_string": b"",
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
        }
        await app(scope, receive, send)

    async with running(app) as client, anyio.create_task_group() as calls:
        client.headers.update(bearer)
        assert await answer_to(client, listing()) == (200, None)
        under_way = state.lanes.turn((digest_of(TOKEN), False))
        await under_way.begin()
        monkeypatch.setattr(state.access, "identify", noted)
        left: list[int] = []
        stayed: list[int] = []
        calls.start_soon(call, True, left)
        calls.start_soon(call, False, stayed)
        await anyio.wait_all_tasks_blocked()
        refused = await client.get(USERS)
        assert (refused.status_code, refused.json()["error"]) == (
            *(429, "too_many_requests"),
        )
        assert refused.headers["Retry-After"] == "1"
        assert identified == []
        under_way.end()
        with anyio.fail_after(60):
            while not (left and stayed):
                await anyio.sleep(0.01)
        assert (left, stayed, identified) == ([408], [200], [TOKEN])


async def test_strangers_of_an_address_share_a_lane_and_keep_out_no_known_token(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many tokens they make up, and whatever they call with them."""
    monkeypatch.setattr(lanes, "STRANGERS_AT_ONCE", 1)
    app, state = app_of(tmp_path)
    parked, go_on = list[object](), anyio.Event()
    identify = state.access.identify

    async def park(given: str | None, **more: Any) -> Any:
        if given is not None and given.startswith("made-up"):
            parked.append(given)
            await go_on.wait()
        return await identify(given, **more)

    monkeypatch.setattr(state.access, "identify", park)
    renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
    renewing = ("POST", "/api/v1/leases/renew", renewal)

    told: list[Answer] = []

    async def ask(call: Call, token: str) -> None:
        told.append(await answer_to(client, call, bearing(token)))

    async with running(app) as client, anyio.create_task_group() as calls:
        named = {"name": "suite", "role": "lease"}
        made = await client.post("/api/v1/tokens", json=named, headers=bearing(TOKEN))
        token, token_id = made.json()["token"], made.json()["id"]
        for number in range(4):
            calls.start_soon(ask, listing(), f"made-up-{number}")
            calls.start_soon(ask, renewing, f"made-up-{number}-too")
        with anyio.fail_after(60):
            while not parked:
                await anyio.sleep(0.01)
            await anyio.wait_all_tasks_blocked()
            assert len(parked) == 1
            for call in (listing(), renewing):
                assert await answer_to(client, call, bearing(token)) == (200, None)
            path = f"/api/v1/tokens/{token_id}"
            await client.delete(path, headers=bearing(TOKEN))
            refused = await answer_to(client, listing(), bearing(token))
            assert refused == (401, "token_revoked")
            calls.start_soon(ask, listing(), token)
            await anyio.wait_all_tasks_blocked()
            assert told == []
            go_on.set()
            while len(told) < 9:
                await anyio.sleep(0.01)
        assert {status for status, _ in told} == {401}


async def test_a_right_token_s_first_call_does_not_wait_among_strangers(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor costs each wrong token the database a statement before its turn."""
    monkeypatch.setattr(lanes, "STRANGERS_AT_ONCE", 1)
    app, state = app_of(tmp_path)
    looked_for: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if "tokens.hash" in statement:
            looked_for.append(statement)

    async with running(app) as client, anyio.create_task_group() as calls:
        named = {"name": "suite", "role": "lease"}
        made = await client.post("/api/v1/tokens", json=named, headers=bearing(TOKEN))
        strangers = state.lanes.turn_of_stranger("127.0.0.1")
        await strangers.begin()
        event.listen(
            state.access.database.engine.sync_engine, "before_cursor_execute", note
        )
        for _ in range(50):
            wrong = bearing(new_token("lease"))
            calls.start_soon(answer_to, client, listing(), wrong)
        with anyio.fail_after(60):
            right = bearing(made.json()["token"])
            assert await answer_to(client, listing(), right) == (200, None)
        # A look or two for all, and the right one's call in its turn.
        assert len(looked_for) <= 3
        calls.cancel_scope.cancel()


PAGES = {
    "/openapi.json": 200,
    "/docs": 200,
    "/board": 200,
    "/metrics": 200,
    "/health": 200,
    "/ready": 200,
    "/nothing": 404,
    "/api/v1/tokens/import": 405,
}


async def test_pages_and_numbers_wait_in_the_lane_of_who_asks_for_them(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where they are public, and so does what is no page at all."""
    monkeypatch.setattr(lanes, "STRANGERS_AT_ONCE", 1)
    app, state = app_of(tmp_path, pages="public", metrics="public")
    told: list[Answer] = []

    async def ask(path: str) -> None:
        answer = await client.get(path)
        told.append((answer.status_code, None))

    async with running(app) as client, anyio.create_task_group() as calls:
        strangers = state.lanes.turn_of_stranger("127.0.0.1")
        await strangers.begin()
        for path in PAGES:
            calls.start_soon(ask, path)
        await anyio.wait_all_tasks_blocked()
        assert told == []
        strangers.end()
        with anyio.fail_after(60):
            while len(told) < len(PAGES):
                await anyio.sleep(0.01)
        assert sorted(told) == sorted((status, None) for status in PAGES.values())
        known = bearing(TOKEN)
        assert await answer_to(client, listing(), known) == (200, None)
        await strangers.begin()
        with anyio.fail_after(60):
            numbers = await client.get("/metrics", headers=known)
        assert numbers.status_code == 200
        strangers.end()
