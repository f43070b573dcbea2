"""What tests of every kind share: the databases."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio._backends._asyncio
import greenlet  # type: ignore[import-untyped]  # it has no types
import httpcore
import pytest
from support.postgresql import PostgresqlServer

from botfarm_server.logging import configure_logging
from botfarm_server.store import migrations
from botfarm_server.store.dialects import database_url as parsed_url

pytest_plugins = ["pytester"]


# pytester forgets the modules that a test is the first to import: httpx would meet two
# versions of httpcore, and know the errors of one.
IMPORTED_ONCE = (httpcore, anyio._backends._asyncio)


# coverage asks greenlet for the greenlet of every thread. Python destroys those of
# threads that have ended in a pending call, which tells coverage through a weak
# reference; if another thread ends meanwhile, Python 3.11 waits in the traced callback
# for ever. Those that are kept are never destroyed.
if "coverage" in sys.modules:
    _kept: list[object] = []
    _run = threading.Thread.run

    def _run_and_keep(thread: threading.Thread) -> None:
        _kept.append(greenlet.getcurrent())
        _run(thread)

    setattr(threading.Thread, "run", _run_and_keep)  # noqa: B010 - mypy forbids it


def pytest_configure() -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and processes inherit
    # that: those that the tests interrupt would go on.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _logging() -> Iterator[None]:
    """As a server logs; tests of logs look at those of real processes."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        configure_logging("INFO", "json", nowhere)
        yield
        logging.getLogger().handlers.clear()


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("BOTFARM_") or name in {
            "DATABASE_URL",
            "LOG_LEVEL",
            "PROJECT_NAME",
        }:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """The run's PostgreSQL server, shared by xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    run = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    # pytest's own directories are closed to the user that PostgreSQL runs as, and
    # the path of a socket may have 107 bytes.
    name = hashlib.sha256(str(run).encode()).hexdigest()[:12]
    server = PostgresqlServer(Path(tempfile.gettempdir()) / f"botfarm-{name}")
    server.forgo_the_disk()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def migrated_postgresql(postgresql: PostgresqlServer) -> Iterator[str]:
    """A database with the schema, for all tests of one worker."""
    url = postgresql.create_database()
    migrations.upgrade(parsed_url(url))
    yield url
    postgresql.drop_database(url)


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the schema, to be copied for each test."""
    path = tmp_path_factory.mktemp("template") / "farm.sqlite3"
    migrations.upgrade(parsed_url(f"sqlite:///{path}"))
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated and empty database, once over each kind."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("migrated_sqlite")
        path = tmp_path / "farm.sqlite3"
        path.write_bytes(template.read_bytes())
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgresql")
    PostgresqlServer.empty(url)
    return url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
