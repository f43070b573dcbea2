"""The root of the command line."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from botfarm_server.cli import serve

app = typer.Typer(
    name="botfarm",
    help="Leases test accounts to tests: one holder at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"botfarm {version('pytest-botfarm')}")
        raise typer.Exit


@app.callback()
def root(
    shown: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Leases test accounts to tests: one holder at a time."""


def run() -> None:
    app()
