"""A real server for tests of the client and the plugin."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from pytest_botfarm.embedded import EmbeddedServer

from .servers import TOKEN, ServerProcess

DEADLINE = 20.0
"""Seconds until a test gives up on what it waits for."""
DOMAINS = ",".join(f"d{number}" for number in range(300))
"""What BOTFARM_DOMAINS has to be for `Farm.add_pool`."""

Json = dict[str, Any]


def eventually(
    condition: Callable[[], object], what: str, *, within: float = DEADLINE
) -> None:
    """Wait until a condition holds."""
    ends = time.monotonic() + within
    while not condition():
        assert time.monotonic() < ends, f"not within {within} s: {what}"
        time.sleep(0.02)


@dataclass
class Farm:
    """A server that leases, and an admin's view of it."""

    url: str
    token: str
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def __post_init__(self) -> None:
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}
        )

    def add_pool(self, *logins: str, labels: Mapping[str, str] | None = None) -> str:
        """Users in a domain of their own. Returns the domain."""
        domain = f"d{next(self._numbers)}"
        for login in logins:
            self.add_user(login, domain, labels=labels)
        return domain

    def add_user(
        self, login: str, domain: str, *, labels: Mapping[str, str] | None = None
    ) -> None:
        answer = self.http.post(
            "/api/v1/users/",
            json={
                "login": f"{login}@{domain}",
                "password": f"password of {login}",
                "env": "stage",
                "domain": domain,
                "labels": dict(labels or {}),
            },
        )
        assert answer.status_code == 201, answer.text

    def hold(self, domain: str, *, count: int = 1, wait: float = 0.0) -> str:
        """Lease users of a pool for somebody else. Returns the lease's id."""
        lease_id = str(uuid.uuid4())
        answer = self.http.put(
            f"/api/v1/leases/{lease_id}",
            json={
                "wants": [{"env": "stage", "domain": domain, "count": count}],
                "wait": wait,
            },
            timeout=wait + DEADLINE,
        )
        assert answer.status_code == 200, answer.text
        return lease_id

    def leases(self, domain: str | None = None, *, state: str = "live") -> list[Json]:
        """Leases, the oldest first; of one pool, if it is named."""
        answer = self.http.get("/api/v1/leases", params={"state": state, "limit": 1000})
        leases: list[Json] = answer.raise_for_status().json()
        return [
            lease
            for lease in reversed(leases)
            if domain is None
            or any(want["domain"] == domain for want in lease["wants"])
        ]

    def outcomes(self, domain: str) -> list[str | None]:
        return [lease["outcome"] for lease in self.leases(domain, state="ended")]


@contextmanager
def running_farm(folder: Path, **settings: str) -> Iterator[Farm]:
    """A farm over a server process of its own, with its database in a folder."""
    environment = {"BOTFARM_DOMAINS": DOMAINS, "BOTFARM_BOOTSTRAP_TOKEN": TOKEN}
    database_url = f"sqlite:///{folder / 'farm.sqlite3'}"
    with ServerProcess(database_url, {**environment, **settings}) as server:
        farm = Farm(server.wait_until_ready().url, TOKEN)
        yield farm
        farm.http.close()


def lease_from(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have suites lease from a new pool of two users. Returns its domain."""
    domain = farm.add_pool("alice", "bob")
    monkeypatch.setenv("BOTFARM_URL", farm.url)
    monkeypatch.setenv("BOTFARM_TOKEN", farm.token)
    monkeypatch.setenv("BOTFARM_ENV", "stage")
    monkeypatch.setenv("BOTFARM_DOMAIN", domain)
    return domain


@contextmanager
def farm_of(pool: Path) -> Iterator[Farm]:
    """A farm over a pool file: that of the runs over this file, at the same place."""
    server = EmbeddedServer(pool)
    try:
        endpoint = server.endpoint()
        assert endpoint.token is not None
        farm = Farm(endpoint.url, endpoint.token)
        try:
            yield farm
        finally:
            farm.http.close()
    finally:
        server.stop()


def write_pool(path: Path, *logins: str) -> Path:
    """A pool file with these accounts, in stage/regular."""
    text = ""
    for login in logins:
        text += (
            f'[[users]]\nlogin = "{login}"\npassword = "password of {login}"\n'
            'env = "stage"\ndomain = "regular"\n'
        )
    path.write_text(text)
    return path


def servers_over(pool: Path) -> list[psutil.Process]:
    """The embedded servers that run over a pool file."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        arguments = process.info["cmdline"] or []
        if "botfarm_server.embedded" in arguments and str(pool) in arguments:
            found.append(process)
    return found
