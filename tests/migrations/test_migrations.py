"""One tree of migrations for both databases."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.sql.schema import SchemaItem
from support.postgresql import PostgresqlServer

from botfarm_server.domain.errors import SchemaMismatchError
from botfarm_server.store import migrations
from botfarm_server.store.dialects import database_url as parsed_url
from botfarm_server.store.tables import ONLY_ON, metadata

T = TypeVar("T")
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/farm.sqlite3"
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    url = server.create_database()
    yield url
    server.drop_database(url)


def alembic(url: str, *arguments: str, directory: Path = REPOSITORY) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=directory,
        env={**os.environ, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


async def on(url: str, look: Callable[[Connection], T]) -> T:
    engine = create_async_engine(parsed_url(url))
    async with engine.begin() as connection:
        found = await connection.run_sync(look)
    await engine.dispose()
    return found


async def execute(url: str, statement: str) -> None:
    await on(url, lambda connection: connection.execute(text(statement)))


def differences(connection: Connection) -> list[object]:
    dialect = connection.dialect.name

    def is_of_this_database(item: SchemaItem, *_: object) -> bool:
        return bool(item.info.get(ONLY_ON, dialect) == dialect)

    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "compare_server_default": True,
            "include_object": is_of_this_database,
        },
    )
    return list(compare_metadata(context, metadata))


def constraints(connection: Connection) -> dict[str, set[str | None]]:
    inspector = inspect(connection)
    return {
        table: {
            *(it["name"] for it in inspector.get_check_constraints(table)),
            *(it["name"] for it in inspector.get_unique_constraints(table)),
            *(it["name"] for it in inspector.get_foreign_keys(table)),
            *(it["name"] for it in inspector.get_indexes(table)),
        }
        for table in metadata.tables
    }


@pytest.mark.anyio
async def test_migrated_tables_are_the_declared_ones(
    empty_url: str, tmp_path: Path
) -> None:
    alembic(empty_url, "upgrade", "head")
    assert await on(empty_url, differences) == []
    found = await on(empty_url, constraints)
    await on(empty_url, metadata.drop_all)
    await on(empty_url, metadata.create_all)
    assert found == await on(empty_url, constraints)


def test_upgrade_downgrade_and_upgrade_again(empty_url: str) -> None:
    alembic(empty_url, "upgrade", "head")
    alembic(empty_url, "downgrade", "base")
    alembic(empty_url, "upgrade", "head")
    assert "No new upgrade operations" in alembic(empty_url, "check")


def test_the_written_head_is_the_tree_s_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.migrations_directory()))
    assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_a_new_revision_can_be_generated(empty_url: str, tmp_path: Path) -> None:
    for name in ("alembic.ini", "alembic"):
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    alembic(empty_url, "upgrade", "head")
    alembic(
        empty_url,
        *("revision", "--autogenerate", "-m", "nothing", "--rev-id", "9999"),
        directory=tmp_path,
    )
    made = tmp_path / "alembic" / "versions" / "9999_nothing.py"
    assert made.read_text().count("    pass") == 2


def test_several_processes_migrate_at_once(empty_url: str) -> None:
    program = (
        "import sys; from botfarm_server.store import migrations as m;"
        "from botfarm_server.store.dialects import database_url as u;"
        "m.upgrade(u(sys.argv[1]))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, empty_url]) for _ in range(3)
    ]
    assert [process.wait(60) for process in started] == [0, 0, 0]


@pytest.mark.anyio
async def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    alembic(empty_url, "upgrade", "head")
    await execute(empty_url, "UPDATE alembic_version SET version_num = 'newer'")
    with pytest.raises(SchemaMismatchError):
        await asyncio.to_thread(migrations.upgrade, parsed_url(empty_url))
