"""The root of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from itertools import takewhile
from typing import Annotated

import typer

from botfarm_server.cli import audit, db, keys, leases, serve, tokens, users
from botfarm_server.cli.errors import CommandError, UsageError
from botfarm_server.cli.output import complain, make_output_unfailing

INTERRUPTED = 130
TRACEBACK_VARIABLE = "BOTFARM_TRACEBACK"
TOKENS = frozenset({"--token", "--bootstrap-token"})
"""What people expect to be options, and none is."""

app = typer.Typer(
    name="botfarm",
    help="Leases test accounts to tests: one holder at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve")(serve.serve)
app.command("audit")(audit.audit)
app.add_typer(users.app, name="users")
app.add_typer(leases.app, name="leases")
app.add_typer(tokens.app, name="tokens")
app.add_typer(db.app, name="db")
app.add_typer(keys.app, name="secrets")


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


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command and end the process: 0, 1 for a refusal, 2 for wrong use."""
    make_output_unfailing()
    try:
        _refuse_tokens(sys.argv[1:] if arguments is None else arguments)
        app(arguments)
    except CommandError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        # Its text is left out: nobody has looked whether it repeats a secret.
        complain(
            f"an error that should not happen ({type(error).__name__}). Please report "
            f"it, with what is shown if you set {TRACEBACK_VARIABLE}=1."
        )
        sys.exit(1)


def _refuse_tokens(arguments: Sequence[str]) -> None:
    """Raise UsageError where a token stands for all to see."""
    for argument in takewhile("--".__ne__, arguments):
        if (option := argument.partition("=")[0]) in TOKENS:
            raise UsageError(
                f"There is no {option}: every user of this machine can read its "
                "command lines, and the shell keeps them. Set BOTFARM_TOKEN, or "
                "BOTFARM_TOKEN_FILE to the name of a file that holds the token (for "
                "the server: BOTFARM_BOOTSTRAP_TOKEN, BOTFARM_BOOTSTRAP_TOKEN_FILE)."
            )
