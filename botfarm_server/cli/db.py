"""`botfarm db upgrade|check|after-restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from botfarm_server.cli.output import note, operator
from botfarm_server.domain.access import Caller

app = typer.Typer(no_args_is_help=True, help="The schema of the server's database.")

# The work is imported by each command: with it comes SQLAlchemy, half a second.


@app.command()
def upgrade() -> None:
    """Bring the database of DATABASE_URL to the schema that this version needs."""
    from botfarm_server.cli import schema  # noqa: PLC0415

    note(schema.upgrade())


@app.command()
def check() -> None:
    """Say whether the database of DATABASE_URL has the schema of this version."""
    from botfarm_server.cli import schema  # noqa: PLC0415

    note(schema.check())


@app.command()
def after_restore(
    rest: Annotated[
        float,
        typer.Option(
            min=0,
            help="Seconds that every user rests: the longest TTL that is in use. "
            "Tests that leased since the backup may still be running.",
        ),
    ] = 60.0,
    *,
    revoke_tokens: Annotated[
        bool,
        typer.Option(
            "--revoke-tokens",
            help="End all tokens: those that were revoked since the backup are valid "
            "again.",
        ),
    ] = False,
) -> None:
    """Make a database that was restored from a backup safe to lease from.

    Run it before the servers start. Grants made since the backup are not in it, so that
    their fences would be given out again; nor are revocations of tokens.
    """
    from botfarm_server.cli import schema  # noqa: PLC0415

    by = Caller("admin", kind="command_line", name=operator())
    note(schema.after_restore(rest, revoke_tokens=by if revoke_tokens else None))
