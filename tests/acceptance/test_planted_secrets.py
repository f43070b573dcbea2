"""What a server is told in confidence is found nowhere but in the holder's answer."""

from __future__ import annotations

import asyncio
import io
import json
import re
import secrets
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
from support.endpoints import endpoints
from support.leaks import Searcher
from support.servers import SECRET_KEY, ServerProcess

from botfarm_server.app import create_app
from botfarm_server.settings import fixed_settings
from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.dialects import listening_dsn
from botfarm_server.store.tables import metadata

ECHOING = """
import logging
import resource
from botfarm_server import app
from botfarm_server.cli.main import run
from botfarm_server.store import users

set_up_logging, add = app.set_up_logging, users.add

def set_up_with_echo(settings):
    set_up_logging(settings)
    for name in ("sqlalchemy.engine", "sqlalchemy.pool", "aiosqlite", "uvicorn.access"):
        logging.getLogger(name).setLevel("DEBUG")

async def add_or_fail(connection, new, now):
    if new[0].login == "crash":
        raise RuntimeError("it failed in the middle")
    await add(connection, new, now)

app.set_up_logging, users.add = set_up_with_echo, add_or_fail
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
run()
"""
"""`botfarm serve` with every word of SQL in its log, and a user that it fails on, where
a crash leaves all memory behind."""
POOL = {"env": "stage", "domain": "regular"}
KINDS = (
    *("bootstrap token", "password", "secret", "imported password", "imported secret"),
    *("changed password", "state", "password in a crash", "password in a mistake"),
    *("guessed password", "wrong token"),
)


class Confidence:
    """Calls a server, and keeps what it answers to others than the holder."""

    def __init__(self, url: str, planted: dict[str, str]) -> None:
        self.planted = planted
        self.told: list[str] = []
        self.called: set[str] = set()
        self.http = httpx.Client(base_url=url, timeout=30.0)

    def call(
        self,
        method: str,
        path: str,
        status: int,
        body: Any = None,
        *,
        token: str = "",
        in_confidence: bool = False,
    ) -> httpx.Response:
        token = token or self.planted["bootstrap token"]
        path = path if path.startswith("/") else f"/api/v1/{path}"
        self.called.add(f"{method} {path.partition('?')[0]}")
        sent = {"content": body} if isinstance(body, str) else {"json": body}
        answer = self.http.request(
            method,
            path,
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
            },
            **sent,
        )
        assert answer.status_code == status, answer.text
        if in_confidence:
            assert answer.headers["Cache-Control"] == "no-store"
        else:
            self.told.append(f"{answer.headers}\n{answer.text}")
        return answer

    def user(self, login: str, password: str, **more: Any) -> dict[str, Any]:
        return {"login": login, "password": self.planted[password], **POOL, **more}


def use(farm: Confidence) -> list[str]:
    """Tell the server each secret in each way. Returns what it told in confidence."""
    planted = farm.planted
    new = {"name": "suite", "role": "lease"}
    made = farm.call("POST", "tokens", 201, new, in_confidence=True).json()["token"]
    planted["token"] = made.rpartition("_")[2]
    alice = farm.user("alice", "password", secrets={"pin": planted["secret"]})
    user = farm.call("POST", "users", 201, alice).json()["id"]
    farm.call("POST", "users", 400, alice)
    bob = farm.user(
        "bob", "imported password", secrets={"pin": planted["imported secret"]}
    )
    for _ in range(2):
        farm.call("POST", "users/import", 200, {"users": [bob]})
    change = {"password": planted["changed password"]}
    farm.call("PATCH", f"users/{user}", 200, change)
    told = hold_and_leave(farm, made, user)
    look_after(farm, user)
    farm.call("POST", "users", 500, farm.user("crash", "password in a crash"))
    make_mistakes(farm, user)
    return told


def hold_and_leave(farm: Confidence, token: str, user: str) -> list[str]:
    lease, later = (f"leases/{uuid.uuid4()}" for _ in range(2))
    wants = {"wants": [{**POOL, "count": 2}], "holder": {"run_id": "run"}}
    mine: dict[str, Any] = {"token": token, "in_confidence": True}
    held = farm.call("PUT", lease, 200, wants, **mine)
    fence = {"fence": held.json()["fence"]}
    state = f"{lease}/users/{user}/state"
    kept = {**fence, "state": farm.planted["state"]}
    farm.call("PUT", state, 204, kept, token=token)
    farm.call("GET", state, 403)  # the admin, who is not told
    left = farm.call("GET", state, 200, **mine)
    for password, matches in (("changed password", True), ("guessed password", False)):
        asked = {"password": farm.planted[password]}
        path = f"users/{user}/verify-password"
        answer = farm.call("POST", path, 200, asked, token=token)
        assert answer.json() == {"matches": matches}
    farm.call("PUT", later, 202, wants)
    farm.call("GET", lease, 200)
    farm.call("POST", "leases/renew", 200, {"leases": [{"id": lease[7:], **fence}]})
    farm.call("DELETE", lease, 204, {**fence, "outcome": "failed"}, token=token)
    again = farm.call("PUT", later, 200, wants, in_confidence=True)
    fence = {"fence": again.json()["fence"]}
    [bob] = [it["id"] for it in again.json()["users"] if it["login"] == "bob"]
    farm.call("DELETE", f"{later}/users/{bob}/state", 204, fence)
    kept = {**fence, "seconds": 60, "outcome": "failed"}
    farm.call("POST", f"{later}/keep", 200, kept)
    farm.call("POST", f"{later}/break", 200, {"reason": "enough"})
    farm.call("POST", "leases/release", 200, {"run_id": "run"})
    return [held.text, left.text, again.text]


