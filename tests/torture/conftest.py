"""A laboratory over each database, started once for each of pytest's processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.postgresql import PostgresqlServer

from botfarm_server.store import migrations
from botfarm_server.store.dialects import database_url

from .laboratory import Laboratory


@pytest.fixture(scope="session")
def postgresql_laboratory(
    postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    # A database of its own: its servers look at it all the time.
    url = postgresql.create_database()
    migrations.upgrade(database_url(url))
    laboratory = Laboratory(url, tmp_path_factory.mktemp("laboratory"))
    yield laboratory
    laboratory.close()
    postgresql.drop_database(url)


@pytest.fixture(scope="session")
def sqlite_laboratory(
    migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Laboratory]:
    folder = tmp_path_factory.mktemp("laboratory")
    path = folder / "farm.sqlite3"
    shutil.copy(migrated_sqlite, path)
    laboratory = Laboratory(f"sqlite:///{path}", folder)
    yield laboratory
    laboratory.close()


@pytest.fixture(params=["postgresql", "sqlite"])
def laboratory(request: pytest.FixtureRequest) -> Laboratory:
    found: Laboratory = request.getfixturevalue(f"{request.param}_laboratory")
    return found
