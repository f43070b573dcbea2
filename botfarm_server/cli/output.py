"""How commands speak: results on standard output, all else on standard error."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from botfarm_server.domain.texts import printable

UNBOUNDED_WIDTH = 10_000
"""Columns where no terminal reads along: a row is a line, for grep and awk."""


def refuse(message: str, *, exit_code: int = 1) -> NoReturn:
    """Say why a command cannot be done, and end it.

    Exit code 1 is a refusal, 2 wrong use.
    """
    complain(message)
    raise typer.Exit(exit_code)


def complain(message: str) -> None:
    typer.secho(f"botfarm: {printable(message)}", err=True, fg=typer.colors.RED)


def note(message: str) -> None:
    """Tell a person something that is no result."""
    typer.echo(printable(message), err=True)


def print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A row for each thing; cells that do not fit are folded, nothing is cut off."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, overflow="fold", header_style="bold")
    for row in rows:
        table.add_row(*(_cell(text) for text in row))
    _console().print(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """A name and its text on each line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in facts:
        table.add_row(name, _cell(text))
    _console().print(table)


def in_words(seconds: float | None) -> str:
    """`12s`, `3m20s`, `2h05m`, `3d04h`: the two largest units."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h{whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3_600:02}h"


def pairs(given: dict[str, str]) -> str:
    """`role=admin, plan=free`, as labels are told."""
    return ", ".join(f"{name}={text}" for name, text in given.items())


def operator() -> str:
    """Who gives the commands, as others are told: `jane@laptop`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # no such user in a container's passwd
        name = "somebody"
    return f"{name}@{socket.gethostname()}"


def make_output_unfailing() -> None:
    """Let no character of a login or a test end a command with an encoding error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _cell(text: str) -> Text:
    # As `Text`, so that the brackets of a parametrised test are no markup.
    return Text(printable(text))


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNBOUNDED_WIDTH
    return console
