"""Fences grow, whatever becomes of the database."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from support.postgresql import PostgresqlServer

from botfarm_server.cli.schema import LOST_GRANTS
from botfarm_server.store import migrations, users
from botfarm_server.store.dialects import TIMELINE_SHIFT, raise_fences
from botfarm_server.store.dialects import database_url as parsed_url

from .conftest import Farm, build_farm


@pytest.fixture
def primary() -> Iterator[PostgresqlServer]:
    # Not below pytest's directories: the server runs as a user of its own.
    directory = Path(tempfile.mkdtemp(prefix="botfarm-primary-"))
    server = PostgresqlServer(directory)
    yield server
    server.stop()
    shutil.rmtree(directory, ignore_errors=True)


async def fences(url: str, count: int) -> list[int]:
    farm = build_farm(url)
    found: list[int] = []
    for _ in range(count):
        held = await farm.held()
        found.append(held.users[0].fence)
        await farm.release(held)
    await farm.database.dispose()
    return found


async def add_alice(url: str) -> None:
    farm = build_farm(url)
    await farm.add_user("alice")
    await farm.database.dispose()


def test_they_grow_when_a_standby_takes_over_that_had_not_heard_of_all_grants(
    primary: PostgresqlServer,
) -> None:
    url = primary.create_database()
    migrations.upgrade(parsed_url(url))
    asyncio.run(add_alice(url))
    known = asyncio.run(fences(url, 3))
    # Not made here: it has to belong to the user that the server runs as.
    standby = Path(tempfile.gettempdir()) / f"botfarm-standby-{uuid4().hex[:8]}"
    primary.copy_to(standby)
    lost = asyncio.run(fences(url, 50))
    primary.control("start", directory=standby)
    try:
        primary.control("promote", directory=standby)
        name = url.split("@/")[1].split("?")[0]
        after = asyncio.run(fences(primary.url(name, standby), 2))
    finally:
        primary.control("stop", "-m", "immediate", directory=standby)
        shutil.rmtree(standby)
    grown = [*known, *lost, *after]
    assert grown == sorted(set(grown))
    assert [fence >> TIMELINE_SHIFT for fence in after] == [1, 1]


@pytest.mark.anyio
async def test_they_are_above_all_others_after_a_restore(farm: Farm) -> None:
    await farm.add_user("alice")
    async with farm.database.queue() as (connection, _):
        await raise_fences(connection, 1_000)
    first = await farm.held()
    await farm.release(first)
    async with farm.database.queue() as (connection, _):
        await raise_fences(connection, 1_000)
    second = await farm.held()
    assert first.users[0].fence > 1_000
    assert second.users[0].fence > first.users[0].fence + 1_000


@pytest.mark.anyio
async def test_a_lease_of_the_backup_does_not_shorten_the_rest(farm: Farm) -> None:
    alice = await farm.add_user()
    held = await farm.held()
    await farm.let_lapse(held)
    # What `botfarm db after-restore --rest 3600` does.
    async with farm.database.queue() as (connection, now):
        await raise_fences(connection, LOST_GRANTS)
        await users.rest_all(connection, now + timedelta(seconds=3600))
    await farm.expiry.look()
    in_half_an_hour = await farm.now() + timedelta(seconds=1800)
    async with farm.database.read() as connection:
        user = await users.get(connection, alice.id, in_half_an_hour)
    assert user is not None
    assert user.state == "resting"


@pytest.mark.anyio
async def test_a_release_of_the_backup_s_lease_does_not_end_the_rest(
    farm: Farm,
) -> None:
    alice = await farm.add_user()
    held = await farm.held()
    async with farm.database.queue() as (connection, now):
        await users.rest_all(connection, now + timedelta(seconds=3600))
    await farm.release(held)
    assert (await farm.users.get(alice.id)).state == "resting"


@pytest.mark.anyio
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_fences_grow_when_the_timeline_begins_anew(farm: Farm) -> None:
    """As with a dump that is loaded into a new cluster, or pg_upgrade."""
    alice = await farm.add_user()
    before = (2 << TIMELINE_SHIFT) + 7
    async with farm.database.write() as connection:
        await connection.execute(text(f"UPDATE users SET fence = {before}"))
    async with farm.database.queue() as (connection, _):
        await raise_fences(connection, LOST_GRANTS)
    held = await farm.held()
    assert held.users[0].id == alice.id
    assert held.users[0].fence > before
