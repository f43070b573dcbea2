"""Who gets what: every endpoint, by role, by project and by whose the lease is."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from support.endpoints import endpoints

from botfarm_server.app import create_app
from botfarm_server.domain.tokens import new_token
from botfarm_server.settings import fixed_settings

from .conftest import ALICE, Start, running

pytestmark = pytest.mark.anyio

BOOTSTRAP = "a-long-enough-token"
OURS, THEIRS = (str(uuid.UUID(int=number)) for number in (1, 2))
Json = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A user of our project, and the lease with which our `holder` has it."""

    login: str
    user_id: str
    lease_id: str
    fence: int
    token_id: str
    reservation_id: str = str(uuid.UUID(int=3))

    @property
    def want(self) -> Json:
        labels = {"login": self.login}
        pool = {"env": "stage", "domain": "regular"}
        return {**pool, "project_id": OURS, "labels": labels}


def new_user(_: Scene) -> Json:
    return {**ALICE, "login": uuid.uuid4().hex, "project_id": OURS}


def wants(scene: Scene) -> Json:
    return {"wants": [scene.want]}


def state(scene: Scene) -> Json:
    return {"fence": scene.fence, "state": "cookies"}


CALLERS = ("reader", "holder", "other", "admin", "stranger")
"""Tokens of our project: of role read, the lease token that has the lease, another of
that role, an admin; and an admin of their project."""

Body = Callable[[Scene], Json] | None
TABLE: dict[str, tuple[Body, tuple[int, int, int, int, int]]] = {
    "POST /users": (new_user, (403, 403, 403, 201, 403)),
    "POST /reservations": (
        lambda it: (
            {"env": "stage", "domain": "regular", "project_id": OURS} | {"limit": 1000}
        ),
        (403, 201, 201, 201, 403),
    ),
    "DELETE /reservations/{reservation_id}": (None, (403, 204, 204, 204, 204)),
    "POST /users/import": (
        lambda scene: {"users": [new_user(scene)]},
        (403, 403, 403, 200, 403),
    ),
    "GET /users": (None, (200, 200, 200, 200, 200)),
    "GET /users/{user_id}": (None, (200, 200, 200, 200, 404)),
    "PATCH /users/{user_id}": (lambda _: {"labels": {}}, (403, 403, 403, 200, 404)),
    "DELETE /users/{user_id}": (None, (403, 403, 403, 409, 404)),
    "POST /users/{user_id}/acquire": (None, (403, 409, 409, 409, 404)),
    "POST /users/{user_id}/release": (None, (403, 409, 409, 409, 404)),
    "POST /users/{user_id}/quarantine": (
        lambda _: {"reason": "locked out"},
        (403, 200, 403, 200, 404),
    ),
    "POST /users/{user_id}/restore": (None, (403, 403, 403, 200, 404)),
    "POST /users/{user_id}/verify-password": (
        lambda scene: {"password": f"secret {scene.login}"},
        (403, 200, 403, 200, 404),
    ),
    "GET /users/{user_id}/leases": (None, (200, 200, 200, 200, 404)),
    "PUT /leases/{lease_id}": (wants, (403, 200, 404, 403, 404)),
    "POST /leases/renew": (
        lambda scene: {"leases": [{"id": scene.lease_id, "fence": scene.fence}]},
        (403, 200, 200, 200, 200),
    ),
    "DELETE /leases/{lease_id}": (None, (403, 204, 404, 204, 404)),
    "POST /leases/release": (
        lambda scene: {"run_id": scene.login},
        (403, 200, 200, 200, 200),
    ),
    "POST /leases/{lease_id}/keep": (
        lambda it: {"fence": it.fence, "seconds": 60, "outcome": "failed"},
        (403, 200, 404, 200, 404),
    ),
    "POST /leases/{lease_id}/break": (
        lambda _: {"reason": "stuck"},
        (403, 403, 403, 200, 404),
    ),
    "GET /leases": (None, (200, 200, 200, 200, 200)),
    "GET /leases/{lease_id}": (None, (200, 200, 200, 200, 404)),
    "GET /leases/{lease_id}/users/{user_id}/state": (None, (403, 200, 404, 403, 404)),
    "PUT /leases/{lease_id}/users/{user_id}/state": (state, (403, 204, 404, 204, 404)),
    "DELETE /leases/{lease_id}/users/{user_id}/state": (
        lambda scene: {"fence": scene.fence},
        (403, 204, 404, 204, 404),
    ),
    "GET /pools": (None, (200, 200, 200, 200, 200)),
    "GET /pools/counts": (None, (200, 200, 200, 200, 200)),
    "POST /pools/check": (
        lambda scene: {"leases": [wants(scene)]},
        (200, 200, 200, 200, 200),
    ),
    "POST /tokens": (
        lambda _: {"name": "new", "role": "read", "project_id": OURS},
        (403, 403, 403, 201, 403),
    ),
    "GET /tokens": (None, (403, 403, 403, 200, 200)),
    "DELETE /tokens/{token_id}": (None, (403, 403, 403, 204, 404)),
    "GET /audit": (None, (403, 403, 403, 200, 200)),
    "GET /metrics": (None, (200, 200, 200, 200, 200)),
}

