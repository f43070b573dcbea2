"""`botfarm tokens create|list|revoke`."""

from __future__ import annotations

import re
from typing import Annotated, Any
from uuid import UUID

import typer

from botfarm_server.cli.client import connected
from botfarm_server.cli.errors import CommandError, UsageError
from botfarm_server.cli.finding import SHORT_ID
from botfarm_server.cli.options import DEFAULT_URL, AsJson, Url
from botfarm_server.cli.output import note, operator, print_json, print_table
from botfarm_server.domain.access import Caller
from botfarm_server.domain.models import Role

app = typer.Typer(no_args_is_help=True, help="Who may use a server, and for what.")

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for, to tell it apart.")],
    *,
    role: Annotated[
        Role,
        typer.Option(
            help="read sees users and leases, lease takes leases, admin does all."
        ),
    ] = "lease",
    project_id: Annotated[
        UUID | None, typer.Option(help="The only project that it is to know of.")
    ] = None,
    expires_in: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Its life, as 90d, 12h, 30m or 600s."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            help="Make it in this database itself, without a server: the first one."
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
) -> None:
    """Make a token and print it: it cannot be shown again."""
    seconds = None if expires_in is None else _seconds(expires_in)
    if database_url is None:
        body = {"name": name, "role": role, "expires_in": seconds}
        body["project_id"] = None if project_id is None else str(project_id)
        with connected(url) as client:
            made = client.post("/tokens", body)
    else:
        made = _in_database(database_url, name, role, project_id, seconds)
    if as_json:
        print_json(made)
    else:
        note(f"Made token {made['id']} of role {role}. It is not shown again.")
        typer.echo(made["token"])


def _in_database(
    database_url: str,
    name: str,
    role: Role,
    project_id: UUID | None,
    expires_in: float | None,
) -> Any:
    # Imported here: with it comes SQLAlchemy, half a second.
    from pydantic import ValidationError  # noqa: PLC0415

    from botfarm_server.api.schemas.tokens import NewTokenOut, TokenIn  # noqa: PLC0415
    from botfarm_server.api.tokens import told  # noqa: PLC0415
    from botfarm_server.cli import schema  # noqa: PLC0415
    from botfarm_server.poolfile import problems_of  # noqa: PLC0415

    try:
        given = TokenIn(
            name=name, role=role, project_id=project_id, expires_in=expires_in
        )
    except ValidationError as error:
        found = "; ".join(f"{field}: {why}" for field, why in problems_of(error))
        raise UsageError(f"{found}.") from None
    made = schema.create_token(
        database_url,
        given.name,
        given.role,
        project_id=given.project_id,
        expires_in=given.expires_in,
        by=Caller("admin", kind="command_line", name=operator()),
    )
    return NewTokenOut.model_validate(told(made)).model_dump(mode="json")


@app.command("list")
def list_tokens(as_json: AsJson = False, url: Url = DEFAULT_URL) -> None:
    """List tokens, oldest first, with those that have ended."""
    with connected(url) as client:
        tokens = client.get("/tokens")
    if as_json:
        print_json(tokens)
    elif tokens:
        print_table(
            ("TOKEN", "NAME", "ROLE", "PROJECT", "LAST USED", "ENDS"),
            map(_row, tokens),
        )
    else:
        note("There are no tokens. Make one with `botfarm tokens create NAME`.")


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(help="Its id, or how the id begins.")],
    url: Url = DEFAULT_URL,
) -> None:
    """End a token at once. What was leased with it expires."""
    with connected(url) as client:
        found = [
            it for it in client.get("/tokens") if it["id"].startswith(token.lower())
        ]
        if len(found) != 1 or not token:
            raise CommandError(
                f"{len(found) or 'No'} tokens have an id that begins with {token!r}. "
                "`botfarm tokens list` shows them."
            )
        client.delete(f"/tokens/{found[0]['id']}")
    note(f"Revoked token {found[0]['id']} ({found[0]['name']}).")


def _row(token: Any) -> tuple[str, ...]:
    revoked = token["revoked_at"]
    return (
        token["id"][:SHORT_ID],
        token["name"],
        token["role"],
        token["project_id"] or "all",
        _minute(token["last_used_at"]),
        f"revoked {_minute(revoked)}" if revoked else _minute(token["expires_at"]),
    )


def _minute(time: str | None) -> str:
    """`2030-01-31 12:00`, in UTC."""
    return "never" if time is None else time[:16].replace("T", " ")


def _seconds(given: str) -> float:
    """`90d`, `12h`, `30m` or `600s` in seconds; raises UsageError."""
    written = re.fullmatch(r"([0-9]{1,9})([smhd])", given)
    if written is None:
        raise UsageError(f"--expires-in {given!r} is not understood. Write 90d or 12h.")
    return float(written[1]) * _SECONDS[written[2]]
