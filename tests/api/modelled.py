"""What a model of users, tokens and leases is made of, and the server beside it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, TypeVar

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal
from sqlalchemy import delete
from support.servers import SECRET_KEY

from botfarm_server.api.state import AppState
from botfarm_server.app import create_app
from botfarm_server.domain.models import Role
from botfarm_server.services.expiry import ExpiryLoop
from botfarm_server.settings import fixed_settings
from botfarm_server.store import tables

from .conftest import running

BOOTSTRAP = "a-long-enough-token"
OURS, THEIRS = (str(uuid.UUID(int=number)) for number in (1, 2))
PROJECTS = (None, OURS, THEIRS)
ROLES: Sequence[Role] = ("read", "lease", "admin")
LIVE = {"held", "waiting"}
FOREVER = {"claim_window": 300, "poll_grace": 300, "loop_interval": 60}
"""Nothing expires by itself while an example runs."""

Project = str | None
Answer = httpx.Response
Chosen = TypeVar("Chosen")


@dataclass(eq=False)
class Token:
    secret: str
    role: Role
    project: Project
    id: str = ""
    ended: str | None = None

    def knows(self, project: Project) -> bool:
        return self.project in {None, project}

    def may(self, needed: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(needed)


@dataclass(eq=False)
class User:
    id: str
    login: str
    project: Project
    in_quarantine: bool = False
    lease: Lease | None = None

    @property
    def state(self) -> str:
        if self.in_quarantine:
            return "quarantined"
        return "held" if self.lease else "free"


@dataclass(eq=False)
class Lease:
    id: str
    test_id: str
    taken_by: Token
    project: Project
    state: str = "waiting"
    fence: int = 0
    user: User | None = None
    """Which it has, or had."""
    is_first_api: bool = False
    is_hopeless: bool = False

    def may_have(self, user: User) -> bool:
        return self.project in {None, user.project}


@dataclass
class Server:
    """The app in this process, called from a thread without a loop."""

    portal: BlockingPortal
    client: httpx.AsyncClient
    state: AppState

    def call(self, token: str, method: str, path: str, body: Any = None) -> Answer:
        headers = {"Authorization": f"Bearer {token}"}
        send = partial(self.client.request, json=body, headers=headers)
        return self.portal.call(send, method, f"/api/v1{path}")

    def execute(self, *statements: Any) -> None:
        async def run() -> None:
            async with self.state.access.database.write() as connection:
                for statement in statements:
                    await connection.execute(statement)

        self.portal.call(run)

    def look_for_lapsed(self) -> None:
        leases = self.state.leases
        expiry = ExpiryLoop(
            database=leases.database,
            news=leases.news,
            times=leases.times,
            interval=60,
            retention=timedelta(days=30),
            audit_retention=timedelta(days=30),
        )
        self.portal.call(expiry.look)

    def empty(self) -> None:
        every = ("queue_entries", "grants", "users", "leases", "tokens")
        self.execute(*(delete(getattr(tables, name)) for name in every))


@contextmanager
def serving(database_url: str) -> Iterator[Server]:
    values: dict[str, Any] = {"database_url": database_url, **FOREVER}
    values |= {"bootstrap_token": BOOTSTRAP, "max_requests_per_second": 0}
    values |= {"secret_keys": SECRET_KEY, "bcrypt_cost": 4, "lock_delay": 0}
    app = create_app(fixed_settings(values))
    state: AppState = app.state.botfarm
    state.wrong_tokens.clock = partial(next, count(0, 3600))  # too many in no hour
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(app)) as client,
    ):
        yield Server(portal, client, state)


def password_of(login: str) -> str:
    return f"secret of {login}."


def chosen(among: Sequence[Chosen], number: int) -> Chosen:
    return among[number % len(among)]


def told(answer: Answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]
