"""Who changed what: the audit log, and the attempts that the server's log has."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import text
from support.leaks import Searcher

from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.engine import Database

from .conftest import Start
from .test_roles import BOOTSTRAP, OURS, THEIRS, call, make

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
SECRETS = {
    "password": "Pa55wörd & <planted> 1",
    "new password": 'Another "planted" pässword',
    "totp": "PLANTEDSEEDABCDEFGHIJ",
    "state": '{"cookie": "planted=sëssion"}',
}
ALICE: Json = {
    "login": "alice",
    "password": SECRETS["password"],
    "project_id": OURS,
    "env": "stage",
    "domain": "regular",
    "labels": {"role": "admin"},
    "secrets": {"totp": SECRETS["totp"]},
}
TOLD = {key: ALICE[key] for key in ("login", "env", "domain", "project_id", "labels")}
WANTS = [{"env": "stage", "domain": "canary", "project_id": OURS}]
NOT_ASIDE = {"quarantine_reason": None, "quarantined_by": None}


@dataclass
class Log:
    """A server, and what its audit log has that was not looked at yet."""

    client: httpx.AsyncClient
    admin: Json
    suite: Json
    _seen: int = 0

    async def call(
        self, method: str, path: str, body: Any = None, *, by: str = "admin"
    ) -> Json:
        """What a call answers that is to succeed."""
        token = self.admin if by == "admin" else self.suite
        answer = await call(self.client, token["token"], method, path, body)
        assert answer.is_success, (method, path, answer.text)
        told: Json = answer.json() if answer.content else {}
        return told

    async def events(self, query: str = "") -> list[Json]:
        answer = await call(self.client, BOOTSTRAP, "GET", f"/audit?{query}")
        assert answer.status_code == 200, answer.text
        listed: list[Json] = answer.json()
        return listed

    async def new(self) -> list[Json]:
        """The events since the last look, the oldest first, as tests compare them."""
        new = [it for it in reversed(await self.events()) if it["id"] > self._seen]
        self._seen = max([self._seen, *(it["id"] for it in new)])
        return new

    async def told(self) -> list[Json]:
        """The same, each without what is alike in all that the admin does."""
        told = []
        for event in await self.new():
            by = event["by"]
            assert (by["kind"], by["token_id"], by["name"], by["role"]) == (
                ("token", self.admin["id"], self.admin["name"], "admin")
            )
            assert by["address"] == "127.0.0.1"
            assert event["subject"]["project_id"] == OURS
            told.append(
                {
                    "action": event["action"],
                    "subject": (event["subject"]["id"], event["subject"]["name"]),
                    "before": event["before"],
                    "after": event["after"],
                    "reason": event["reason"],
                }
            )
        return told

    async def hold(self, holder: Json | None = None, **more: Any) -> Json:
        """A lease that the suite takes of the user in the pool."""
        lease_id = uuid.uuid4()
        body = {"wants": WANTS, "holder": holder or {}, **more}
        return await self.call("PUT", f"/leases/{lease_id}", body, by="suite")


@pytest.fixture
async def log(start: Start) -> AsyncIterator[Log]:
    async with logged(start) as running:
        yield running


@asynccontextmanager
async def logged(start: Start) -> AsyncIterator[Log]:
    async with start(bootstrap_token=BOOTSTRAP) as client:
        admin = await make(client, "admin", name="ops")
        suite = await make(client, "lease", name="suite")
        log = Log(client, admin, suite)
        made = await log.new()
        assert [(it["action"], it["by"]["kind"]) for it in made] == (
            [("token.create", "bootstrap_token")] * 2
        )
        yield log


def event(action: str, subject: tuple[str, str | None], **others: Any) -> Json:
    told = {"before": None, "after": None, "reason": None}
    return {"action": action, "subject": subject, **told, **others}


async def leaks_of(log: Log, database_url: str) -> dict[str, str]:
    """Where a planted secret stands, in the answer or in the table."""
    database = Database(parsed_url(database_url), pool_size=2)
    async with database.read() as connection:
        rows = (await connection.execute(text("SELECT * FROM audit_events"))).all()
    await database.dispose()
    answer = await call(log.client, BOOTSTRAP, "GET", "/audit")
    planted = {**SECRETS, "token": log.admin["token"], "suite": log.suite["token"]}
    searcher = Searcher({name: it.removeprefix("bf_") for name, it in planted.items()})
    return searcher.leaks(f"{answer.text} {rows!s}")


async def test_each_change_of_a_user_leaves_the_event_that_tells_of_it(
    log: Log, database_url: str
) -> None:
    """And no other, nor a secret; what changes nothing leaves none."""
    alice = (await log.call("POST", "/users", ALICE))["id"]
    subject = (alice, "alice")
    assert await log.told() == [event("user.create", subject, after=TOLD)]

    await log.call("PATCH", f"/users/{alice}", {"labels": {"role": "admin"}})
    await log.call("POST", f"/users/{alice}/restore")
    assert await log.told() == []
    changes = {"domain": "canary", "password": SECRETS["new password"]}
    await log.call("PATCH", f"/users/{alice}", changes)
    after = {"domain": "canary", "password": "changed"}
    told = event("user.update", subject, before={"domain": "regular"}, after=after)
    assert await log.told() == [told]

    rows = {"users": [{**ALICE, "domain": "canary"}, {**ALICE, "login": "bob"}]}
    await log.call("POST", "/users/import", {**rows, "dry_run": True})
    assert await log.told() == []
    await log.call("POST", "/users/import", rows)
    [made, changed] = await log.told()
    bob = made["subject"][0]
    assert made == event("user.import", (bob, "bob"), after={**TOLD, "login": "bob"})
    after = {"password": "changed", "secrets": "changed"}
    assert changed == event("user.import", subject, before={}, after=after)
    await log.call("POST", "/users/import", rows)
    assert await log.told() == []

    await log.call("POST", f"/users/{alice}/quarantine", {"reason": "a", "author": "b"})
    await log.call("POST", f"/users/{alice}/restore", {"reason": "c", "author": "d"})
    aside = {"quarantine_reason": "a", "quarantined_by": "b"}
    back = {**NOT_ASIDE, "restored_by": "d"}
    assert await log.told() == [
        event("user.quarantine", subject, before=NOT_ASIDE, after=aside),
        event("user.restore", subject, before=aside, after=back, reason="c"),
    ]

    held = await log.hold()
    fence, path = held["fence"], f"/leases/{held['id']}/users/{alice}/state"
    kept = {"fence": fence, "state": SECRETS["state"]}
    await log.call("PUT", path, kept, by="suite")
    assert await log.told() == []
    await log.call("PUT", path, kept)
    await log.call("DELETE", path, {"fence": fence})
    assert await log.told() == [
        event("user.save_state", subject, after={"state": "changed"}),
        event("user.drop_state", subject, after={"state": "changed"}),
    ]
    refused = await call(
        log.client, log.admin["token"], "DELETE", f"/users/{alice}", None
    )
    assert refused.status_code == 409
    assert await log.told() == []
    await log.call("DELETE", f"/leases/{held['id']}", by="suite")
    await log.call("DELETE", f"/users/{alice}")
    gone = {**TOLD, "domain": "canary"}
    assert await log.told() == [event("user.delete", subject, before=gone)]
    assert await leaks_of(log, database_url) == {}


async def test_what_is_done_to_leases_of_others_is_there_and_to_one_s_own_is_not(
    log: Log,
) -> None:
    user = {**ALICE, "domain": "canary"}
    alice = (await log.call("POST", "/users", user))["id"]
    await log.told()
    holder = {"run_id": "run-1", "test_id": "test_pay"}
    before = {"state": "held", "holder": holder}

    held = await log.hold(holder)
    fence = {"id": held["id"], "fence": held["fence"]}
    await log.call("POST", "/leases/renew", {"leases": [fence]}, by="suite")
    await log.call("DELETE", f"/leases/{held['id']}", by="suite")
    await log.hold({"run_id": "run-0"})
    await log.call("POST", "/leases/release", {"run_id": "run-0"}, by="suite")
    await log.call("POST", f"/users/{alice}/acquire", by="suite")
    await log.call("POST", f"/users/{alice}/release", by="suite")
    assert await log.told() == []

    held = await log.hold(holder)
    subject = (held["id"], "alice")
    fences = [{"id": held["id"], "fence": number} for number in (held["fence"], 1)]
    await log.call("POST", "/leases/renew", {"leases": fences})
    told = event("lease.renew", subject, before={"holder": holder})
    assert await log.told() == [{**told, "after": {"renewed_for": 60}}]
    await log.call("DELETE", f"/leases/{held['id']}")
    await log.call("DELETE", f"/leases/{held['id']}")  # again, which changes nothing
    released = {"state": "released"}
    told = event("lease.release", subject, before=before, after=released)
    assert await log.told() == [told]
    held = await log.hold(holder)
    await log.call("POST", "/leases/release", {"run_id": "run-1"})
    told = {**told, "subject": (held["id"], "alice"), "reason": "its holder ended"}
    assert await log.told() == [told]
    await log.call("POST", f"/users/{alice}/acquire", by="suite")
    await log.call("POST", f"/users/{alice}/release")
    [told] = await log.told()
    assert (told["action"], told["after"]) == ("lease.release", released)

    before["holder"] = holder = {**holder, "run_id": "run-2"}
    held = await log.hold(holder)
    body = {"fence": held["fence"], "seconds": 60, "outcome": "failed"}
    for _ in range(2):
        await log.call("POST", f"/leases/{held['id']}/keep", body)
    await log.call("POST", f"/leases/{held['id']}/break", {"reason": "stuck"})
    subject = (held["id"], "alice")
    broken = {"state": "revoked", "holder_is_dead": False}
    assert await log.told() == [
        event("lease.keep", subject, before={"holder": holder}, after={"kept_for": 60}),
        event("lease.break", subject, before=before, after=broken, reason="stuck"),
    ]


async def test_a_holder_that_puts_its_user_aside_and_a_suite_that_makes_one_are_named(
    log: Log,
) -> None:
    alice = await log.call("POST", "/users", {**ALICE, "domain": "canary"})
    place = {"env": "stage", "domain": "regular", "project_id": OURS, "limit": 9}
    place = await log.call("POST", "/reservations", place, by="suite")
    await log.hold()
    await log.new()
    made = {**ALICE, "login": "made", "reservation_id": place["id"]}
    for _ in range(2):
        await log.call("POST", "/users", made, by="suite")
    path = f"/users/{alice['id']}/quarantine"
    for reason in ("locked out", "locked out again"):
        aside = await log.call("POST", path, {"reason": reason}, by="suite")
        assert aside["quarantine_reason"] == "locked out"
    events = await log.new()
    assert [it["action"] for it in events] == ["user.create", "user.quarantine"]
    assert {it["by"]["name"] for it in events} == {"suite"}
    assert {it["by"]["role"] for it in events} == {"lease"}


async def test_tokens_are_there_from_making_to_the_first_revocation(log: Log) -> None:
    made = await make(log.client, "read", name="dashboard", project_id=OURS)
    for _ in range(2):
        await log.call("DELETE", f"/tokens/{made['id']}")
    [created, revoked] = await log.new()
    assert created["subject"] == revoked["subject"]
    assert created["subject"] == {
        "kind": "token",
        "id": made["id"],
        "name": "dashboard",
        "project_id": OURS,
    }
    facts = {"name": "dashboard", "role": "read", "project_id": OURS}
    assert created["after"] == {**facts, "expires_at": None}
    assert (revoked["action"], revoked["by"]["name"]) == ("token.revoke", "ops")
    assert (revoked["before"], revoked["after"]["revoked_at"][:4]) == (
        {"revoked_at": None},
        revoked["at"][:4],
    )


async def test_a_project_s_admin_reads_of_its_project_alone(log: Log) -> None:
    ours = await make(log.client, "admin", name="ours", project_id=OURS)
    alice = await log.call("POST", "/users", ALICE)
    await log.call("POST", "/users", {**ALICE, "login": "free", "project_id": None})
    await log.call("POST", "/users", {**ALICE, "login": "bob", "project_id": THEIRS})
    await log.call("PATCH", f"/users/{alice['id']}", {"project_id": THEIRS})
    answer = await call(log.client, ours["token"], "GET", "/audit")
    assert [(it["action"], it["subject"]["name"]) for it in answer.json()] == [
        ("user.update", "alice"),
        ("user.create", "alice"),
        ("token.create", "ours"),
    ]


async def test_the_log_is_narrowed_and_paged(log: Log) -> None:
    users = [{**ALICE, "login": f"user-{number}"} for number in range(3)]
    made = [await log.call("POST", "/users", user) for user in users]
    await log.call("DELETE", f"/users/{made[0]['id']}")
    every = await log.events()
    assert [it["id"] for it in every] == sorted(
        (it["id"] for it in every), reverse=True
    )
    deleted, created, bootstrapped = every[0], every[1:4], every[4:]
    for query, expected in {
        "subject_kind=token": bootstrapped,
        "subject=user-0": [deleted, created[2]],
        f"subject_id={made[1]['id']}": [created[1]],
        "action=user.delete": [deleted],
        "who=ops": [deleted, *created],
        f"token_id={log.admin['id']}&action=user.create": created,
        "who=bootstrap_token": bootstrapped,
        f"since={deleted['at']}": [deleted],
        f"until={deleted['at']}": [*created, *bootstrapped],
    }.items():
        assert await log.events(query.replace("+", "%2B")) == expected, query
    paged: list[Json] = []
    cursor = ""
    while True:
        path = f"/audit?limit=4{cursor}"
        page = await call(log.client, BOOTSTRAP, "GET", path)
        paged += page.json()
        if "Botfarm-Next-Cursor" not in page.headers:
            break
        cursor = f"&cursor={page.headers['Botfarm-Next-Cursor']}"
    assert paged == every
    for wrong in (
        *("action=user.fly", "since=yesterday", "since=2030-01-31T00:00:00"),
        *("until=0.5", "since=1767225600"),
    ):
        refused = await call(log.client, BOOTSTRAP, "GET", f"/audit?{wrong}")
        assert refused.status_code == 422, wrong


async def test_whoever_needs_no_token_is_named_so(start: Start) -> None:
    async with start() as client:
        await call(client, "", "POST", "/users", ALICE)
        [told] = (await call(client, "", "GET", "/audit")).json()
    assert told["by"] == {
        "kind": "no_token",
        "token_id": None,
        "name": None,
        "role": "admin",
        "address": "127.0.0.1",
    }


async def test_attempts_in_vain_are_logged_and_leave_no_event(log: Log) -> None:
    suite, wrong = log.suite["token"], log.admin["token"][:-1] + "-"
    alice = (await log.call("POST", "/users", ALICE))["id"]
    await log.new()
    with structlog.testing.capture_logs() as logged:
        await call(log.client, suite, "POST", f"/users/{uuid.uuid4()}/restore")
        await call(log.client, wrong, "GET", "/users")
        path, body = f"/users/{alice}/verify-password", {"password": "guess"}
        assert await log.call("POST", path, body) == {"matches": False}
    told = {"log_level": "warning", "address": "127.0.0.1"}
    path = logged[0]["path"]
    assert logged == [
        {
            **told,
            "event": "call refused",
            "code": "forbidden",
            "method": "POST",
            "path": path,
            "caller": "token",
            "name": "suite",
        },
        {**told, "event": "token refused", "why": "token_mistyped"},
        {
            **told,
            "event": "password does not match",
            "user_id": alice,
            "caller": "token",
            "name": "ops",
        },
    ]
    assert await log.new() == []
