"""Which schema the database has, and bringing it to the one that this version needs."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import inspect, text
from sqlalchemy.engine import URL

from botfarm_server.domain.errors import SchemaMismatchError
from botfarm_server.store.engine import Connection, translated_errors

HEAD = "0010"
"""The newest revision of the migration tree.

Written down so that a start need not import Alembic, which takes most of a second.
"""


def migrations_directory() -> Path:
    """Where the migration tree is: inside the wheel, or at the repository's top."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "alembic"
    return shipped if shipped.is_dir() else package.parent / "alembic"


async def current_revision(connection: Connection) -> str | None:
    """The revision of the database, or `None` for one without a schema."""
    if not await connection.run_sync(
        lambda it: inspect(it).has_table("alembic_version")
    ):
        return None
    answer = await connection.execute(text("SELECT version_num FROM alembic_version"))
    return answer.scalar_one_or_none()


def upgrade(url: URL, revision: str = "head") -> None:
    """Run the migrations; several at once wait for one another.

    It starts an event loop of its own, so it is to be called outside of one.

    Raises:
        SchemaMismatchError: the database is at a revision that this version lacks.
        DatabaseUnavailableError: it cannot be used now.

    """
    # Imported here: it takes most of a second, and most starts do not need it.
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    from alembic import command  # noqa: PLC0415

    config = Config()
    config.set_main_option(
        "script_location", str(migrations_directory()).replace("%", "%%")
    )
    config.attributes["url"] = url
    try:
        with translated_errors():
            command.upgrade(config, revision)
    except CommandError as error:
        raise SchemaMismatchError("at one of another version", HEAD) from error
