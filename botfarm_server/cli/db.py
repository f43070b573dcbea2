"""`botfarm db upgrade|check`."""

from __future__ import annotations

import typer

from botfarm_server.cli.output import note

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