AT_THE_ROOT = {"/metrics"}
"""Where Prometheus looks for it; all else that is in the table is under /api/v1."""
PAGES = {"GET /docs", "GET /openapi.json"}
"""For people at the server's machine, and those with a token: test_front_door.py."""
OPEN = {"GET /health", "HEAD /health", "GET /ready", "HEAD /ready", "GET /board"}
"""They ask nobody for a token. A new one is open on purpose or by mistake."""


def full(path: str) -> str:
    return path if path in AT_THE_ROOT else f"/api/v1{path}"


async def call(
    client: httpx.AsyncClient, token: str, method: str, path: str, body: Any = None
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await client.request(method, full(path), json=body, headers=headers)


async def make(client: httpx.AsyncClient, role: str, **given: Any) -> Json:
    """A token as the API tells it, made by the bootstrap token."""
    body = {"name": "tested", "role": role, **given}
    made = await call(client, BOOTSTRAP, "POST", "/tokens", body)
    assert made.status_code == 201, made.text
    told: Json = made.json()
    return told


async def tokens_of_callers(client: httpx.AsyncClient) -> dict[str, str]:
    roles = ("read", "lease", "lease", "admin", "admin")
    projects = (OURS, OURS, OURS, OURS, THEIRS)
    return {
        caller: (await make(client, role, project_id=project))["token"]
        for caller, role, project in zip(CALLERS, roles, projects, strict=True)
    }


async def add_user(client: httpx.AsyncClient, project_id: str | None) -> Json:
    login = uuid.uuid4().hex
    user: Json = {**ALICE, "login": login, "labels": {"login": login}}
    user |= {"password": f"secret {login}", "project_id": project_id}
    added = await call(client, BOOTSTRAP, "POST", "/users", user)
    told: Json = added.json()
    return told


async def a_scene(client: httpx.AsyncClient, tokens: dict[str, str]) -> Scene:
    user = await add_user(client, OURS)
    victim = await make(client, "read", project_id=OURS)
    scene = Scene(user["login"], user["id"], str(uuid.uuid4()), 0, victim["id"])
    holder = {"run_id": scene.login}
    path, body = f"/leases/{scene.lease_id}", {**wants(scene), "holder": holder}
    held = await call(client, tokens["holder"], "PUT", path, body)
    assert held.status_code == 200, held.text
    fence = held.json()["fence"]
    return Scene(scene.login, scene.user_id, scene.lease_id, fence, scene.token_id)


async def test_the_table_says_who_gets_what(start: Start) -> None:
    """And a stranger reads of no login, nobody but who may of a password."""
    async with start(bootstrap_token=BOOTSTRAP) as client:
        tokens = await tokens_of_callers(client)
        for call_of, (body_of, statuses) in TABLE.items():
            method, path = call_of.split(" ")
            scene = await a_scene(client, tokens)
            for caller, status in zip(CALLERS, statuses, strict=True):
                body = body_of(scene) if body_of else None
                where = path.format(**vars(scene))
                answer = await call(client, tokens[caller], method, where, body)
                told = (call_of, caller, answer.text)
                assert answer.status_code == status, told
                if caller == "stranger":
                    assert scene.login not in answer.text.replace(
                        f"with login={scene.login}", ""
                    ), told
                if not (method == "PUT" and answer.status_code == 200):
                    assert f"secret {scene.login}" not in answer.text, told
                if status == 403 and caller in {"reader", "holder", "other"}:
                    assert answer.json()["needed"] in {"lease", "admin"}, told
                if answer.is_success and method != "GET":
                    scene = await a_scene(client, tokens)
            refused = await client.request(method, full(where), json=body)
            assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
                401,
                "Bearer",
            )


