"""Sealing anew with a new key, over both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from botfarm_server.domain.errors import SecretUnreadableError
from botfarm_server.services import rotation
from botfarm_server.services.answers import Held
from botfarm_server.services.credentials import UserDraft
from botfarm_server.services.rotation import Rotation
from botfarm_server.store.tables import users

from .conftest import Farm, build_farm

pytestmark = pytest.mark.anyio

OLD, NEW = b"o" * 32, b"n" * 32


@asynccontextmanager
async def farm_with(database_url: str, *keys: bytes) -> AsyncIterator[Farm]:
    farm = build_farm(database_url, keys=list(keys))
    try:
        yield farm
    finally:
        await farm.database.dispose()


async def add(farm: Farm, login: str) -> None:
    secrets = {"pin": f"pin of {login}"}
    await farm.users.create(
        UserDraft(login, f"password of {login}", "stage", "regular", secrets=secrets)
    )


async def held_with_state(farm: Farm) -> Held:
    held = await farm.held()
    fence = held.lease.fence
    assert fence is not None
    await farm.kept_states.save(
        held.lease.id, held.users[0].id, fence=fence, state="session", expires_in=None
    )
    return held


async def counts(farm: Farm) -> list[tuple[str, int, int, int]]:
    keys = await Rotation(farm.database, farm.sealer).keys()
    return [(it.use, it.passwords, it.secrets, it.states) for it in keys]


async def test_a_rotation_goes_on_where_it_was_left_and_leases_go_on_meanwhile(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed meanwhile stays changed; the old key is needed no more."""
    monkeypatch.setattr(rotation, "BATCH", 1)
    async with farm_with(database_url, OLD) as before:
        for login in ("alice", "bob", "carol"):
            await add(before, login)
        await before.release(await held_with_state(before))
    async with farm_with(database_url, NEW, OLD) as farm:
        held = await farm.held()
        interrupted = await Rotation(farm.database, farm.sealer).reseal_some(None)
        assert interrupted is not None
        assert await counts(farm) == [("seals", 1, 1, 0), ("opens", 2, 2, 1)] or (
            await counts(farm) == [("seals", 1, 1, 1), ("opens", 2, 2, 0)]
        )
        await farm.users.change(held.users[0].id, {"password": "changed"})
        rotating, after = Rotation(farm.database, farm.sealer), None
        while (resealed := await rotating.reseal_some(after)) is not None:
            after = resealed.last
            assert not resealed.unreadable
        assert await rotating.count_left() == 0
        assert (await counts(farm))[1] == ("opens", 0, 0, 0)
        await farm.release(held)
    async with farm_with(database_url, NEW) as farm:
        told = [(await farm.held()).users[0] for _ in range(3)]
        assert {(it.login, it.password, it.secrets["pin"]) for it in told} == {
            (
                it,
                "changed" if it == held.users[0].login else f"password of {it}",
                f"pin of {it}",
            )
            for it in ("alice", "bob", "carol")
        }


async def test_a_row_copied_onto_another_and_a_lost_key_are_left_and_told(
    database_url: str,
) -> None:
    async with farm_with(database_url, OLD) as before:
        await add(before, "alice")
        await add(before, "bob")
        alice, bob = (await before.held()).users[0], (await before.held()).users[0]
        async with before.database.write() as connection:
            of_bob = users.select().where(users.c.id == bob.id)
            row = (await connection.execute(of_bob)).one()
            await connection.execute(
                users.update()
                .where(users.c.id == alice.id)
                .values(sealed_password=row.sealed_password)
            )
    for keys, has_key in (((NEW, OLD), True), ((NEW,), False)):
        async with farm_with(database_url, *keys) as farm:
            resealed = await Rotation(farm.database, farm.sealer).reseal_some(None)
            assert resealed is not None
            left = {(it.user_id, it.has_key) for it in resealed.unreadable}
            assert left == {(alice.id, has_key)}
    async with farm_with(database_url, NEW) as farm:
        assert (await counts(farm))[1] == ("missing", 1, 0, 0)
        await farm.users.quarantine(bob.id, "of no use here")
        async with farm.database.write() as connection:
            await connection.execute(users.update().values(lease_id=None))
        with pytest.raises(SecretUnreadableError, match="does not have"):
            await farm.ask()
