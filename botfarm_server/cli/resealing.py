"""What `botfarm secrets` does to the database that DATABASE_URL names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from botfarm_server.cli import schema
from botfarm_server.cli.errors import CommandError, UsageError
from botfarm_server.cli.output import operator
from botfarm_server.cli.progress import progress
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import SecretUnreadableError
from botfarm_server.services.rotation import KeyUse, Rotation
from botfarm_server.services.sealing import Sealer
from botfarm_server.settings import Settings, SettingsError, load_settings
from botfarm_server.store.dialects import database_url
from botfarm_server.store.engine import Database

MOST_NAMED = 10
"""Users that a message lists."""

T = TypeVar("T")


def status() -> list[KeyUse]:
    """The keys, and what each has sealed.

    Raises:
        CommandError: the database cannot be used, or has another version's schema.

    """
    return _with_rotation(Rotation.keys)


def rotate() -> str:
    """Seal everything with the newest key; a sentence about what was done.

    Raises:
        UsageError: there is no key.
        CommandError: as `status`; or something is not under the newest key after it.

    """
    if not _settings().sealing_keys():
        raise UsageError(
            "BOTFARM_SECRET_KEYS is not set, so there is no key to seal with. It has "
            "to be what the servers have."
        )
    unreadable, keys = _with_rotation(_rotate)
    if unreadable:
        raise CommandError(_not_opened(unreadable))
    newest, *others = keys
    if any(key.needed or key.states for key in others):
        raise CommandError(
            f"Not all is under key {newest.name}: something was sealed with an older "
            "key meanwhile. Start all servers with the newest key first, and run this "
            "again."
        )
    return (
        f"All is sealed with key {newest.name} now. The other keys are needed for "
        "nothing here, but to restore backups from before."
    )


async def _rotate(
    rotation: Rotation,
) -> tuple[Sequence[SecretUnreadableError], Sequence[KeyUse]]:
    unreadable: list[SecretUnreadableError] = []
    after = None
    with progress("sealed anew", await rotation.count_left()) as advance:
        while (resealed := await rotation.reseal_some(after)) is not None:
            after = resealed.last
            unreadable += resealed.unreadable
            advance(resealed.users)
    return unreadable, await rotation.keys()


def _not_opened(unreadable: Sequence[SecretUnreadableError]) -> str:
    keys = sorted({error.key for error in unreadable})
    users = list(dict.fromkeys(str(error.user_id) for error in unreadable))
    more = f" and {len(users) - MOST_NAMED} more" if len(users) > MOST_NAMED else ""
    return (
        f"No key opens {len(unreadable)} values, which were left: sealed with "
        f"{', '.join(keys)}, of {', '.join(users[:MOST_NAMED])}{more}. All else is "
        "sealed with the newest key. Add the keys and run this again, or import these "
        "users again."
    )


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _with_rotation(use: Callable[[Rotation], Awaitable[T]]) -> T:
    schema.check()
    settings = _settings()
    sealer = Sealer(settings.sealing_keys())
    by = Caller("admin", kind="command_line", name=operator())

    async def run() -> T:
        database = Database(database_url(settings.database_url), pool_size=2)
        try:
            return await use(Rotation(database, sealer, by))
        finally:
            await database.dispose()

    with schema.told(settings.database_url):
        return asyncio.run(run())
