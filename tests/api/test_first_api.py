"""The first API, exactly as its users know it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from .conftest import ALICE, Start

pytestmark = pytest.mark.anyio

USERS = "/api/v1/users/"


async def create(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post(USERS, json={**ALICE, **changes})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


@pytest.mark.parametrize("path", ["/api/v1/users/", "/api/v1/users"])
async def test_a_user_is_created_and_listed(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path, json=ALICE)
    assert answer.status_code == 201
    user = answer.json()
    assert str(uuid.UUID(user["id"])) == user["id"]
    assert user["locktime"] is None
    assert {name: user[name] for name in ("login", "project_id", "env", "domain")} == {
        name: ALICE[name] for name in ("login", "project_id", "env", "domain")
    }
    assert (await client.get(path)).json() == [user]


async def test_no_answer_has_a_password_or_its_hash(client: httpx.AsyncClient) -> None:
    created = await client.post(USERS, json=ALICE)
    user_id = created.json()["id"]
    answers = [
        created,
        await client.get(USERS),
        await client.get(f"{USERS}{user_id}"),
        await client.post(f"{USERS}{user_id}/acquire"),
        await client.get("/api/v1/leases/"),
        await client.post(f"{USERS}{user_id}/release"),
    ]
    for answer in answers:
        assert "password" not in answer.text
        assert ALICE["password"] not in answer.text
        assert "$2b$" not in answer.text


async def test_the_same_login_in_the_same_env_is_a_duplicate(
    client: httpx.AsyncClient,
) -> None:
    await create(client)
    answer = await client.post(USERS, json={**ALICE, "domain": "canary"})
    assert answer.status_code == 400
    assert answer.json()["error"] == "duplicate_user"
    await create(client, env="prod")


async def test_acquire_locks_and_release_unlocks(client: httpx.AsyncClient) -> None:
    user = await create(client)
    acquired = await client.post(f"{USERS}{user['id']}/acquire")
    assert acquired.status_code == 200
    assert acquired.json()["message"]
    locked = (await client.get(f"{USERS}{user['id']}")).json()
    assert locked["locktime"] == acquired.json()["locktime"]
    assert locked["state"] == "held"
    again = await client.post(f"{USERS}{user['id']}/acquire")
    assert again.status_code == 409
    assert again.json()["error"] == "user_locked"
    released = await client.post(f"{USERS}{user['id']}/release")
    assert (released.status_code, released.json()["message"]) == (200, "User released")
    unlocked = (await client.get(f"{USERS}{user['id']}")).json()
    assert (unlocked["locktime"], unlocked["state"]) == (None, "free")
    assert (await client.post(f"{USERS}{user['id']}/release")).status_code == 200


async def test_an_acquired_user_has_no_ttl_unless_one_is_named(
    client: httpx.AsyncClient,
) -> None:
    user = await create(client)
    answer = await client.post(f"{USERS}{user['id']}/acquire")
    assert answer.json()["expires_in"] is None
    await client.post(f"{USERS}{user['id']}/release")
    answer = await client.post(f"{USERS}{user['id']}/acquire", json={"ttl": 30})
    assert answer.json()["expires_in"] == 30.0


@pytest.mark.parametrize("call", ["acquire", "release"])
async def test_an_unknown_user_is_404(client: httpx.AsyncClient, call: str) -> None:
    answer = await client.post(f"{USERS}{uuid.uuid4()}/{call}")
    assert answer.status_code == 404
    assert answer.json()["error"] == "user_not_found"


async def test_release_does_not_take_a_user_from_a_test(
    client: httpx.AsyncClient,
) -> None:
    user = await create(client)
    lease = await client.put(
        f"/api/v1/leases/{uuid.uuid4()}",
        json={"wants": [{"env": "stage", "domain": "regular"}]},
    )
    assert lease.status_code == 200
    answer = await client.post(f"{USERS}{user['id']}/release")
    assert answer.status_code == 409


@pytest.mark.parametrize("field", ["env", "domain"])
async def test_an_unknown_env_or_domain_names_the_allowed_ones(
    client: httpx.AsyncClient, field: str
) -> None:
    answer = await client.post(USERS, json={**ALICE, field: "moon"})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["field"] == field
    allowed = {"env": "prod, preprod, stage", "domain": "canary, regular"}
    assert allowed[field] in error["message"]


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        ("", "must not be empty"),
        ("é" * 37, "must be at most 72 bytes in UTF-8"),
        ("nul\x00nul", "must not contain the NUL character"),
    ],
)
async def test_a_password_that_cannot_be_kept_is_refused_in_words(
    client: httpx.AsyncClient, password: str, sentence: str
) -> None:
    answer = await client.post(USERS, json={**ALICE, "password": password})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"field": "password", "message": sentence}]


@pytest.mark.parametrize(
    "body",
    [
        {"login": "x", "password": "PLANTED-SECRET"},
        {**ALICE, "password": "PLANTED-SECRET", "surprise": "PLANTED-SECRET"},
        {**ALICE, "password": ["PLANTED-SECRET"]},
        {**ALICE, "password": "PLANTED-SECRET" * 10},
        {**ALICE, "login": "nul\x00", "password": "PLANTED-SECRET"},
        {**ALICE, "labels": {"a": 1}, "password": "PLANTED-SECRET"},
    ],
)
async def test_a_refused_body_is_never_repeated(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await client.post(USERS, json=body)
    assert answer.status_code == 422
    assert "PLANTED-SECRET" not in answer.text


@pytest.mark.parametrize("secret", ["\\ud800", "\\u0000", "", "x" * 10_001])
async def test_a_secret_that_cannot_be_kept_is_refused(
    client: httpx.AsyncClient, secret: str
) -> None:
    body = json.dumps({**ALICE, "secrets": {"totp": "SEED"}}).replace("SEED", secret)
    answer = await client.post(
        USERS, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "secrets.totp"


async def test_unknown_fields_are_refused_by_name(client: httpx.AsyncClient) -> None:
    answer = await client.post(USERS, json={**ALICE, "pasword": "x"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "pasword"


async def test_users_are_narrowed_and_paged(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await create(client, login=f"user-{number}", labels={"n": str(number)})
    await create(client, login="elsewhere", env="prod")
    answer = await client.get(USERS, params={"label": "n=1"})
    assert [user["login"] for user in answer.json()] == ["user-1"]
    logins: list[str] = []
    params: dict[str, Any] = {"env": "stage", "limit": 2}
    for _ in range(3):
        page = await client.get(USERS, params=params)
        logins += [user["login"] for user in page.json()]
        if "Botfarm-Next-Cursor" not in page.headers:
            break
        params["cursor"] = page.headers["Botfarm-Next-Cursor"]
    assert logins == ["user-0", "user-1", "user-2"]


async def test_a_user_is_changed_and_removed(client: httpx.AsyncClient) -> None:
    user = await create(client)
    path = f"{USERS}{user['id']}"
    changed = await client.patch(path, json={"labels": {"role": "admin"}})
    assert changed.json()["labels"] == {"role": "admin"}
    assert (await client.patch(path, json={"domain": None})).status_code == 422
    await client.post(f"{path}/acquire")
    assert (await client.delete(path)).status_code == 409
    await client.post(f"{path}/release")
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(path)).status_code == 404


async def test_a_changed_password_is_what_the_next_holder_gets(
    client: httpx.AsyncClient,
) -> None:
    user = await create(client)
    await client.patch(f"{USERS}{user['id']}", json={"password": "new one"})
    lease = await client.put(
        f"/api/v1/leases/{uuid.uuid4()}",
        json={"wants": [{"env": "stage", "domain": "regular"}]},
    )
    assert lease.json()["users"][0]["password"] == "new one"


async def test_a_quarantined_user_is_out_of_rotation_until_restored(
    client: httpx.AsyncClient,
) -> None:
    user = await create(client)
    path = f"{USERS}{user['id']}"
    answer = await client.post(f"{path}/quarantine", json={"reason": "locked out"})
    assert answer.json()["state"] == "quarantined"
    assert answer.json()["quarantine_reason"] == "locked out"
    assert (await client.post(f"{path}/acquire")).status_code == 409
    assert (await client.post(f"{path}/restore")).json()["state"] == "free"
    assert (await client.post(f"{path}/acquire")).status_code == 200


async def test_an_import_is_repeatable(client: httpx.AsyncClient) -> None:
    rows: list[dict[str, Any]] = [
        {**ALICE, "login": f"user-{number}"} for number in range(3)
    ]
    first = await client.post(f"{USERS}import", json={"users": rows})
    assert first.json() == {"created": 3, "updated": 0, "unchanged": 0}
    rows[0] = {**rows[0], "password": "changed"}
    rows[1] = {**rows[1], "labels": {"role": "admin"}}
    dry = await client.post(f"{USERS}import", json={"users": rows, "dry_run": True})
    assert dry.json() == {"created": 0, "updated": 2, "unchanged": 1}
    second = await client.post(f"{USERS}import", json={"users": rows})
    assert second.json() == {"created": 0, "updated": 2, "unchanged": 1}
    third = await client.post(f"{USERS}import", json={"users": rows})
    assert third.json() == {"created": 0, "updated": 0, "unchanged": 3}


async def test_a_dry_run_tells_of_ten_wrong_passwords_a_minute_and_leaves_a_line(
    start: Start,
) -> None:
    """By the hash alone it would else be guessed, without an event of the audit log."""
    async with start(secret_keys="") as client:
        await create(client)
        await create(client, login="bob")

        async def tried(login: str, password: str) -> tuple[int, Any]:
            row = {**ALICE, "login": login, "password": password}
            body = {"users": [row], "dry_run": True}
            answer = await client.post(f"{USERS}import", json=body)
            told = answer.json()
            return answer.status_code, told.get("error", told.get("unchanged"))

        right = ALICE["password"]
        with capture_logs() as log:
            assert [await tried("alice", right) for _ in range(11)] == [(200, 1)] * 11
            wrong = [await tried("alice", f"guess {number}") for number in range(10)]
            assert wrong == [(200, 0)] * 10
            for password in ("another guess", right):
                assert await tried("alice", password) == (429, "too_many_attempts")
            assert await tried("bob", right) == (200, 1)
        lines = [it for it in log if it["event"] == "import tried"]
        assert [it["updated"] for it in lines] == [*[0] * 11, *[1] * 10, 0]
        who = {(it["caller"], it["name"], it["address"]) for it in lines}
        assert who == {("no_token", None, "127.0.0.1")}
        again = await client.post(f"{USERS}import", json={"users": [ALICE]})
        assert again.json() == {"created": 0, "updated": 0, "unchanged": 1}


async def test_an_import_names_each_bad_row_and_writes_none(
    client: httpx.AsyncClient,
) -> None:
    rows = [ALICE, {**ALICE, "login": "bob", "env": "moon"}, ALICE]
    answer = await client.post(f"{USERS}import", json={"users": rows})
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [
        "users[1].env",
        "users[2].login",
    ]
    assert (await client.get(USERS)).json() == []


async def test_health_is_what_it_always_was(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "healthy"})
