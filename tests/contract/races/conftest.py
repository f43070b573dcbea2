"""The crossroads over each database, opened once for each module."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .crossroads import Crossroads


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for the module, so that connections outlive a test."""
    return "asyncio"


@pytest.fixture(scope="module")
async def on_sqlite(
    anyio_backend: str, migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Crossroads]:
    path = tmp_path_factory.mktemp("crossroads") / "farm.sqlite3"
    shutil.copy(migrated_sqlite, path)
    crossroads = await Crossroads.open(f"sqlite:///{path}")
    yield crossroads
    await crossroads.close()


@pytest.fixture(scope="module")
async def on_postgresql(
    anyio_backend: str, migrated_postgresql: str
) -> AsyncIterator[Crossroads]:
    crossroads = await Crossroads.open(migrated_postgresql)
    yield crossroads
    await crossroads.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def crossroads(request: pytest.FixtureRequest) -> Crossroads:
    """Opened once for all tests over a kind of database, whatever their order."""
    opened: Crossroads = request.getfixturevalue(f"on_{request.param}")
    return opened
