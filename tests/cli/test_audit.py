"""`botfarm audit` against a real server."""

from __future__ import annotations

import uuid

import pytest
from support.servers import TOKEN

from .conftest import Botfarm, Farm, Serve

FORWARDED = {"X-Forwarded-For": "203.0.113.7"}


def change_domain(farm: Farm, user_id: str) -> None:
    path, body = f"/api/v1/users/{user_id}", {"domain": "canary"}
    changed = farm.http.patch(path, json=body, headers=FORWARDED)
    assert changed.status_code == 200, changed.text


def test_it_tells_who_changed_what_from_where(
    farm: Farm, botfarm: Botfarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    login = f"user-{uuid.uuid4()}"
    user_id = farm.add_user(login)
    change_domain(farm, user_id)
    for call, body in (
        ("quarantine", {"reason": "locked out"}),
        ("restore", {"reason": "fixed", "author": "eve"}),
    ):
        path = f"/api/v1/users/{user_id}/{call}"
        assert farm.http.post(path, json=body).status_code == 200
    ran = botfarm("audit", "--subject", login)
    lines = ran.out.splitlines()
    assert lines[0].split() == ["AT", "WHO", "FROM", "ACTION", "SUBJECT", "CHANGE"]
    for told in ("bootstrap token", "127.0.0.1", "user.restore", '"locked out" → null'):
        assert told in lines[1]
    assert lines[2].split() == ["restored_by:", '"eve"']
    assert lines[3].split() == ["reason:", "fixed"]
    for told in ("user.quarantine", login, 'null → "locked out"'):
        assert told in lines[4]
    for told in ("user.update", login, 'domain: "regular" → "canary"'):
        assert told in lines[5]
    assert "user.create" in lines[6]
    assert FORWARDED["X-Forwarded-For"] not in ran.out
    narrowed = ("--kind", "user", "--action", "user.create", "--who", "bootstrap_token")
    since = ("--since", "2020-01-31", "--until", "2999-01-31T12:00")
    found = botfarm("audit", "--subject", user_id, *narrowed, *since, "--json").json
    assert [event["after"]["login"] for event in found] == [login]
    assert "No events" in botfarm("audit", "--since", "2999-01-31").err
    assert "newest 1" in botfarm("audit", "--limit", "1").err
    assert botfarm("audit", "--action", "user.fly").exit_code == 2


def test_a_proxy_that_is_trusted_says_from_where(serve: Serve) -> None:
    farm = serve(BOTFARM_TRUSTED_PROXIES="127.0.0.1", BOTFARM_BOOTSTRAP_TOKEN=TOKEN)
    change_domain(farm, farm.add_user("alice"))
    told = farm.http.get("/api/v1/audit").json()
    addresses = [event["by"]["address"] for event in told]
    assert addresses == [FORWARDED["X-Forwarded-For"], "127.0.0.1"]
