"""`botfarm secrets generate-key|status|rotate`."""

from __future__ import annotations

import base64
import secrets
from dataclasses import asdict

import typer

from botfarm_server.cli.errors import CommandError
from botfarm_server.cli.options import AsJson
from botfarm_server.cli.output import note, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="The keys that seal stored secrets.")

# The work is imported by each command: with it comes SQLAlchemy, half a second.


@app.callback()
def group() -> None:
    """The keys that seal stored secrets."""


@app.command()
def generate_key() -> None:
    """Print a new key for BOTFARM_SECRET_KEYS.

    To rotate, put it before the present ones, separated by a comma; where several
    servers run, behind them until all have it.
    """
    from botfarm_server.settings import SECRET_KEY_BYTES  # noqa: PLC0415

    typer.echo(base64.b64encode(secrets.token_bytes(SECRET_KEY_BYTES)).decode())


@app.command()
def status(as_json: AsJson = False) -> None:
    """Tell what each key has sealed in the database of DATABASE_URL.

    The exit code is 1 if a key is missing without which users cannot be leased.
    """
    from botfarm_server.cli import resealing  # noqa: PLC0415

    keys = resealing.status()
    if as_json:
        print_json([asdict(key) for key in keys])
    elif keys:
        print_table(
            ("KEY", "IT", "PASSWORDS", "SECRETS", "STATES"),
            (
                (it.name, it.use, str(it.passwords), str(it.secrets), str(it.states))
                for it in keys
            ),
        )
    else:
        note("There are no keys, and nothing is sealed.")
    missing = [key.name for key in keys if key.use == "missing" and key.needed]
    if missing:
        raise CommandError(
            f"Not among BOTFARM_SECRET_KEYS: {', '.join(missing)}. Users whose secrets "
            "they sealed cannot be leased. Add them behind the newest key; if they are "
            "lost, import those users again."
        )


@app.command()
def rotate() -> None:
    """Seal all secrets in the database of DATABASE_URL with the newest key.

    Run it with the servers' own keys, once all servers have the new key first. They
    go on leasing meanwhile. It can be interrupted, and run again.
    """
    from botfarm_server.cli import resealing  # noqa: PLC0415

    note(resealing.rotate())