async def test_every_endpoint_has_a_row_or_is_open(database_url: str) -> None:
    """Those as well that the document leaves out; the others ask for a token there."""
    values = {"database_url": database_url, "bootstrap_token": BOOTSTRAP}
    app = create_app(fixed_settings(values))
    rows = {f"{method} {full(path)}" for method, path in map(str.split, TABLE)}
    assert endpoints(app) == rows | PAGES | OPEN
    async with running(app, host="192.0.2.1") as client:
        for endpoint in rows | PAGES:
            method, path = endpoint.split(" ")
            refused = await client.request(method, path)
            assert refused.status_code == 401, endpoint
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    asking = {name for name, it in operations.items() if it.get("security")}
    assert (asking, operations.keys() - asking) == (rows, OPEN & operations.keys())


def test_an_endpoint_that_the_document_leaves_out_is_found() -> None:
    """In a router of a router, beside them, and where an app of another kind is."""
    inner, outer, app = APIRouter(), APIRouter(), FastAPI(openapi_url=None)

    @app.get("/everything", include_in_schema=False)
    @inner.get("/all", include_in_schema=False)
    async def everything() -> None: ...

    @inner.websocket("/stream")
    async def stream(_: WebSocket) -> None: ...

    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")
    app.mount("/files", FastAPI())
    assert endpoints(app) == {
        *("GET /everything", "GET /outer/inner/all"),
        *("ANY /outer/inner/stream", "ANY /files"),
    }


async def test_a_lease_token_touches_its_own_leases_alone(start: Start) -> None:
    """Nor renews, nor ends by the run, nor gives back what another has acquired."""
    async with start(bootstrap_token=BOOTSTRAP) as client:
        tokens = await tokens_of_callers(client)
        scene = await a_scene(client, tokens)
        renewal = {"leases": [{"id": scene.lease_id, "fence": scene.fence}]}

        async def renewed(caller: str) -> str:
            path = "/leases/renew"
            answer = await call(client, tokens[caller], "POST", path, renewal)
            return str(answer.json()["leases"][0]["state"])

        async def released(caller: str) -> int:
            body = {"run_id": scene.login}
            answer = await call(client, tokens[caller], "POST", "/leases/release", body)
            return int(answer.json()["released"])

        assert [await renewed(it) for it in ("other", "stranger", "holder")] == [
            *("unknown", "unknown", "held")
        ]
        assert [await released(it) for it in ("other", "stranger", "holder")] == [
            *(0, 0, 1)
        ]
        place = {"env": "stage", "domain": "regular", "limit": 99}
        reserved = await call(client, tokens["other"], "POST", "/reservations", place)
        made = {**ALICE, "project_id": None, "reservation_id": reserved.json()["id"]}
        user = await call(client, tokens["other"], "POST", "/users", made)
        assert (user.status_code, user.json()["project_id"]) == (201, OURS)
        path = f"/users/{scene.user_id}"
        assert (await call(client, tokens["holder"], "POST", f"{path}/acquire")).json()
        statuses = [
            (await call(client, tokens[it], "POST", f"{path}/release")).status_code
            for it in ("other", "holder")
        ]
        assert statuses == [409, 200]
        unseen = f"/leases/{uuid.uuid4()}"
        assert [
            (await call(client, tokens[it], "DELETE", unseen)).status_code
            for it in ("other", "other", "holder")
        ] == [204, 204, 404]


async def test_a_place_is_used_and_given_back_by_the_token_that_reserved_it(
    start: Start,
) -> None:
    """Or by an admin of its project."""
    async with start(bootstrap_token=BOOTSTRAP) as client:
        tokens = await tokens_of_callers(client)
        place = {"id": str(uuid.uuid4()), "env": "stage", "domain": "regular"}
        path, body = f"/reservations/{place['id']}", {**place, "limit": 1}
        made = {**ALICE, "project_id": None, "reservation_id": place["id"]}

        async def told(caller: str, method: str, path: str, body: Any = None) -> int:
            answer = await call(client, tokens[caller], method, path, body)
            if answer.status_code == 404:
                assert answer.json()["error"] == "reservation_not_found"
            return answer.status_code

        assert await told("holder", "POST", "/reservations", body) == 201
        for caller in ("other", "stranger"):
            assert await told(caller, "DELETE", path) == 404
            assert await told(caller, "POST", "/users", made) == 404
            assert await told(caller, "POST", "/reservations", body) == 404
        another = {**body, "id": str(uuid.uuid4())}
        assert await told("other", "POST", "/reservations", another) == 409
        assert await told("admin", "DELETE", path) == 204
        assert await told("other", "DELETE", path) == 204
        assert await told("holder", "POST", "/reservations", body) == 201
        assert await told("holder", "POST", "/users", made) == 201
        assert await told("stranger", "POST", "/users", made) == 404


