"""A real `botfarm serve` over SQLite, and the commands against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.postgresql import PostgresqlServer
from support.servers import TOKEN, ServerProcess

from botfarm_server.cli.main import run


@dataclass(frozen=True)
class Farm:
    """A running server, and the API as a test calls it beside the commands."""

    url: str
    http: httpx.Client
    server: ServerProcess

    def stop(self) -> None:
        self.server.stop()

    def add_user(self, login: str, env: str = "stage", **more: Any) -> str:
        body = {"login": login, "password": "pw", "env": env, "domain": "regular"}
        created = self.http.post("/api/v1/users", json={**body, **more})
        assert created.status_code == 201, created.text
        return str(created.json()["id"])

    def lease(self, *, status: int = 200, **holder: str) -> str:
        lease_id = str(uuid.uuid4())
        wants = [{"env": "stage", "domain": "regular"}]
        body = {"wants": wants, "holder": holder}
        answer = self.http.put(f"/api/v1/leases/{lease_id}", json=body)
        assert answer.status_code == status, answer.text
        return lease_id

    def users(self) -> list[Any]:
        found: list[Any] = self.http.get("/api/v1/users").json()
        return found

    def wipe(self) -> None:
        for lease in self.http.get("/api/v1/leases", params={"limit": 1000}).json():
            self.http.post(f"/api/v1/leases/{lease['id']}/break", json={"reason": "-"})
        for user in self.users():
            self.http.delete(f"/api/v1/users/{user['id']}")


@dataclass(frozen=True)
class Ran:
    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Botfarm = Callable[..., Ran]
Serve = Callable[..., Farm]


def _client(url: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False)


@pytest.fixture(scope="session")
def served_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    path = tmp_path_factory.mktemp("served") / "farm.sqlite3"
    environment = {"BOTFARM_BOOTSTRAP_TOKEN": TOKEN}
    with ServerProcess(f"sqlite:///{path}", environment) as server:
        server.wait_until_ready()
        with _client(server.url) as http:
            yield Farm(server.url, http, server)


@pytest.fixture
def serve(tmp_path: Path, environment: None) -> Iterator[Serve]:
    """Starts a server of the test's own, without a token.

    `wait=False` does not wait until it can serve; settings are `BOTFARM_…="…"`.
    """
    with ExitStack() as running:

        def start(*, url: str = "", wait: bool = True, **settings: str) -> Farm:
            url = url or f"sqlite:///{tmp_path / 'served.sqlite3'}"
            server = running.enter_context(ServerProcess(url, settings))
            if wait:
                server.wait_until_ready()
            http = running.enter_context(_client(server.url))
            return Farm(server.url, http, server)

        yield start


@pytest.fixture
def farm(
    served_farm: Farm, environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Farm]:
    """An empty farm that the commands find by their environment."""
    monkeypatch.setenv("BOTFARM_URL", served_farm.url)
    monkeypatch.setenv("BOTFARM_TOKEN", TOKEN)
    yield served_farm
    served_farm.wipe()


@pytest.fixture
def environment(
    _own_environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An empty directory, and an environment that names no server."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def botfarm(capsys: pytest.CaptureFixture[str]) -> Botfarm:
    """Runs a command within this process, which saves it a second each time."""

    def call(*arguments: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run(arguments)
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in err
        return Ran(code, out, err)

    return call


@pytest.fixture
def process(environment: None) -> Botfarm:
    """Runs a command as a process of its own, in the test's environment."""

    def call(*arguments: str, given: str = "", **more: str) -> Ran:
        ended = subprocess.run(
            command(*arguments),
            env={**os.environ, **more},
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in ended.stderr
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    return call


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "botfarm_server", *arguments]


@pytest.fixture
def empty_postgresql(postgresql: PostgresqlServer, environment: None) -> Iterator[str]:
    """The URL of a PostgreSQL database without a schema."""
    url = postgresql.create_database()
    yield url
    postgresql.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_database(
    request: pytest.FixtureRequest,
    environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """DATABASE_URL names a database without a schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    else:
        url = request.getfixturevalue("empty_postgresql")
    monkeypatch.setenv("DATABASE_URL", url)
