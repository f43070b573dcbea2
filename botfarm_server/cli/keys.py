"""`botfarm secrets generate-key`."""

from __future__ import annotations

import base64
import secrets

import typer

app = typer.Typer(no_args_is_help=True, help="The keys that seal stored secrets.")


@app.callback()
def group() -> None:
    """The keys that seal stored secrets."""


@app.command()
def generate_key() -> None:
    """Print a new key for BOTFARM_SECRET_KEYS.

    To rotate, put it before the present ones, separated by a comma.
    """
    # Imported here: with it comes SQLAlchemy, half a second.
    from botfarm_server.settings import SECRET_KEY_BYTES  # noqa: PLC0415

    typer.echo(base64.b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode())
