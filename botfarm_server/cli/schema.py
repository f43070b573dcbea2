"""What `botfarm db` does to the database that DATABASE_URL names, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from botfarm_server.cli.errors import CommandError, UsageError
from botfarm_server.domain.access import Caller
from botfarm_server.domain.errors import BotfarmError, DatabaseUnavailableError
from botfarm_server.domain.models import Role
from botfarm_server.services.tokens import NewToken, TokenService
from botfarm_server.settings import SettingsError, load_settings
from botfarm_server.store import migrations, tokens, users
from botfarm_server.store.dialects import database_url, make_file, raise_fences
from botfarm_server.store.engine import Database

LOST_GRANTS = 1_000_000_000
"""More grants than can have been made since the backup."""

LINGER = 0.1
"""Seconds that aiosqlite's thread has, after a failure, to end."""


def upgrade() -> str:
    """Bring the database to this version's schema; a sentence about what was done.

    Raises:
        CommandError: it cannot be used, or is at a revision of another version.

    """
    given = _configured_url()
    _make_writable(given)
    with told(given):
        before = _revision(given)
        if before == migrations.HEAD:
            return f"{place_of(given)} is at revision {before} already."
        migrations.upgrade(database_url(given))
    return (
        f"{place_of(given)} is at revision {migrations.HEAD} now; it was "
        f"{_described(before)}."
    )


def check() -> str:
    """A sentence that says that the database has this version's schema.

    Raises:
        CommandError: it has not, or cannot be used.

    """
    given = _configured_url()
    with told(given):
        found = _revision(given)
    if found == migrations.HEAD:
        return f"{place_of(given)} is at revision {found}, as this version needs it."
    raise _wrong_revision(given, found)


def _wrong_revision(given: str, found: str | None) -> CommandError:
    later = "; if that is a later one, install the version of pytest-botfarm it is of"
    return CommandError(
        f"{place_of(given)} is {_described(found)}, and this version needs revision "
        f"{migrations.HEAD}. Run `botfarm db upgrade`{'' if found is None else later}."
    )


def after_restore(rest: float, *, revoke_tokens: Caller | None = None) -> str:
    """Make a restored database safe to lease from; sentences about what was done.

    `revoke_tokens` is by whom all its tokens are revoked, if they are.

    Raises:
        CommandError: it cannot be used, or has not the schema of this version.

    """
    check()
    given = _configured_url()
    with told(given):
        database = Database(database_url(given), pool_size=2)
        revoked = asyncio.run(_after_restore(database, rest, revoke_tokens))
    about_tokens = (
        "Tokens that were revoked since the backup are valid again: revoke them anew "
        "with `botfarm tokens revoke`, or all of them with --revoke-tokens."
        if revoked is None
        else f"Tokens revoked: {revoked}. `botfarm tokens create` makes new ones."
    )
    return (
        f"{place_of(given)} is ready: fences go on above all that were given out "
        f"before, and every user rests for {rest:g} s. {about_tokens} Passwords are "
        "those of the backup: import what was changed since."
    )


async def _after_restore(
    database: Database, rest: float, revoke_tokens: Caller | None
) -> int | None:
    """How many tokens were revoked, if they were to be."""
    try:
        async with database.queue() as (connection, now):
            await raise_fences(connection, LOST_GRANTS)
            await users.rest_all(connection, now + timedelta(seconds=rest))
        if revoke_tokens is None:
            return None
        return await TokenService(database).revoke_all(revoke_tokens)
    finally:
        await database.dispose()


def create_token(
    given: str,
    name: str,
    role: Role,
    *,
    project_id: UUID | None,
    expires_in: float | None,
    by: Caller,
) -> NewToken:
    """Make a token in the database itself; who may write there needs none.

    Raises:
        UsageError: the URL is not one of a database.
        CommandError: it cannot be used, or has not the schema of this version.

    """
    try:
        url = database_url(given)
    except ValueError as error:
        raise UsageError(f"--database-url: {error}.") from None
    with told(given):
        found = _revision(given)
        if found != migrations.HEAD:
            raise _wrong_revision(given, found)
        return asyncio.run(
            _create_token(
                Database(url, pool_size=2),
                name,
                role,
                project_id=project_id,
                expires_in=expires_in,
                by=by,
            )
        )


async def _create_token(
    database: Database,
    name: str,
    role: Role,
    *,
    project_id: UUID | None,
    expires_in: float | None,
    by: Caller,
) -> NewToken:
    try:
        return await TokenService(database).create(
            by, name, role, project_id=project_id, expires_in=expires_in
        )
    finally:
        await database.dispose()


def has_tokens(given: str) -> bool:
    """Whether the database is known to have tokens; false where it cannot tell."""
    try:
        if _revision(given) != migrations.HEAD:
            return False
        return asyncio.run(_has_tokens(Database(database_url(given), pool_size=2)))
    except BotfarmError:
        return False


async def _has_tokens(database: Database) -> bool:
    try:
        async with database.read() as connection:
            return await tokens.exist(connection)
    finally:
        await database.dispose()


def place_of(given: str) -> str:
    """The database as a message names it: no user name, no password, no options."""
    url = database_url(given)
    if url.get_backend_name() == "sqlite":
        return f"The SQLite database {url.database}"
    port = f":{url.port}" if url.port else ""
    return f"The PostgreSQL database {url.database or ''!r} at {url.host}{port}"


def _configured_url() -> str:
    try:
        return load_settings().database_url
    except SettingsError as error:
        raise UsageError(str(error)) from None


def _revision(given: str) -> str | None:
    url = database_url(given)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return None  # a look must not leave an empty file behind
    return asyncio.run(_read_revision(Database(url, pool_size=2)))


async def _read_revision(database: Database) -> str | None:
    try:
        async with database.read() as connection:
            return await migrations.current_revision(connection)
    except BotfarmError:
        # A failed connection's thread still calls into the loop, and would print a
        # traceback if it found the loop closed.
        await asyncio.sleep(LINGER)
        raise
    finally:
        await database.dispose()


def _make_writable(given: str) -> None:
    """Create a SQLite file where there is none, or say why that cannot be."""
    url = database_url(given)
    if url.get_backend_name() != "sqlite":
        return
    path = Path(str(url.database))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        make_file(url)
        path.open("ab").close()
    except OSError as error:
        raise CommandError(
            f"{place_of(given)} cannot be used: {error.strerror}. Check DATABASE_URL, "
            "and the rights of its directory."
        ) from None


@contextmanager
def told(given: str) -> Iterator[None]:
    try:
        yield
    except DatabaseUnavailableError as error:
        raise CommandError(
            f"{place_of(given)} cannot be used: {error.why}. Check DATABASE_URL, and "
            "that the database runs."
        ) from None
    except BotfarmError as error:
        raise CommandError(error.detail) from None


def _described(revision: str | None) -> str:
    return "without a schema" if revision is None else f"at revision {revision}"
