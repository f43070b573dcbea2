"""Options that several commands have, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from botfarm_server.cli.errors import UsageError

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="BOTFARM_URL",
        help="The server. Its token comes from BOTFARM_TOKEN or BOTFARM_TOKEN_FILE.",
    ),
]
Pool = Annotated[
    Path | None,
    typer.Option(help="A pool file, whose runs bring their own server; not --url."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Env = Annotated[str | None, typer.Option(help="Only users of this env.")]
Domain = Annotated[str | None, typer.Option(help="Only users of this domain.")]
ProjectId = Annotated[UUID | None, typer.Option(help="Only users of this project.")]
UserName = Annotated[
    str, typer.Argument(metavar="USER", help="The login or the id of a user.")
]
UserEnv = Annotated[
    str | None, typer.Option("--env", help="Its env, where several have this login.")
]


def labels_of(given: list[str]) -> dict[str, str]:
    """What `--label name=value`, given any number of times, says.

    Raises:
        UsageError: one is not written so.

    """
    labels: dict[str, str] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (name and equals and text):
            raise UsageError(
                f"--label {pair!r} is not understood. Write --label name=value."
            )
        labels[name] = text
    return labels