async def test_who_holds_a_user_is_not_told_what_another_project_makes_of_it(
    start: Start,
) -> None:
    """Its lease goes on, and it has what it was granted with."""
    async with start(bootstrap_token=BOOTSTRAP) as client:
        tokens = await tokens_of_callers(client)
        scene = await a_scene(client, tokens)
        path = f"/leases/{scene.lease_id}"
        body = {**wants(scene), "holder": {"run_id": scene.login}}
        moved = {"project_id": THEIRS, "password": "secret of theirs"}
        user = f"/users/{scene.user_id}"
        assert (await call(client, BOOTSTRAP, "PATCH", user, moved)).is_success
        for wait in (0, 0.01):
            asked = {**body, "wait": wait}
            again = await call(client, tokens["holder"], "PUT", path, asked)
            assert (again.status_code, again.json()["error"]) == (403, "forbidden")
            assert "moved to another project" in again.json()["detail"]
            assert "secret" not in again.text.replace("secrets", "")
        renewal = {"leases": [{"id": scene.lease_id, "fence": scene.fence}]}
        renewed = await call(client, tokens["holder"], "POST", "/leases/renew", renewal)
        assert renewed.json()["leases"][0]["state"] == "held"
        ended = await call(client, tokens["holder"], "DELETE", path)
        assert ended.status_code == 204


async def test_a_project_is_all_that_its_tokens_know_of(start: Start) -> None:
    """In wants, counts, refusals and lists, in what waits, and in what they write."""
    async with start(bootstrap_token=BOOTSTRAP) as client:
        tokens = await tokens_of_callers(client)
        ours, theirs = await add_user(client, OURS), await add_user(client, THEIRS)
        pool = {"env": "stage", "domain": "regular"}
        stranger, lease = tokens["stranger"], f"/leases/{uuid.uuid4()}"
        held = await call(client, stranger, "PUT", lease, {"wants": [pool]})
        assert [user["login"] for user in held.json()["users"]] == [theirs["login"]]
        for want, code in (
            ({**pool, "project_id": OURS}, "no_such_pool"),
            ({**pool, "count": 2}, "pool_too_small"),
        ):
            asked = {"wants": [want]}
            path = f"/leases/{uuid.uuid4()}"
            refused = await call(client, stranger, "PUT", path, asked)
            checked = await call(
                client, stranger, "POST", "/pools/check", {"leases": [asked]}
            )
            assert refused.json()["error"] == code
            assert checked.json()["leases"][0]["error"] == refused.json()
            assert refused.json().get("existing", 1) == 1
            assert all(it["users"] == 1 for it in refused.json().get("pools", []))
        for caller in ("holder", "holder", "stranger"):  # the second waits as well
            path = f"/leases/{uuid.uuid4()}"
            waits = await call(client, tokens[caller], "PUT", path, {"wants": [pool]})
        assert waits.json()["place"] == 1
        assert [it["login"] for it in waits.json()["blockers"]] == [theirs["login"]]
        sizes = await call(client, stranger, "GET", "/pools")
        assert sizes.json()["pools"] == [{**pool, "users": 1}]
        listed = await call(client, stranger, "GET", "/users")
        assert [user["login"] for user in listed.json()] == [theirs["login"]]
        foreign = await call(client, stranger, "GET", f"/users?project_id={OURS}")
        assert foreign.json() == []
        seen = await call(client, tokens["reader"], "GET", "/leases?state=all")
        assert [it["state"] for it in seen.json()] == ["waiting", "held"]
        assert {it["wants"][0]["project_id"] for it in seen.json()} == {OURS}
        taken = {**ALICE, "login": ours["login"], "project_id": None}
        imported = await call(
            client, stranger, "POST", "/users/import", {"users": [taken]}
        )
        assert imported.json()["error"] == "duplicate_user"
        assert "none of these users was imported" in imported.json()["detail"]
        assert OURS not in imported.text
        moved = await call(
            client, stranger, "PATCH", f"/users/{theirs['id']}", {"project_id": OURS}
        )
        assert moved.json()["error"] == "forbidden"
        made = await call(
            client, stranger, "POST", "/tokens", {"name": "more", "role": "admin"}
        )
        assert made.json()["project_id"] == THEIRS
        known = await call(client, stranger, "GET", "/tokens")
        assert {token["project_id"] for token in known.json()} == {THEIRS}


