"""How commands speak: results on standard output, refusals on standard error."""

from __future__ import annotations

from typing import NoReturn

import typer


def refuse(message: str, *, exit_code: int = 1) -> NoReturn:
    """Say why a command cannot be done, and end it.

    Exit code 1 is a refusal, 2 wrong use.
    """
    typer.secho(f"botfarm: {message}", err=True, fg=typer.colors.RED)
    raise typer.Exit(exit_code)
