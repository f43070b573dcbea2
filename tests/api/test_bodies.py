"""Bodies: how much is held of them, and whose are ended."""

from __future__ import annotations

import json
import tracemalloc
import uuid
from collections.abc import AsyncIterator

import anyio
import pytest
from support.servers import TOKEN

from botfarm_server.api import bodies
from botfarm_server.api.bodies import LARGE, MOST_BODIES, MOST_IN_SHARE, ORDINARY
from botfarm_server.services import lanes

from .calls import (
    JSON,
    MAXIMUM_BODY,
    USERS,
    Call,
    answer_to,
    app_of,
    bearing,
    lease,
    user,
)
from .conftest import running

pytestmark = pytest.mark.anyio


async def test_only_so_much_is_held_of_bodies_and_of_who_may_not_send_them_nothing(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all that arrive, one of the caller who sends most of them has to go."""
    monkeypatch.setattr(bodies, "LINGER", 0.0)
    app, _ = app_of(tmp_path, max_body_bytes=MAXIMUM_BODY, request_timeout=300)
    go_on = anyio.Event()
    told: dict[str, list[int]] = {"admin": [], "lease": []}

    async def refused(call: Call, headers: dict[str, str]) -> int:
        async def content() -> AsyncIterator[bytes]:
            yield b"no JSON"
            await anyio.sleep_forever()

        method, path, _ = call
        answer = await client.request(method, path, content=content(), headers=headers)
        return answer.status_code

    async def send(call: Call, token: str, whose: list[int], read: anyio.Event) -> None:
        async def content() -> AsyncIterator[bytes]:
            yield b" " * MAXIMUM_BODY
            read.set()
            await go_on.wait()

        method, path, _ = call
        answer = await client.request(
            method, path, content=content(), headers=bearing(token)
        )
        whose.append(answer.status_code)

    async with running(app) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        named = [{"name": role, "role": role} for role in ("lease", "read")]
        made = [await client.post("/api/v1/tokens", json=it) for it in named]
        of_lease, of_read = (it.json()["token"] for it in made)
        importing = ("POST", f"{USERS}/import", None)
        with anyio.fail_after(60):
            assert await refused(user(), bearing("wrong")) == 401
            assert await refused(lease(), bearing(of_read)) == 403
            assert await refused(importing, bearing(of_lease)) == 403
            async with anyio.create_task_group() as calls:
                senders = [("admin", TOKEN, importing)] * 2
                senders += [("lease", of_lease, lease())] * MOST_IN_SHARE
                for who, token, call in senders:
                    read = anyio.Event()
                    calls.start_soon(send, call, token, told[who], read)
                    await read.wait()
                while not told["lease"]:
                    await anyio.sleep(0.01)
                go_on.set()
    # The first of the greedy one has made room; the others are no JSON.
    lease_told = [408] + [422] * (MOST_IN_SHARE - 1)
    assert told == {"admin": [422] * 2, "lease": lease_told}


async def test_a_callers_own_bodies_wait_for_each_other_and_none_of_them_is_ended(
    tmp_path: object,
) -> None:
    """Nor do those wait that keep leases, and small ones."""
    app, _ = app_of(tmp_path, max_body_bytes=MAXIMUM_BODY, request_timeout=300)
    go_on = anyio.Event()
    begun, told = list[int](), list[int]()

    async def send(number: int) -> None:
        async def content() -> AsyncIterator[bytes]:
            begun.append(number)
            yield b" " * (MAXIMUM_BODY - 1)
            await go_on.wait()
            yield b" "

        length = {**JSON, "Content-Length": str(MAXIMUM_BODY)}
        answer = await client.post(f"{USERS}/import", content=content(), headers=length)
        told.append(answer.status_code)

    async with running(app) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        with anyio.fail_after(60):
            async with anyio.create_task_group() as calls:
                for number in range(2 * MOST_BODIES):
                    calls.start_soon(send, number)
                await anyio.wait_all_tasks_blocked()
                assert (len(begun), told) == (MOST_IN_SHARE, [])
                renewal = {"leases": [{"id": str(uuid.UUID(int=1)), "fence": 1}]}
                renewed = json.dumps(renewal).encode().ljust(LARGE + 1)
                renewing = ("POST", "/api/v1/leases/renew", renewed)
                own = bearing(TOKEN)
                assert await answer_to(client, renewing, own) == (200, None)
                small = json.dumps(user()[2]).encode().ljust(LARGE)
                adding = ("POST", USERS, small)
                assert await answer_to(client, adding, own) == (201, None)
                assert told == []
                go_on.set()
    assert told == [422] * (2 * MOST_BODIES)


async def test_a_call_that_waits_holds_neither_its_padding_nor_a_place_in_its_lane(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 1)
    app, state = app_of(tmp_path, bootstrap_token=None, bcrypt_cost=4)
    async with running(app) as client, anyio.create_task_group() as calls:
        await answer_to(client, user())
        assert await answer_to(client, lease(1)) == (200, None)
        method, path, wanted = lease(2, wait=60)
        padded = json.dumps(wanted).encode().ljust(ORDINARY)
        refused = await client.request(
            method, path, content=padded + b" ", headers=JSON
        )
        assert (refused.status_code, refused.json()["error"]) == (413, "body_too_large")
        assert refused.json()["limit"] == ORDINARY
        tracemalloc.start()
        try:
            for number in range(2, 12):
                method, path, _ = lease(number)
                calls.start_soon(answer_to, client, (method, path, padded))
            with anyio.fail_after(60):
                while len(state.asking.news.room.waiting()) < 10:
                    await anyio.sleep(0.01)
            here = tracemalloc.Filter(inclusive=True, filename_pattern=bodies.__file__)
            held = tracemalloc.take_snapshot().filter_traces([here])
            assert sum(it.size for it in held.statistics("filename")) < ORDINARY
        finally:
            tracemalloc.stop()
        calls.cancel_scope.cancel()