async def test_who_lost_a_user_is_told_who_has_it_only_within_the_project(
    start: Start,
) -> None:
    async with start(bootstrap_token=BOOTSTRAP, lock_delay=0) as client:
        tokens = await tokens_of_callers(client)
        scene = await a_scene(client, tokens)
        lease, user = f"/leases/{scene.lease_id}", f"/users/{scene.user_id}"
        renewal = {"leases": [{"id": scene.lease_id, "fence": scene.fence}]}
        want = {**scene.want, "project_id": None}

        async def hold(caller: str) -> str:
            path = f"/leases/{uuid.uuid4()}"
            body = {"wants": [want], "holder": {"test_id": "PLANTED"}}
            held = await call(client, tokens[caller], "PUT", path, body)
            assert held.status_code == 200, held.text
            return path

        async def told() -> list[str]:
            holder = tokens["holder"]
            return [
                (await call(client, holder, *given)).text
                for given in (
                    ("POST", "/leases/renew", renewal),
                    ("PUT", lease, wants(scene)),
                    ("DELETE", lease),
                )
            ]

        broken = {"reason": "moves", "holder_is_dead": True}
        await call(client, BOOTSTRAP, "POST", f"{lease}/break", broken)
        theirs = await hold("other")
        assert ["PLANTED" in text for text in await told()] == [True, True, True]
        await call(client, tokens["other"], "DELETE", theirs)
        await call(client, BOOTSTRAP, "PATCH", user, {"project_id": THEIRS})
        await hold("stranger")
        assert ["PLANTED" in text for text in await told()] == [False, False, False]
        assert all(scene.login in text for text in await told())
        await call(client, BOOTSTRAP, "PATCH", user, {"project_id": OURS})
        path = f"/leases/{uuid.uuid4()}"
        asked = await call(client, tokens["holder"], "PUT", path, wants(scene))
        assert asked.status_code == 202
        assert scene.login in asked.text
        assert not any("PLANTED" in text for text in [asked.text, *await told()])


async def test_a_revoked_token_is_refused_by_every_replica(start: Start) -> None:
    """At once, also where the other replica has just let it in."""
    settings = {"bootstrap_token": BOOTSTRAP}
    async with start(**settings) as client, start(**settings) as replica:
        made = await make(client, "read")
        token = made["token"]
        assert (await call(replica, token, "GET", "/users")).status_code == 200
        [listed] = (await call(client, BOOTSTRAP, "GET", "/tokens")).json()
        assert listed["last_used_at"] is not None
        assert {**listed, "last_used_at": None, "token": token} == made
        for _ in range(2):
            path = f"/tokens/{made['id']}"
            revoked = await call(client, BOOTSTRAP, "DELETE", path)
            assert revoked.status_code == 204
        refused = await call(replica, token, "GET", "/users")
        assert (refused.status_code, refused.json()["error"]) == (401, "token_revoked")
        missing = await call(client, BOOTSTRAP, "DELETE", f"/tokens/{uuid.uuid4()}")
        assert missing.json()["error"] == "token_not_found"


async def test_a_server_is_open_until_its_first_token_and_never_again(
    start: Start,
) -> None:
    """A mistyped token is told so before that, and an ended one for how it ended."""

    async def told(token: str) -> tuple[int, str | None]:
        answer = await call(client, token, "GET", "/users")
        body = answer.json()
        return answer.status_code, body["error"] if answer.is_error else None

    async with start(insecure_no_auth=True) as client, start() as replica:
        assert await told("whatever") == (200, None)
        made = await call(
            replica, "", "POST", "/tokens", {"name": "admin", "role": "admin"}
        )
        token, token_id = made.json()["token"], made.json()["id"]
        assert await told("whatever") == (401, "unauthorized")
        assert await told(token) == (200, None)
        swapped = token[:-8] + token[-7] + token[-8] + token[-6:]
        for wrong in {token[:-1], swapped} - {token}:
            assert await told(wrong) == (401, "token_mistyped")
        assert await told(new_token("admin")) == (401, "unauthorized")
        body = {"name": "short", "role": "read", "expires_in": 1}
        short = (await call(client, token, "POST", "/tokens", body)).json()
        while (answer := await told(short["token"])) == (200, None):
            await anyio.sleep(0.1)
        assert answer == (401, "token_expired")
        assert (
            await call(client, token, "DELETE", f"/tokens/{token_id}")
        ).status_code == 204
        assert await told(token) == (401, "token_revoked")
        assert await told("whatever") == (401, "unauthorized")