def look_after(farm: Confidence, user: str) -> None:
    """All that is done with users and tokens besides."""
    farm.call("POST", f"users/{user}/quarantine", 200, {"reason": "locked out"})
    for path in ("restore", "acquire", "release"):
        farm.call("POST", f"users/{user}/{path}", 200)
    for path in ("", "/leases"):
        farm.call("GET", f"users/{user}{path}", 200)
    farm.call("POST", "pools/check", 200, {"leases": [{"wants": [POOL]}]})
    place = farm.call("POST", "reservations", 201, {**POOL, "limit": 9}).json()["id"]
    farm.call("DELETE", f"reservations/{place}", 204)
    carol = farm.call("POST", "users", 201, farm.user("carol", "password")).json()["id"]
    farm.call("DELETE", f"users/{carol}", 204)
    old = {"name": "old", "role": "read"}
    token = farm.call("POST", "tokens", 201, old, in_confidence=True).json()["id"]
    farm.call("DELETE", f"tokens/{token}", 204)


def make_mistakes(farm: Confidence, user: str) -> None:
    mistaken = farm.user("x", "password in a mistake")
    password = mistaken["password"]
    for body in (
        {**mistaken, "pasword": password},
        {"password": password},
        {**mistaken, "password": password * 9},
        {**mistaken, "secrets": {"pin": f"{password}\0"}},
        {**mistaken, "env": "nowhere"},
        {"users": [mistaken]},
        [password],
    ):
        farm.call("POST", "users", 422, body)
        farm.call("POST", "users/import", 422, {"users": [body]})
    farm.call("POST", "users", 422, json.dumps(mistaken, ensure_ascii=False)[:-1])
    farm.call("PATCH", f"users/{user}", 422, {"password": [password]})
    farm.call("POST", f"users/{uuid.uuid4()}/verify-password", 404, {"password": "x"})
    for token in ("wrong token", "bf_admin_"):
        farm.call("GET", "users", 401, token=farm.planted.get(token, token))


def everything_to_read(farm: Confidence) -> None:
    """What any path tells that needs no id, and then that each endpoint was called."""
    app = create_app(fixed_settings({"database_url": "sqlite:///never-opened.sqlite3"}))
    for endpoint in endpoints(app):
        method, path = endpoint.split(" ")
        if method in {"GET", "HEAD"} and "{" not in path:
            farm.call(method, path, 200)
    for path in ("users", "leases?state=all", "tokens"):
        farm.call("GET", path, 200)
    assert [it for it in endpoints(app) if not is_called(it, farm.called)] == []


def is_called(endpoint: str, called: set[str]) -> bool:
    pattern = re.sub(r"{\w+}", "[^/]+", endpoint)
    return any(re.fullmatch(pattern, call) for call in called)


def copy_of(url: str) -> str:
    """All that a backup of the database would have."""
    if url.startswith("sqlite"):
        path = Path(str(parsed_url(url).database))
        found = [*path.parent.glob(f"{path.name}*")]
        assert len(found) > 1, "the write-ahead log is there"
        return "".join(it.read_bytes().decode("latin-1") for it in found)
    return asyncio.run(_copy_of_tables(url)).decode("latin-1")


async def _copy_of_tables(url: str) -> bytes:
    copied = io.BytesIO()
    connection = await asyncpg.connect(listening_dsn(parsed_url(url)))
    try:
        for table in metadata.tables:
            await connection.copy_from_table(table, output=copied, format="binary")
    finally:
        await connection.close()
    return copied.getvalue()


def test_no_planted_secret_is_found_in_logs_answers_arguments_or_the_database(
    database_url: str,
) -> None:
    planted = {kind: f'{secrets.token_urlsafe(24)} "<é&' for kind in KINDS}
    for kind in ("bootstrap token", "wrong token"):
        planted[kind] = secrets.token_urlsafe(24)
    environment = {
        "LOG_LEVEL": "debug",
        "BOTFARM_BOOTSTRAP_TOKEN": planted["bootstrap token"],
    }
    program = ("-c", ECHOING)
    with ServerProcess(database_url, environment, program=program) as server:
        farm = Confidence(server.wait_until_ready().url, planted)
        in_confidence = use(farm)
        everything_to_read(farm)
        process = psutil.Process(server.process.pid)
        arguments = process.cmdline()
        core_bytes, _ = process.rlimit(psutil.RLIMIT_CORE)
        copied = copy_of(database_url)
        farm.http.close()
    searcher = Searcher({**planted, "sealing key": SECRET_KEY})
    log = "\n".join(server.log)
    assert "INSERT INTO users" in log
    assert "it failed in the middle" in log
    assert "alice" in copied
    assert all(map(searcher.leaks, in_confidence))
    found = {
        "log": searcher.leaks(log),
        "answers": searcher.leaks("\n".join(farm.told)),
        "arguments": searcher.leaks(" ".join(arguments)),
        "database": searcher.leaks(copied),
    }
    assert not any(found.values()), found
    assert core_bytes == 0
